"""Compares two runs step by step, from verified records: what differs, never what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from app.ledger.chain import VerifiedRecord

_MEMBERS = ("model", "engine", "policy", "usage", "outcome")


class Sameness(StrEnum):
    """How a field of one step compares with that of the other."""

    SAME = "same"
    DIFFERENT = "different"
    ERASED = "erased"  # in one of them, so nobody can say
    MISSING = "missing"  # one of them never had it


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDiff:
    """Two records at one position. A kind is None where a run has no such step."""

    seq: int
    kind: str | None
    other_kind: str | None
    differs: tuple[str, ...]
    fields: tuple[tuple[str, Sameness], ...]

    @property
    def is_same(self) -> bool:
        """Whether nothing is known to differ."""
        known = all(how in (Sameness.SAME, Sameness.ERASED) for _, how in self.fields)
        return self.kind == self.other_kind and not self.differs and known


def diff_of(one: Sequence[VerifiedRecord], other: Sequence[VerifiedRecord]) -> tuple[StepDiff, ...]:
    """Every position of the longer run. Digests are not compared: each run has its own key."""
    return tuple(_step(seq, a, b) for seq, (a, b) in enumerate(zip_longest(one, other)))


def _step(seq: int, one: VerifiedRecord | None, other: VerifiedRecord | None) -> StepDiff:
    if one is None or other is None:
        return StepDiff(
            seq=seq,
            kind=None if one is None else one.kind,
            other_kind=None if other is None else other.kind,
            differs=(),
            fields=(),
        )
    names = sorted({*one.fields, *one.erased, *other.fields, *other.erased})
    return StepDiff(
        seq=seq,
        kind=one.kind,
        other_kind=other.kind,
        differs=tuple(name for name in _MEMBERS if one.header[name] != other.header[name]),
        fields=tuple((name, _compared(name, one, other)) for name in names),
    )


def _compared(name: str, one: VerifiedRecord, other: VerifiedRecord) -> Sameness:
    if name in one.erased or name in other.erased:
        return Sameness.ERASED
    if name not in one.fields or name not in other.fields:
        return Sameness.MISSING
    return Sameness.SAME if one.fields[name] == other.fields[name] else Sameness.DIFFERENT
