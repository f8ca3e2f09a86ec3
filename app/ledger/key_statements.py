"""What two keys sign when one gives way to the other, and what a record of it says.

Source: docs/ledger-format.md sections 9 and 11.

Threat: Ledger tampering
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from app.domain.run import JsonObject
from app.ledger.hashing import tag
from app.ledger.signatures import signature_holds

ROTATED, RETIRED = "key.rotated", "key.retired"
_ROTATE = tag("rotate")
_MEMBERS = {"role", "old", "new", "sizes", "old_signature", "new_signature"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A key that gave way to another, and the size of each log, by its id in hex, at that time."""

    role: str
    old: bytes
    new: bytes
    sizes: Mapping[str, int]


def rotation_message(change: KeyChange) -> bytes:
    """The bytes that both keys sign."""
    said = {
        "new": change.new.hex(),
        "old": change.old.hex(),
        "role": change.role,
        "sizes": dict(change.sizes),
    }
    return _ROTATE + json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def rotation_note(
    change: KeyChange, old: Callable[[bytes], bytes], new: Callable[[bytes], bytes]
) -> JsonObject:
    """The note of a `key.rotated` record, signed by both."""
    message = rotation_message(change)
    return {
        "role": change.role,
        "old": change.old.hex(),
        "new": change.new.hex(),
        "sizes": {**change.sizes},
        "old_signature": old(message).hex(),
        "new_signature": new(message).hex(),
    }


def read_rotation(note: JsonObject) -> KeyChange:
    """The change of a note that both keys signed. ValueError for any other."""
    if note.keys() != _MEMBERS:
        raise ValueError("a rotation has other members")
    role, old, new = (str(note[name]) for name in ("role", "old", "new"))
    change = KeyChange(
        role=role, old=bytes.fromhex(old), new=bytes.fromhex(new), sizes=_sizes(note["sizes"])
    )
    message = rotation_message(change)
    for key, name in ((change.old, "old_signature"), (change.new, "new_signature")):
        if not signature_holds(key, bytes.fromhex(str(note[name])), message):
            raise ValueError("a rotation is not signed by both keys")
    return change


def ends_at(changes: Iterable[KeyChange], role: str, key: bytes, log: bytes) -> int | None:
    """The index in a log from which on an enrolment or erasure key counts no more, if any."""
    found = [c.sizes.get(log.hex(), 0) for c in changes if (c.role, c.old) == (role, key)]
    return min(found, default=None)


def counts_at(changes: Iterable[KeyChange], key: bytes, size: int, log: bytes) -> bool:
    """Whether a log key counts for checkpoints of this size of a log, by changes of log keys."""
    for change in changes:
        at = change.sizes.get(log.hex(), 0)
        if (key == change.old and size > at) or (key == change.new and size <= at):
            return False
    return True


def tied(changes: Iterable[KeyChange], role: str, keys: Iterable[bytes]) -> list[bytes]:
    """These keys of a role, and those that changes tie to them in either direction."""
    own = [change for change in changes if change.role == role]
    found = dict.fromkeys(keys)
    while True:
        ends = [(c.old, c.new) for c in own if (c.old in found) != (c.new in found)]
        if not ends:
            return list(found)
        found |= dict.fromkeys(key for pair in ends for key in pair)


def read_retirement(note: JsonObject) -> tuple[bytes, Mapping[str, int]]:
    """The writer that was retired, and the sizes of the logs by then. ValueError."""
    if note.keys() != {"writer_id", "sizes"}:
        raise ValueError("a retirement has other members")
    return bytes.fromhex(str(note["writer_id"])), _sizes(note["sizes"])


def _sizes(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError("sizes are no object")  # noqa: TRY004 - one error for all of it
    found: dict[str, int] = {}
    for name, size in value.items():
        if not isinstance(name, str) or not isinstance(size, int) or isinstance(size, bool):
            raise ValueError("a size is none")  # noqa: TRY004 - one error for all of it
        found[name] = size
    return found
