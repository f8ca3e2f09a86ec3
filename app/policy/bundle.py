"""A policy as the gate uses it: parameters of the built-in rules, and a tenant's own rules.

A bundle is immutable and known by its digest. Conditions come in as objects that answer yes or no
to a feature record, so that this room knows no language of conditions.

Threat: Prompt injection via task input
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from app.domain.features import DecisionInput, Source
from app.domain.mode import Mode
from app.domain.run import JsonObject
from app.domain.verdict import Point, PolicyRef, Verdict

MAX_TENANT_RULES = 256


class Condition(Protocol):
    """What a tenant's rule asks of a feature record. It never sees content."""

    def holds(self, features: JsonObject) -> bool:
        """Whether the rule applies. ConditionError, or anything else raised, denies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleParameters:
    """What may be set of one built-in rule; None leaves what is built in.

    `verdict` is what the rule says where it objects; of r1, r2 and r11 it cannot be softened.
    `grounds` are the sources that prove a value. `limit` is a count: of r14 refused asks, of r6
    nothing. `undeclared` is what becomes of a link that nobody vouches for.
    """

    verdict: Verdict | None = None
    grounds: frozenset[Source] | None = None
    limit: int | None = None
    undeclared: Verdict | None = None
    allows_seen_urls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantRule:
    """One rule of a tenant: where, when, and what it says then. It can only object."""

    rule_id: str
    point: Point
    when: Condition
    verdict: Verdict
    reason: str
    owasp: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCase:
    """A question that this policy must answer so; kept with it and asked at upload."""

    name: str
    question: DecisionInput
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyBundle:
    """One version of a policy. `digest` is the SHA-256 of its canonical bytes, 64 hex digits."""

    policy_id: str
    version: int
    digest: str
    default_mode: Mode = Mode.STANDARD
    rules: Mapping[str, RuleParameters] = field(default_factory=dict)
    tenant_rules: tuple[TenantRule, ...] = ()
    golden: tuple[GoldenCase, ...] = ()
    hosts: frozenset[str] = frozenset()  # that may appear by name in feature records
    limits: Mapping[str, int] = field(default_factory=dict)
    also: "PolicyBundle | None" = None  # asked as well: the sternest answer of both stands

    @property
    def ref(self) -> PolicyRef:
        """How a decision names this policy."""
        return PolicyRef(policy_id=self.policy_id, version=self.version, digest=self.digest)

    def parameters(self, rule_id: str) -> RuleParameters:
        """What is set of a built-in rule."""
        return self.rules.get(rule_id, _AS_BUILT_IN)


_AS_BUILT_IN = RuleParameters()
