"""Says why a signed erasure statement does not count where it stands: its key, its checkpoint.

Source: docs/ledger-format.md sections 11 and 12.

Threat: Ledger tampering
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from app.audit.log_keys import LogKeys
from app.keys.erasure_keys import NAME
from app.ledger.erasure_statement import Erased, ErasureStatement
from app.ledger.key_statements import KeyChange, ends_at
from app.transparency.note import NoteError


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """A statement whose signature holds: which key signed it, and where its record stands."""

    seq: int
    statement: ErasureStatement
    signer: bytes
    index: int | None  # in its log; None: it has no place yet


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldErasures:
    """What statements take away of a run, and the statements, which may still not count."""

    erased: Erased
    grounds: tuple[Ground, ...] = ()


def doubt(ground: Ground, log_keys: LogKeys, changes: Sequence[KeyChange]) -> str | None:
    """Why the statement does not count, or None."""
    log, index, note = ground.statement.log, ground.index, ground.statement.checkpoint
    end = ends_at(changes, NAME, ground.signer, log)
    # A key gives way when all that it signed has a place: what has none was signed afterwards.
    if end is not None and (index is None or index >= end):
        return "an erasure key that had given way signed a statement"
    if note is None:
        return None
    fault, size = checkpoint_fault(note, log, log_keys)
    if fault is None and index is not None and size > index:
        fault = "it is larger than the log was then"
    return None if fault is None else f"the checkpoint in a statement does not hold: {fault}"


def checkpoint_fault(note: str, log: bytes, log_keys: LogKeys) -> tuple[str | None, int]:
    """Why a note is no checkpoint of this log that a log key which counts signed; and its size."""
    origin = note.partition("\n")[0]
    if re.fullmatch(rf".+/ledger/{log.hex()}(/r[1-9][0-9]*)?", origin, re.ASCII) is None:
        return "it is of another log", 0
    try:
        return None, log_keys.opened(note, origin, log).size
    except NoteError as error:
        return str(error), 0
