"""R12, a lint when an agent is loaded: at most two of untrusted input, private access and effects.

It stops nothing by itself: an agent with all three runs under the other rules, and is best kept in
mode `strict` or behind approvals.

Source: policy section 2, Agents Rule of Two.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from app.domain.label import Confidentiality, Label, is_trusted
from app.domain.step import EFFECTFUL, Effect, ToolSpec

RULE_ID = "r12.rule_of_two"
_PRIVATE = frozenset({Confidentiality.USER, Confidentiality.SECRET})


class Leg(StrEnum):
    """One of the three things of which an agent should have at most two."""

    UNTRUSTED_INPUT = "untrusted_input"
    PRIVATE_ACCESS = "private_access"
    EFFECTS = "effects"


def legs_of(tools: Iterable[ToolSpec]) -> frozenset[Leg]:
    """Which of the three an agent with these tools has."""
    return frozenset(leg for spec in tools for leg in _legs(spec))


def breaks_rule_of_two(tools: Iterable[ToolSpec]) -> bool:
    """Whether an agent with these tools has all three."""
    return len(legs_of(tools)) == len(Leg)


def _legs(spec: ToolSpec) -> Iterator[Leg]:
    labels = list(_labels(spec))
    reads = spec.effect in (Effect.READ, Effect.NETWORK, Effect.EXECUTE)
    if reads and (not labels or not all(is_trusted(label.integrity) for label in labels)):
        yield Leg.UNTRUSTED_INPUT
    if any(label.confidentiality in _PRIVATE or label.readers is not None for label in labels):
        yield Leg.PRIVATE_ACCESS
    if spec.effect in EFFECTFUL and not spec.is_confined:
        yield Leg.EFFECTS


def _labels(spec: ToolSpec) -> Iterator[Label]:
    yield from spec.labels.values()
    yield from (said.label for said in spec.results)
