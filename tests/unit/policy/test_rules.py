"""What the built-in rules refuse: shapes (R1), capabilities (R2) and budgets (R11)."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.run import Budget, DataPart, JsonObject, Usage
from app.domain.step import EFFECTFUL, Effect, StopReason, ToolResult, ToolSpec
from app.domain.verdict import Point
from app.policy.gate_inputs import (
    ApprovalInput,
    CallInput,
    DeliveryInput,
    MessageInput,
    OutputInput,
    RequestInput,
    ResponseInput,
    ResultInput,
    SubmitInput,
)
from app.policy.rules import MAX_CALLS_PER_TURN, MAX_DATA_PARTS, MAX_TEXT_BYTES
from tests.support.planted_rules import (
    BUDGET,
    SPECS,
    SUBJECTS,
    allowed,
    call_of,
    facts_with,
    refused,
    reply_of,
    task_of,
)

ALL = frozenset(spec.name for spec in SPECS)
WRITERS = frozenset(spec.name for spec in SPECS if spec.effect in EFFECTFUL)


def of_task(platform: frozenset[str] = ALL, **changed: Any) -> SubmitInput:
    return SubmitInput(submission=task_of(**changed), platform_tools=platform)


DECLARED: list[tuple[frozenset[str] | None, bool, frozenset[str]]] = [
    (None, True, ALL),
    (None, False, ALL - WRITERS),
    (frozenset(), True, frozenset()),
    (frozenset(), False, frozenset()),
    (frozenset({"write_file"}), True, frozenset({"write_file"})),
    (frozenset({"write_file"}), False, frozenset({"write_file"})),
    (frozenset({"calculator", "read_file"}), True, frozenset({"calculator", "read_file"})),
    (ALL | {"shell"}, False, ALL),
]
EXAMPLES: dict[str, JsonObject] = {
    "calculator": {"expression": "1+1"},
    "current_time": {},
    "json_query": {"document": "1", "query": ""},
    "read_file": {"path": "a"},
    "write_file": {"path": "a", "content": "b"},
    "list_files": {},
    "search_files": {"query": "a"},
}


@pytest.mark.parametrize(("declared", "may_instruct", "usable"), DECLARED)
def test_what_may_be_called_is_what_was_declared_or_what_an_instructing_key_is_trusted_with(
    declared: frozenset[str] | None, may_instruct: bool, usable: frozenset[str]
) -> None:
    assert set(EXAMPLES) == ALL
    facts = facts_with(declared=declared, may_instruct=may_instruct)
    for name in ALL:
        call = replace(call_of(name), arguments=EXAMPLES[name])
        subject = CallInput(call=call, facts=facts)
        assert allowed(Point.TOOL_CALL, subject) == (name in usable), name
        if name not in usable:
            expected = (
                "capability:undeclared"
                if declared is not None
                else "capability:effect_without_authority"
            )
            assert refused(Point.TOOL_CALL, subject) == expected


@pytest.mark.parametrize("effect", list(Effect))
def test_every_kind_of_effect_needs_authority_and_no_other_kind_does(effect: Effect) -> None:
    spec = ToolSpec(
        name="act",
        description="",
        effect=effect,
        parameters={"type": "object", "properties": {}, "additionalProperties": False},
    )
    facts = replace(facts_with(may_instruct=False), offered=(spec,))
    call = replace(call_of("act"), arguments={})
    answer = allowed(Point.TOOL_CALL, CallInput(call=call, facts=facts))
    assert answer == (effect in {Effect.NONE, Effect.READ})


sets_of_tools = st.frozensets(st.sampled_from([*sorted(ALL), "shell"]))


@given(sets_of_tools, st.none() | sets_of_tools, sets_of_tools)
def test_nothing_beyond_the_platforms_tools_enters(
    tools: frozenset[str], declared: frozenset[str] | None, platform: frozenset[str]
) -> None:
    subject = of_task(platform, tools=tuple(sorted(tools)), capabilities=declared)
    within = (tools | (declared or frozenset())) <= platform
    assert allowed(Point.RUN_SUBMIT, subject) == within
    if not within:
        assert refused(Point.RUN_SUBMIT, subject) == "capability:not_granted"


@given(sets_of_tools, st.none() | sets_of_tools, st.booleans(), st.sampled_from(sorted(ALL)))
def test_a_call_that_is_let_through_lies_in_every_set_that_bounds_it(
    offered: frozenset[str], declared: frozenset[str] | None, may_instruct: bool, name: str
) -> None:
    facts = facts_with(offered=tuple(offered), declared=declared, may_instruct=may_instruct)
    call = replace(call_of(name), arguments=EXAMPLES[name])
    trusted = ALL if may_instruct else ALL - WRITERS
    bound = offered & (trusted if declared is None else declared)
    assert allowed(Point.TOOL_CALL, CallInput(call=call, facts=facts)) == (name in bound)


BAD_TASKS: list[tuple[dict[str, Any], str]] = [
    ({"instructions": None, "data": ()}, "schema:empty_task"),
    ({"instructions": " \n\t", "data": ()}, "schema:empty_task"),
    ({"instructions": "\u200b\u2060\U000e0061", "data": ()}, "schema:empty_task"),
    ({"instructions": "\u3164\ufeff", "data": (DataPart(content="\u00a0"),)}, "schema:empty_task"),
    ({"instructions": "a\x00b"}, "schema:text"),
    ({"data": (DataPart(content="\x00"),)}, "schema:text"),
    ({"instructions": "a" * (MAX_TEXT_BYTES + 1)}, "schema:text"),
    ({"instructions": "€" * (MAX_TEXT_BYTES // 2)}, "schema:text"),
    ({"data": (DataPart(content="a"),) * (MAX_DATA_PARTS + 1)}, "schema:too_many_parts"),
    ({"output_schema": {"$ref": "#"}}, "schema:output_schema"),
    ({"output_schema": {"type": "nonsense"}}, "schema:output_schema"),
    ({"budget": replace(BUDGET, max_steps=0)}, "budget:empty"),
    ({"budget": replace(BUDGET, max_tokens=0)}, "budget:empty"),
    ({"budget": replace(BUDGET, max_wall_seconds=0)}, "budget:empty"),
    ({"budget": replace(BUDGET, max_wall_seconds=-1)}, "budget:empty"),
]


@pytest.mark.parametrize(("changed", "code"), BAD_TASKS)
def test_a_task_out_of_shape_does_not_enter(changed: dict[str, Any], code: str) -> None:
    assert refused(Point.RUN_SUBMIT, of_task(**changed)) == code


def test_a_task_at_its_bounds_enters() -> None:
    parts = (DataPart(content="a" * MAX_TEXT_BYTES),) * MAX_DATA_PARTS
    assert allowed(Point.RUN_SUBMIT, of_task(instructions="a" * MAX_TEXT_BYTES, data=parts))


def of_request(
    spent: Usage, *, tokens: int = 0, micros: int = 0, seconds: float = 0.0, budget: Budget = BUDGET
) -> RequestInput:
    plain = SUBJECTS[Point.LLM_REQUEST]
    assert isinstance(plain, RequestInput)
    facts = facts_with(spent=spent, elapsed_seconds=seconds, budget=budget)
    return replace(plain, facts=facts, reserve_tokens=tokens, reserve_micros=micros)


OVERRUNS: list[tuple[RequestInput, str]] = [
    (of_request(Usage(steps=5)), "budget:steps"),
    (of_request(Usage(), tokens=50_001), "budget:tokens"),
    (of_request(Usage(input_tokens=40_000, output_tokens=9_000), tokens=1_001), "budget:tokens"),
    (of_request(Usage(), micros=100_001), "budget:cost"),
    (of_request(Usage(cost_micros=99_999), micros=2), "budget:cost"),
    (of_request(Usage(cost_micros=100_001)), "budget:cost"),
    (of_request(Usage(), seconds=60.0), "budget:wall"),
]


@pytest.mark.parametrize(("subject", "code"), OVERRUNS)
def test_a_call_that_could_overrun_is_not_cleared(subject: RequestInput, code: str) -> None:
    assert refused(Point.LLM_REQUEST, subject) == code


@given(
    st.integers(0, 9),
    *[st.integers(0, 120) for _ in range(5)],
    st.floats(0, 120, allow_nan=False),
)
def test_a_cleared_call_fits_the_budget_in_every_dimension(
    steps: int, used_in: int, used_out: int, cost: int, tokens: int, micros: int, seconds: float
) -> None:
    budget = Budget(max_steps=5, max_tokens=100, max_cost_micros=100, max_wall_seconds=60)
    spent = Usage(input_tokens=used_in, output_tokens=used_out, cost_micros=cost, steps=steps)
    subject = of_request(spent, tokens=tokens, micros=micros, seconds=seconds, budget=budget)
    fits = (
        steps < 5 and used_in + used_out + tokens <= 100 and cost + micros <= 100 and seconds < 60
    )
    assert allowed(Point.LLM_REQUEST, subject) == fits


def test_a_request_that_shows_a_tool_beyond_the_runs_is_not_cleared() -> None:
    plain = SUBJECTS[Point.LLM_REQUEST]
    assert isinstance(plain, RequestInput)
    subject = replace(plain, facts=facts_with(offered=("calculator",)))
    assert refused(Point.LLM_REQUEST, subject) == "schema:tool_not_offered"


def test_a_run_out_of_time_calls_no_tool() -> None:
    subject = CallInput(call=call_of(), facts=facts_with(elapsed_seconds=60.0))
    assert refused(Point.TOOL_CALL, subject) == "budget:wall"


def _calls(count: int, *, same: bool = False) -> tuple[Any, ...]:
    return tuple(replace(call_of(), call_id="c" if same else f"c{n}") for n in range(count))


BAD_REPLIES: list[tuple[dict[str, Any], str]] = [
    ({"stop_reason": StopReason.MAX_TOKENS}, "schema:reply_cut_off"),
    ({"stop_reason": StopReason.REFUSAL}, "schema:model_refused"),
    ({"calls": _calls(MAX_CALLS_PER_TURN + 1)}, "schema:too_many_calls"),
    ({"calls": _calls(2, same=True)}, "schema:call_id_twice"),
    ({"calls": (replace(call_of(), name=""),)}, "schema:call_name"),
    ({"calls": (replace(call_of(), name="x" * 257),)}, "schema:call_name"),
    ({"calls": (replace(call_of(), name="write\ud800file"),)}, "schema:call_name"),
    ({"calls": (replace(call_of(), call_id=""),)}, "schema:call_name"),
    ({"calls": (replace(call_of(), call_id="\udfff"),)}, "schema:call_name"),
    ({"text": "half \ud83d"}, "schema:text"),
    ({"text": "x" * (MAX_TEXT_BYTES + 1)}, "schema:reply_too_long"),
    ({"text": "€" * (MAX_TEXT_BYTES // 2)}, "schema:reply_too_long"),
]


@pytest.mark.parametrize(("changed", "code"), BAD_REPLIES)
def test_a_reply_out_of_shape_is_not_acted_on(changed: dict[str, Any], code: str) -> None:
    subject = ResponseInput(reply=replace(reply_of(), **changed), facts=facts_with())
    assert refused(Point.LLM_RESPONSE, subject) == code


def test_as_many_calls_as_a_turn_may_hold_are_admitted() -> None:
    subject = ResponseInput(reply=reply_of(calls=_calls(MAX_CALLS_PER_TURN)), facts=facts_with())
    assert allowed(Point.LLM_RESPONSE, subject)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("shell", "ok", "schema:unknown_tool"),
        ("write_file", "x" * (64 * 1024 + 1025), "schema:result_too_long"),
        ("write_file", "€" * (32 * 1024), "schema:result_too_long"),
    ],
)
def test_a_result_out_of_shape_is_withheld(name: str, content: str, code: str) -> None:
    result = ToolResult(call_id="c", name=name, content=content)
    assert refused(Point.TOOL_RESULT, ResultInput(result=result, facts=facts_with())) == code


@pytest.mark.parametrize(
    ("sender", "receiver", "text", "code"),
    [
        ("", "b", "hi", "schema:party"),
        ("a", "", "hi", "schema:party"),
        ("a", "b", "h\x00i", "schema:text"),
        ("a", "b", "x" * (MAX_TEXT_BYTES + 1), "schema:text"),
    ],
)
def test_a_hand_off_out_of_shape_is_refused(
    sender: str, receiver: str, text: str, code: str
) -> None:
    subject = MessageInput(sender=sender, receiver=receiver, text=text)
    assert refused(Point.AGENT_MESSAGE, subject) == code


WANTED: JsonObject = {
    "type": "object",
    "properties": {"answer": {"type": "integer"}},
    "required": ["answer"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("42", "schema:output"),
        ("{}", "schema:output"),
        ('{"answer": "42"}', "schema:output"),
        ('{"answer": true}', "schema:output"),
        ('{"answer": 42, "more": 1}', "schema:output"),
        ("the answer is 42", "schema:output_not_json"),
        ("", "schema:output_not_json"),
        ('{"answer": 42', "schema:output_not_json"),
        ('{"answer": ' + "9" * 5000 + "}", "schema:output_not_json"),
        ("[" * 100_000, "schema:output_not_json"),
        (json.dumps({"answer": 1}) + " " * MAX_TEXT_BYTES, "schema:output_too_long"),
    ],
)
def test_an_answer_outside_the_callers_schema_does_not_leave(text: str, code: str) -> None:
    subject = OutputInput(text=text, output_schema=WANTED, facts=facts_with())
    assert refused(Point.RUN_OUTPUT, subject) == code


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": "what another reader takes", "answer": 42}',
        '{"more": {"a": 1, "\\u0061": 2}}',
        "NaN",
        '{"more": [-Infinity]}',
        '{"more": 1e999}',
        '{"more": "\\ud800"}',
        '{"\\udc00": 1}',
    ],
)
def test_an_answer_that_readers_take_differently_fits_no_schema(text: str) -> None:
    loose: JsonObject = {"properties": {"answer": {"const": 42}}}
    subject = OutputInput(text=text, output_schema=loose, facts=facts_with())
    assert refused(Point.RUN_OUTPUT, subject) == "schema:output_not_json"


def test_an_answer_within_the_callers_schema_leaves() -> None:
    subject = OutputInput(text='{"answer": 42}', output_schema=WANTED, facts=facts_with())
    assert allowed(Point.RUN_OUTPUT, subject)


def test_an_answer_longer_than_a_text_may_be_does_not_leave() -> None:
    subject = OutputInput(text="x" * (MAX_TEXT_BYTES + 1), output_schema=None, facts=facts_with())
    assert refused(Point.RUN_OUTPUT, subject) == "schema:output_too_long"


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("http://hooks.example/in", b"{}"),
        ("HTTPS:hooks.example", b"{}"),
        ("https://", b"{}"),
        ("https:///", b"{}"),
        ("file:///etc/passwd", b"{}"),
        ("", b"{}"),
        ("https://hooks.example/in", b""),
    ],
)
def test_a_delivery_to_nowhere_safe_is_not_cleared(url: str, body: bytes) -> None:
    assert refused(Point.WEBHOOK_SEND, DeliveryInput(url=url, body=body)) == "schema:delivery"


@pytest.mark.parametrize("decided_by", ["", "key:one"])
@pytest.mark.parametrize("granted", [True, False])
def test_nobody_decides_on_what_they_asked_for(decided_by: str, granted: bool) -> None:
    subject = ApprovalInput(
        approval_id="apr_1", granted=granted, requested_by="key:one", decided_by=decided_by
    )
    assert refused(Point.APPROVAL_RESOLVE, subject) == "capability:self_approval"
