"""A policy under which the calls of one tool wait for somebody's decision."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from app import roster
from app.domain.run import JsonObject
from app.domain.verdict import Point, Verdict
from app.policy.bundle import TenantRule
from app.policy.gate import RuleBook

RULE = "test.ask"
REASON = "test:somebody_decides"


@dataclass(frozen=True, slots=True)
class IsTool:
    """Holds for a call of this tool."""

    name: str

    def holds(self, features: JsonObject) -> bool:
        tool = features["tool"]
        return not isinstance(tool, dict) or tool["name"] == self.name


def asking(tool: str = "write_file", *, limits: Mapping[str, int] | None = None) -> RuleBook:
    """The rules in force, and one that asks for the calls of this tool."""
    rule = TenantRule(
        rule_id=RULE,
        point=Point.TOOL_CALL,
        when=IsTool(tool),
        verdict=Verdict.REQUIRE_APPROVAL,
        reason=REASON,
    )
    book = roster.rule_book()
    bundle = replace(book.bundle, tenant_rules=(rule,), limits=dict(limits or {}))
    return replace(book, bundle=bundle)
