"""Feature records and policies for tests: small, complete, and without a domain's words."""

import json
import time
from dataclasses import replace

from app.bundles.bundle_loading import BundleLoader
from app.domain.features import (
    ArgumentFeature,
    AskedFor,
    ContextFeature,
    Counters,
    DecisionInput,
    Source,
    ToolFeature,
)
from app.domain.label import Confidentiality, Integrity
from app.domain.mode import Mode
from app.domain.step import Effect, Role
from app.domain.verdict import Point
from app.policy.decide import decide

WITHIN = Counters(steps=1, max_steps=10, max_tokens=1000, max_cost_micros=1000, max_wall_seconds=60)
LOADER = BundleLoader(decide, time.thread_time_ns)


def argument(
    path: str = "to",
    *,
    role: Role = Role.RECIPIENT,
    sources: frozenset[Source] = frozenset({Source.INSTRUCTION}),
    integrity: Integrity = Integrity.USER,
) -> ArgumentFeature:
    """One argument."""
    return ArgumentFeature(
        path=path,
        role=role,
        sources=sources,
        integrity=integrity,
        confidentiality=Confidentiality.PUBLIC,
    )


def call(
    *arguments: ArgumentFeature,
    tool: str = "send_note",
    effect: Effect = Effect.WRITE,
    calls_made: int = 0,
    mode: Mode = Mode.STANDARD,
    context: Integrity = Integrity.USER,
    effects: int = 0,
) -> DecisionInput:
    """A question at `tool.call`."""
    return DecisionInput(
        point=Point.TOOL_CALL,
        mode=mode,
        tool=ToolFeature(
            name=tool,
            effect=effect,
            is_known=True,
            asked_for=AskedFor.MENTIONED,
            is_granted=True,
            is_declared=False,
            is_confined=True,
            calls_made=calls_made,
            max_calls=10,
        ),
        arguments=arguments,
        context=ContextFeature(integrity=context, may_instruct=True),
        counters=replace(WITHIN, effects=effects),
    )


def rule(
    when: str,
    *,
    rule_id: str = "own.rule",
    verdict: str = "deny",
    reason: str = "own:rule",
    point: str = "tool.call",
) -> dict[str, object]:
    """A tenant's rule as written."""
    return {"id": rule_id, "point": point, "when": when, "verdict": verdict, "reason": reason}


def written(**members: object) -> bytes:
    """A policy as JSON."""
    return json.dumps(members).encode()
