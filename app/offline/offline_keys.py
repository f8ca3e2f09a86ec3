"""Which keys count, and up to which index: pins, rotations between them, retired writers.

A key counts when it is pinned in the policy or when rotation records, signed by both keys, lead to
it from a pinned one. What a bundle brings along by itself never counts.

Threat: Ledger tampering
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from app.offline.offline_merkle import tag
from app.offline.offline_notes import (
    SIGNATURE,
    Checkpoint,
    VerifierKey,
    is_signed,
    parse_origin,
    signers,
)
from app.offline.offline_policy import Policy
from app.offline.strict_json import BrokenError, Json, Row, canonical

ROLES = ("log", "erasure", "enrolment")
_MOST_ROTATIONS = 1000
_ROTATION = ("new", "new_signature", "old", "old_signature", "role", "sizes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A key gave way to another; both signed it."""

    role: str
    old: bytes
    new: bytes
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """A writer signs no more from these indexes on."""

    writer_id: bytes
    sizes: Mapping[str, int]


def read_rotation(note: Json) -> Rotation:
    """A rotation whose two signatures hold. BrokenError if they do not."""
    row = Row(note, _ROTATION)
    old, new = row.hexadecimal("old", 32), row.hexadecimal("new", 32)
    signed: Json = {name: row.value(name) for name in ("new", "old", "role", "sizes")}
    message = tag("rotate") + canonical(signed)
    if row.text("role") not in ROLES or old == new:
        raise BrokenError("rotates no key, or one into itself")
    for name, key in (("old_signature", old), ("new_signature", new)):
        if not is_signed(key, row.hexadecimal(name, 64), message):
            raise BrokenError(f"{name} of a rotation does not hold")
    return Rotation(role=row.text("role"), old=old, new=new, sizes=row.sizes("sizes"))


def read_retirement(note: Json) -> Retirement:
    """What a key.retired record says."""
    row = Row(note, ("sizes", "writer_id"))
    return Retirement(writer_id=row.hexadecimal("writer_id", 16), sizes=row.sizes("sizes"))


@dataclass(slots=True, kw_only=True)
class KeyHistory:
    """Rotations and retirements as the bundle tells them; the policy says where trust begins."""

    successors: dict[tuple[str, bytes], Rotation] = field(default_factory=dict)
    predecessors: dict[tuple[str, bytes], Rotation] = field(default_factory=dict)
    retirements: dict[bytes, list[Retirement]] = field(default_factory=dict)

    def add_rotation(self, rotation: Rotation) -> None:
        """One more rotation. BrokenError when the keys of one role would fork."""
        old, new = (rotation.role, rotation.old), (rotation.role, rotation.new)
        if old in self.successors or new in self.predecessors:
            raise BrokenError("gives a key two successors or two predecessors")
        if len(self.successors) >= _MOST_ROTATIONS:
            raise BrokenError("is one rotation more than a bundle may have")
        self.successors[old] = self.predecessors[new] = rotation

    def add_retirement(self, retirement: Retirement) -> None:
        """One more retirement."""
        self.retirements.setdefault(retirement.writer_id, []).append(retirement)

    def trusted(self, role: str, pinned: Iterable[bytes]) -> list[bytes]:
        """The pinned keys and those that rotations tie to them, in either direction."""
        found = dict.fromkeys(pinned)
        waiting = list(found)
        while waiting:
            key = (role, waiting.pop())
            links = (self.successors.get(key), self.predecessors.get(key))
            for link in links:
                for other in () if link is None else (link.old, link.new):
                    if other not in found:
                        found[other] = None
                        waiting.append(other)
        return list(found)

    def ends_at(self, role: str, key: bytes, log: str) -> int | None:
        """The size of the log at which the key gave way to another; None if it did not."""
        rotation = self.successors.get((role, key))
        return None if rotation is None else rotation.sizes.get(log, 0)

    def starts_at(self, role: str, key: bytes, log: str) -> int | None:
        """The size of the log at which the key took over; None if it always counted."""
        rotation = self.predecessors.get((role, key))
        return None if rotation is None else rotation.sizes.get(log, 0)

    def check_counts(
        self, role: str, key: bytes | None, trusted: Sequence[bytes], log: str, index: int
    ) -> None:
        """BrokenError unless this enrolment or erasure key is trusted and counts at this index."""
        if key is None or key not in trusted:
            raise BrokenError(f"is vouched for by no {role} key that is pinned")
        end = self.ends_at(role, key, log)
        if end is not None and index >= end:
            raise BrokenError(f"rests on an {role} key that had given way before")

    def retired_at(self, writer_id: bytes, log: str) -> int | None:
        """The first index at which this writer may not have signed; None if it is not retired."""
        sizes = [item.sizes.get(log, 0) for item in self.retirements.get(writer_id, ())]
        return min(sizes, default=None)


def pinned_logs(policy: Policy, deployment: str) -> list[bytes]:
    """The public keys of the policy's log lines that name a log of this deployment."""
    return [
        key.public
        for key in policy.logs
        for named in (parse_origin(key.name),)
        if named is not None and named[0] == deployment
    ]


def check_signed_by_log(checkpoint: Checkpoint, policy: Policy, history: KeyHistory) -> None:
    """BrokenError unless a log key that counts for this size signed the checkpoint.

    A line by a trusted key that does not hold, or by one that does not count there, breaks it even
    beside another that does.
    """
    trusted = history.trusted("log", pinned_logs(policy, checkpoint.deployment))
    if not trusted:
        raise BrokenError("is of a deployment whose log key is not pinned")
    keys = [VerifierKey(name=checkpoint.origin, algorithm=SIGNATURE, public=key) for key in trusted]
    found = signers(checkpoint.note, keys)
    if not found:
        raise BrokenError("is signed by no log key that is pinned or follows from a pinned one")
    for key in found:
        end = history.ends_at("log", key.public, checkpoint.log)
        start = history.starts_at("log", key.public, checkpoint.log)
        if end is not None and checkpoint.size > end:
            raise BrokenError("is signed by a log key that had given way before this size")
        if start is not None and checkpoint.size <= start:
            raise BrokenError("is signed by a log key that had not taken over at this size")


def signing_key(keys: Sequence[bytes], signature: bytes, message: bytes) -> bytes | None:
    """The one of these keys under which the signature holds."""
    return next((key for key in keys if is_signed(key, signature, message)), None)
