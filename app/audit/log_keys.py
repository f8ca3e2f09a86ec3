"""The deployment's log keys as a reader of its logs knows them, each with where it counts.

Source: docs/ledger-format.md sections 10 and 11.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from functools import lru_cache

from app.keys.signing_keys import LOG
from app.ledger.key_statements import KeyChange, counts_at
from app.transparency.checkpoint import Checkpoint, open_checkpoint
from app.transparency.note import ED25519, NoteError, parse_note, verifier_key


class LogKeys:
    """Public keys, oldest first, with the recorded changes between them."""

    def __init__(self, keys: Sequence[bytes], changes: Sequence[KeyChange] = ()) -> None:
        self.keys = tuple(keys)
        self.changes = tuple(changes)

    def tied(self, changes: Sequence[KeyChange]) -> "LogKeys":
        """These keys and those that recorded changes tie to them, each where it counts."""
        known, found = list(self.keys), [item for item in changes if item.role == LOG]
        for item in found:
            for one, other in ((item.old, item.new), (item.new, item.old)):
                if one in known and other not in known:
                    known.append(other)
        return LogKeys(known, found)

    def opened(self, note: str, origin: str, log: bytes) -> Checkpoint:
        """The checkpoint of a note that a key which counts at its size signed. NoteError."""
        data = note.encode("utf-8", "surrogateescape")
        parse_note(data)
        for key in reversed(self.keys):
            try:
                found = _opened(data, origin, key)
            except NoteError:
                continue
            if not counts_at(self.changes, key, found.size, log):
                raise NoteError("the key that signed it does not count at this size")
            return found
        raise NoteError("no key of this deployment signed it")


@lru_cache(maxsize=4096)
def _opened(data: bytes, origin: str, key: bytes) -> Checkpoint:
    return open_checkpoint(data, verifier_key(origin, ED25519, key))
