"""Who stands behind a value and who may learn it, and what becomes of both when values meet."""

from dataclasses import dataclass
from enum import StrEnum


class Integrity(StrEnum):
    """Who stands behind a value, the most trusted first."""

    OPERATOR = "operator"
    USER = "user"
    TOOL = "tool"
    UNTRUSTED = "untrusted"
    QUARANTINED = "quarantined"


class Confidentiality(StrEnum):
    """Who may learn a value, the widest circle first."""

    PUBLIC = "public"
    TENANT = "tenant"
    USER = "user"
    SECRET = "secret"  # noqa: S105 - the word for a circle, not a secret


_BY_TRUST = {integrity: rank for rank, integrity in enumerate(Integrity)}
_BY_CIRCLE = {circle: rank for rank, circle in enumerate(Confidentiality)}


def is_trusted(integrity: Integrity) -> bool:
    """Whether somebody answers for such a value: the operator, the user, or a tool's own system."""
    return _BY_TRUST[integrity] <= _BY_TRUST[Integrity.TOOL]


def lowest(one: Integrity, other: Integrity) -> Integrity:
    """The less trusted of two."""
    return max(one, other, key=_BY_TRUST.__getitem__)


def highest(one: Confidentiality, other: Confidentiality) -> Confidentiality:
    """The narrower circle of two."""
    return max(one, other, key=_BY_CIRCLE.__getitem__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What is known of a value without looking at it. Unlabelled means exactly the default.

    `readers` are the only ones who may be told; None is everybody within the circle.
    """

    integrity: Integrity = Integrity.UNTRUSTED
    confidentiality: Confidentiality = Confidentiality.TENANT
    readers: frozenset[str] | None = None

    def join(self, other: "Label") -> "Label":
        """The label of what was made of both: the lower trust, the narrower circle."""
        return Label(
            integrity=lowest(self.integrity, other.integrity),
            confidentiality=highest(self.confidentiality, other.confidentiality),
            readers=_met(self.readers, other.readers),
        )


def _met(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None:
        return other
    return one if other is None else one & other
