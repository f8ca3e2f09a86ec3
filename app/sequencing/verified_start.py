"""Keeps how far the operator log was verified, so that a term need not begin at its first record.

A file in the key directory, signed by the log key. What speaks for beginning there:
- Whoever owns the database cannot write it. Whoever can write into the key directory can read the
  log key as well, and needs no false start to have anything signed.
- The signature binds it to this deployment's log key and to one operator log, wherever it lies. One
  that is torn, or that no log key of ours signed, is no start: then all is read again.
- An older one put in its place is true as well; only more is read then.
- What lies beneath it is not read again, but it cannot change either: the start holds the subtrees
  of all leaves so far, and the log's tree and its head must be those grown by the records after
  them. So a log that was cut, rewritten or grown anew beneath the start has another root and is not
  signed, also where no anchor is there to say so. A record beneath it that was changed while the
  tree was left alone stays a break for every reader and for `meshflow audit`: no signature of ours
  covers what it says now.
- The notes in it are those that records held when they were verified.

Whoever opens a recovery takes it away: the log may lawfully be shorter then.

Source: docs/ledger-format.md sections 9 and 10.

Threat: Ledger tampering
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import KeyStoreError
from app.domain.run import Json, TenantId
from app.keys.signing_keys import SigningKey
from app.ledger.chain import Resume
from app.ledger.signatures import signature_holds
from app.transparency.checkpoint import Checkpoint, parse_checkpoint
from app.transparency.merkle_tree import CompactRange
from app.transparency.note import NoteError, parse_note

_log = logging.getLogger("meshflow.sequencer")
_DOMAIN = b"meshflow-ledger/v1/verified-start\0"  # in no note: a note has no zero byte
_SIGNATURE_BYTES = 64
SAVE_EVERY = 4096  # records: what a term then reads again takes two seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a verified reading of the operator log stands, and what it has learnt until there."""

    head: Resume
    tree: CompactRange
    loose: tuple[bytes, ...]  # hashes of records that have no leaf yet
    newest: Mapping[str, tuple[Checkpoint, str]]  # by origin, with its note
    recovered: frozenset[str]
    ended: frozenset[str]
    deleted: frozenset[bytes]
    schema: str | None


class VerifiedStart:
    """The file of one operator log."""

    def __init__(
        self,
        directory: Path,
        operator: TenantId,
        *,
        signing_key: Callable[[], SigningKey],
        public_keys: Callable[[], Collection[bytes]],
        save_every: int = SAVE_EVERY,
    ) -> None:
        self._path = directory / "verified" / operator.hex
        self._operator = operator
        self._signing_key = signing_key
        self._public_keys = public_keys
        self._save_every = save_every

    def is_due(self, done: int, saved: int, notes: int) -> bool:
        """Whether `done` records are so far beyond the `saved` ones that keeping them pays."""
        return done - saved >= max(self._save_every, min(notes, self._save_every * 16))

    async def load(self) -> Standing | None:
        """The start, or None when there is none that holds."""
        return await asyncio.to_thread(self._load)

    async def save(self, standing: Standing) -> bool:
        """Keep it for the next term; False when it cannot be, which costs that term time only."""
        return await asyncio.to_thread(self._save, standing)

    async def exists(self) -> bool:
        """Whether there is a file at all."""
        return await asyncio.to_thread(self._path.exists)

    async def forget(self) -> None:
        """Take it away: what comes next may lawfully not follow from it. KeyStoreError."""
        await asyncio.to_thread(self._forget)

    def _forget(self) -> None:
        try:
            self._path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise KeyStoreError(f"the verified start cannot be removed: {error.strerror}") from None

    def _load(self) -> Standing | None:
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("the verified start cannot be read: %s", error.strerror)
            return None
        signature, state = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        message = self._message(state)
        if not any(signature_holds(key, signature, message) for key in self._public_keys()):
            _log.error("the verified start is not ours, or damaged: all is read again")
            return None
        try:
            return _decoded(state)
        except (ValueError, KeyError, TypeError, NoteError):
            _log.error("the verified start is of another version: all is read again")
            return None

    def _save(self, standing: Standing) -> bool:
        state = _encoded(standing)
        data = self._signing_key().sign(self._message(state)) + state
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
                file.write(data)
            draft.replace(self._path)
        except OSError as error:
            _log.warning("the verified start cannot be kept: %s", error.strerror)
            return False
        return True

    def _message(self, state: bytes) -> bytes:
        return _DOMAIN + self._operator.bytes + state


def _encoded(standing: Standing) -> bytes:
    head, tree = standing.head, standing.tree
    told: Json = {
        "head": [head.next_seq, head.chain.hex(), head.epoch],
        "tree": [tree.size, [item.hex() for item in tree.hashes]],
        "loose": [item.hex() for item in standing.loose],
        "newest": {origin: note for origin, (_, note) in standing.newest.items()},
        "recovered": [*sorted(standing.recovered)],
        "ended": [*sorted(standing.ended)],
        "deleted": [item.hex() for item in sorted(standing.deleted)],
        "schema": standing.schema,
    }
    return json.dumps(told, separators=(",", ":")).encode()


def _decoded(data: bytes) -> Standing:
    """What `_encoded` made; it was signed, so only another version of us could mean another thing.

    ValueError, KeyError, TypeError, NoteError for anything else.
    """
    told = json.loads(data)
    next_seq, chain, epoch = told["head"]
    size, hashes = told["tree"]
    return Standing(
        head=Resume(next_seq=int(next_seq), chain=bytes.fromhex(chain), epoch=int(epoch)),
        tree=CompactRange(size=int(size), hashes=tuple(map(bytes.fromhex, hashes))),
        loose=tuple(map(bytes.fromhex, told["loose"])),
        newest={
            str(origin): (parse_checkpoint(parse_note(note.encode()).text), str(note))
            for origin, note in told["newest"].items()
        },
        recovered=frozenset(map(str, told["recovered"])),
        ended=frozenset(map(str, told["ended"])),
        deleted=frozenset(map(bytes.fromhex, told["deleted"])),
        schema=None if told["schema"] is None else str(told["schema"]),
    )
