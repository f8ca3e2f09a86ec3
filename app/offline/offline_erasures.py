"""Erasure statements: what is gone must be named by one, what one names must be gone.

Threat: Ledger tampering
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.offline.bundle_reader import PAYLOADS, RECORDS
from app.offline.offline_headers import FIELD_NAMES
from app.offline.offline_merkle import tag
from app.offline.offline_notes import Checkpoint, is_signed, parse_checkpoint
from app.offline.offline_records import Break, RunRecords
from app.offline.strict_json import BrokenError, Json, Row, parse_canonical

ANONYMIZE_RUN = "anonymize_run"
DELETE_RUN = "delete_run"
DELETE_TENANT = "delete_tenant"
_STATEMENT = (
    "action",
    "actor",
    "at",
    "checkpoint",
    "items",
    "legal_basis",
    "log",
    "request_ref",
    "run",
    "v",
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_BASIS = re.compile(r"[a-z0-9_.:-]{1,64}")
_ACTOR = re.compile(r"key:[0-9a-f]{16}|system|model|tool|operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedItem:
    """What a statement says of one record."""

    rc: bytes
    chain: bytes
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement in its form; `key` is the key that it says signed it, and did."""

    action: str
    log: bytes
    run: bytes | None
    items: tuple[ErasedItem, ...]
    checkpoint: Checkpoint | None
    key: bytes


def read_statement(note: Json) -> Statement:
    """A statement whose signature holds under the key it names; whose key that is, is not said."""
    row = Row(note, ("key", "signature", "statement"))
    key, text = row.hexadecimal("key", 32), row.text("statement").encode("utf-8")
    if not is_signed(key, row.hexadecimal("signature", 64), tag("erasure") + text):
        raise BrokenError("the signature of the erasure statement does not hold")
    said = Row(parse_canonical(text), _STATEMENT)
    log = said.hexadecimal("log", 16)
    action = said.text("action")
    said.hexadecimal("request_ref", 32)
    if said.integer("v") != 1 or action not in {ANONYMIZE_RUN, DELETE_RUN, DELETE_TENANT}:
        raise BrokenError("the erasure statement is of no known version or action")
    if not all(
        pattern.fullmatch(said.text(name))
        for name, pattern in (("at", _TIME), ("legal_basis", _BASIS), ("actor", _ACTOR))
    ):
        raise BrokenError("the erasure statement has a time, a basis or an actor that is none")
    of_tenant = action == DELETE_TENANT
    if said.is_null("run") != of_tenant or said.is_null("items") != of_tenant:
        raise BrokenError("the erasure statement names no run, or a run beside a tenant")
    items = () if of_tenant else tuple(map(_item, range(2**32), said.items("items")))
    if not of_tenant and not items:
        raise BrokenError("the erasure statement names no record")
    return Statement(
        action=action,
        log=log,
        run=None if of_tenant else said.hexadecimal("run", 16),
        items=items,
        checkpoint=_checkpoint_of(said, log),
        key=key,
    )


def _checkpoint_of(said: Row, log: bytes) -> Checkpoint | None:
    if said.is_null("checkpoint"):
        return None
    try:
        checkpoint = parse_checkpoint(said.text("checkpoint").encode("utf-8"))
    except BrokenError as error:
        raise BrokenError(f"the checkpoint of the erasure statement {error.reason}") from None
    if checkpoint.log != log.hex():
        raise BrokenError("the checkpoint of the erasure statement is of another log")
    return checkpoint


def _item(seq: int, value: Json) -> ErasedItem:
    row = Row(value, ("chain", "fields", "rc", "seq"))
    if row.integer("seq") != seq:
        raise BrokenError("the erasure statement does not name the records in order")
    names: list[str] = []
    for name in row.items("fields"):
        if not isinstance(name, str) or name not in FIELD_NAMES.values() or name in names:
            raise BrokenError("the erasure statement names a field that is none, or one twice")
        names.append(name)
    return ErasedItem(
        rc=row.hexadecimal("rc", 32), chain=row.hexadecimal("chain", 32), fields=tuple(names)
    )


def check_statement(statement: Statement, found: RunRecords, index: int) -> None:
    """BrokenError unless it speaks of this run as it is stored, and stands at a later index."""
    if statement.log != found.log or statement.run != found.run:
        raise BrokenError("the erasure statement is about another run")
    if statement.checkpoint is not None and statement.checkpoint.size > index:
        raise BrokenError("the erasure statement names a checkpoint that comes after it")
    rows = found.rows
    if len(statement.items) > len(rows):
        raise BrokenError("the erasure statement names records that are not here")
    if statement.action == DELETE_RUN and len(statement.items) != len(rows):
        raise BrokenError("the deletion of the run does not name all of its records")
    for row, item in zip(rows, statement.items, strict=False):
        if (item.rc, item.chain) != (row.rc, row.chain):
            raise BrokenError("the erasure statement has other hashes than are stored")
        if row.header is not None and not row.header.commit.keys() >= set(item.fields):
            raise BrokenError("the erasure statement names a field that never was")
        if row.index is None or row.index >= index:
            raise BrokenError("the erasure statement stands before a record that it names")


def check_gone(
    found: RunRecords, statements: Sequence[Statement], broken: Break, *, withheld: bool
) -> dict[int, set[str]]:
    """Compares what is gone with what lawfully is. Answers the fields that are, by record.

    `withheld`: no content is there at all, so that none is missing from among the others.
    """
    named: dict[int, set[str]] = {}
    deleted = any(statement.action == DELETE_RUN for statement in statements)
    for statement in statements:
        for seq, item in enumerate(statement.items):
            named.setdefault(seq, set()).update(item.fields)
    for row in found.rows:
        if row.erased and not deleted:
            broken(RECORDS, row.seq, "the header is gone and no erasure statement names it")
        if deleted and not row.erased:
            broken(RECORDS, row.seq, "the header is there though a statement says it is gone")
    for seq, name in sorted(found.disclosed):
        if name in named.get(seq, ()):
            broken(PAYLOADS, seq, f"field {name} is there though a statement says it is gone")
    if not withheld:
        _check_missing(found, named, broken)
    return named


def _check_missing(found: RunRecords, named: Mapping[int, set[str]], broken: Break) -> None:
    for seq, name in sorted(found.committed()):
        if (seq, name) not in found.disclosed and name not in named.get(seq, ()):
            broken(PAYLOADS, seq, f"field {name} is gone and no erasure statement names it")


def told(found: RunRecords, named: Mapping[int, set[str]]) -> list[dict[str, Json]]:
    """What is lawfully gone, for the report."""
    return [
        {
            "seq": row.seq,
            "header": row.erased,
            "fields": list[Json](sorted(named.get(row.seq, ()))),
        }
        for row in found.rows
        if row.erased or named.get(row.seq)
    ]
