"""Another engine of the same language, written by others, answers every condition alike."""

import itertools

import pytest
from cel_expr_python import cel as other

from app.bundles.cel_condition import Glass, condition
from app.bundles.feature_shape import VARIABLES
from app.domain.errors import ConditionError
from app.domain.features import DecisionInput, OutputFeature, Source
from app.domain.label import Integrity
from app.domain.mode import Mode
from app.domain.step import Effect, Role
from app.domain.verdict import Point
from tests.support.policy_words import argument, call

SEEN = frozenset({Source.SEEN, Source.WRITTEN})
RECORDS = [
    *(
        call(*arguments, tool=tool, effect=effect, calls_made=calls, effects=calls)
        for arguments, (tool, effect), calls in itertools.product(
            [
                (),
                (argument("to"),),
                (
                    argument("to", sources=SEEN, integrity=Integrity.UNTRUSTED),
                    argument("body", role=Role.CONTENT),
                ),
            ],
            [("send_note", Effect.WRITE), ("read_note", Effect.READ)],
            [0, 3],
        )
    ),
    DecisionInput(point=Point.RUN_OUTPUT, mode=Mode.STRICT, output=OutputFeature(has_secret=True)),
    DecisionInput(point=Point.RUN_OUTPUT, mode=Mode.OBSERVE, hosts=("a.example.com",)),
]
CONDITIONS = [
    'tool.name == "send_note"',
    'tool.effect in ["write", "pay"]',
    'arguments.exists(a, a.integrity == "untrusted" && a.role == "recipient")',
    'arguments.exists_one(a, "seen" in a.sources)',
    'arguments.all(a, !("written" in a.sources))',
    'arguments.filter(a, a.role == "content").size() == 1',
    'arguments[0].path == "to"',
    "tool.calls_made * 2 + 1 > 6 || counters.steps % 2 == 0",
    "counters.steps / counters.tokens == 1",
    "counters.effects - 1 == -1",
    "output.has_secret && size(hosts) == 0",
    'hosts.exists(h, h.endsWith(".example.com"))',
    "tool != null && tool.max_calls > 1",
    'mode == "strict" ? output != null : tool != null',
    "has(tool.name)",
    'output.has_secret || mode == "standard"',
    'mode == "standard" || output.has_secret',
    "output.is_error && false",
    "counters.steps",
    'tool.name.contains("note") && tool.name.startsWith("re")',
]


@pytest.mark.parametrize("source", CONDITIONS)
def test_two_engines_answer_alike(source: str) -> None:
    glass, clock = Glass(), itertools.count()
    ours = condition(source, glass=glass, thread_time_ns=lambda: next(clock))
    kinds = dict.fromkeys(VARIABLES, other.Type.DYN)
    theirs = other.NewEnv(variables=kinds).compile(source)
    for record in RECORDS:
        features = record.to_json()
        answer = theirs.eval(data=features)
        second = answer.value() if answer.type() == other.Type.BOOL else None
        try:
            first: bool | None = ours.holds(features)
        except ConditionError:
            first = None
        assert first is second, (source, features)
