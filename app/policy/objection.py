"""What a built-in rule answers: what it has against a question, or nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from app.domain.features import DecisionInput
from app.domain.verdict import Obligation, Verdict
from app.policy.bundle import PolicyBundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """One rule's word against letting something pass as it is. Never `allow`."""

    rule_id: str
    verdict: Verdict
    reason: str
    obligations: tuple[Obligation, ...] = ()


BuiltInRule: TypeAlias = Callable[[DecisionInput, PolicyBundle], Objection | None]
