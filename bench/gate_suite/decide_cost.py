"""What one `decide` costs under a policy of sixty tenant rules that all look at the features."""

import random  # noqa: TID251 - seeded questions, so that a figure can be had again
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.domain.features import (
    ArgumentFeature,
    AskedFor,
    DecisionInput,
    Source,
    ToolFeature,
)
from app.domain.label import Confidentiality, Integrity
from app.domain.mode import Mode
from app.domain.run import JsonObject
from app.domain.step import Effect, Role
from app.domain.verdict import Point, Verdict
from app.policy.bundle import Condition, PolicyBundle, TenantRule
from app.policy.decide import decide

RULES = 60
QUESTIONS = 5_000


@dataclass(frozen=True, slots=True)
class _CallsOver:
    """A condition in plain Python: an effect of a kind, called more than so often."""

    effect: str
    calls: int

    def holds(self, features: JsonObject) -> bool:
        tool = features["tool"]
        if not isinstance(tool, dict):
            return False
        made = tool["calls_made"]
        return tool["effect"] == self.effect and isinstance(made, int) and made > self.calls


def taken(conditions: Sequence[Condition] = ()) -> tuple[list[float], list[float]]:
    """Milliseconds by the clock, and of processor time, of each of many different questions."""
    chosen = conditions or [_CallsOver("execute", 100 + number) for number in range(RULES)]
    bundle = PolicyBundle(
        policy_id="bench",
        version=1,
        digest="0" * 64,
        tenant_rules=tuple(
            TenantRule(
                rule_id=f"bench.rule{number}",
                point=Point.TOOL_CALL,
                when=condition,
                verdict=Verdict.DENY,
                reason="bench:never",
            )
            for number, condition in enumerate(chosen)
        ),
    )
    walls, processor = [], []
    for question in _questions():
        began, began_to_run = time.perf_counter(), time.thread_time()
        decision = decide(question, bundle)
        walls.append((time.perf_counter() - began) * 1000)
        processor.append((time.thread_time() - began_to_run) * 1000)
        assert "gate_error" not in decision.code, decision
    return walls, processor


def p99(took: Sequence[float]) -> float:
    """The ninety-ninth percentile."""
    return statistics.quantiles(took, n=100)[-1]


def _questions() -> Iterator[DecisionInput]:
    chance = random.Random(6)
    for _ in range(QUESTIONS):
        arguments = tuple(
            ArgumentFeature(
                path=f"argument{number}",
                role=chance.choice(list(Role)),
                sources=frozenset(chance.sample(list(Source), 2)),
                integrity=chance.choice(list(Integrity)),
                confidentiality=chance.choice(list(Confidentiality)),
            )
            for number in range(chance.randint(1, 6))
        )
        yield DecisionInput(
            point=Point.TOOL_CALL,
            mode=chance.choice([Mode.STANDARD, Mode.STRICT]),
            tool=ToolFeature(
                name="tool",
                effect=chance.choice(list(Effect)),
                is_known=True,
                asked_for=chance.choice(list(AskedFor)),
                is_granted=True,
                is_declared=True,
                is_confined=False,
                max_calls=1000,
            ),
            arguments=arguments,
        )
