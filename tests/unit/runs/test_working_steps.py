"""A working copy that is not exactly the steps of its ledger is none."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from app.domain.run import Usage
from app.runs.working_copy import WorkingCopyError, progress_of

REPLY: dict[str, Any] = {
    "step": "reply",
    "seq": 3,
    "text": "so",
    "calls": [
        {"call_id": "a", "name": "one", "arguments": {}},
        {"call_id": "b", "name": "two", "arguments": {"x": 1}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 1, "output_tokens": 1, "cost_micros": 1},
}
ENDED: dict[str, Any] = {"name": "one", "content": "1", "is_error": False, "engine": None}
FIRST = [REPLY, {"step": "begun", "seq": 4, "call_id": "a"}]
SECOND = [
    {"step": "result", "seq": 5, "call_id": "a", **ENDED},
    {"step": "begun", "seq": 6, "call_id": "b"},
]
LAST = [{"step": "result", "seq": 7, "call_id": "b", **ENDED}]
KINDS = (
    (0, "run.submitted"),
    (1, "run.started"),
    (2, "llm.requested"),
    (3, "llm.responded"),
    (4, "tool.decided"),
    (5, "tool.finished"),
    (6, "tool.decided"),
    (7, "tool.finished"),
)


def _progress(parts: Sequence[object], records: Sequence[tuple[int, str]] = KINDS) -> Any:
    told = [json.dumps(part).encode() for part in parts]
    return progress_of(told, records, spent=Usage(steps=1), elapsed_seconds=2.0)


def test_a_turn_whose_calls_are_answered_is_closed() -> None:
    found = _progress([FIRST, SECOND, LAST])
    assert found.turn is None
    assert [len(found.turns), found.calls_made] == [2, {"one": 1, "two": 1}]


def test_a_call_that_was_begun_and_not_answered_is_pending() -> None:
    found = _progress([FIRST, SECOND], KINDS[:7])
    assert found.turn is not None
    assert (found.turn.pending, len(found.turn.results)) == (6, 1)
    assert found.calls_made == {"one": 1, "two": 1}


def test_calls_that_were_put_off_are_counted_until_one_is_answered() -> None:
    put_off = [{"step": "put_off", "seq": 3}]
    records = [*KINDS[:4], (4, "llm.requested"), (5, "llm.responded")]
    assert _progress([put_off], KINDS[:4]).put_off == 1
    assert _progress([put_off, [{"step": "put_off", "seq": 5}]], records).put_off == 2
    answered = _progress([put_off, [{**REPLY, "seq": 5}]], records)
    assert (answered.put_off, answered.turn is None) == (0, False)


def test_a_call_that_is_put_off_within_a_turn_follows_nothing() -> None:
    records = [*KINDS[:4], (4, "llm.responded")]
    with pytest.raises(WorkingCopyError):
        _progress([[REPLY], [{"step": "put_off", "seq": 4}]], records)


def test_a_call_that_was_begun_twice_counts_once() -> None:
    again = [{"step": "begun", "seq": 8, "call_id": "b"}]
    found = _progress([FIRST, SECOND, again], (*KINDS[:7], (8, "tool.decided")))
    assert (found.turn.pending, found.calls_made) == (8, {"one": 1, "two": 1})


@pytest.mark.parametrize(
    ("parts", "records"),
    [
        ([FIRST, SECOND], KINDS),  # a step is missing
        ([FIRST, SECOND, LAST], KINDS[:7]),  # one too much
        ([FIRST, LAST, SECOND], KINDS),  # out of order
        ([[{**REPLY, "calls": []}]], KINDS[:4]),  # a reply that ended the run
        ([[{**REPLY, "more": 1}]], KINDS[:4]),
        ([[{**REPLY, "stop_reason": "whim"}]], KINDS[:4]),
        ([[REPLY, {"step": "begun", "seq": 4, "call_id": "b"}]], KINDS[:5]),  # another call
        ([[REPLY, {**REPLY, "seq": 4}]], ((3, "llm.responded"), (4, "llm.responded"))),
        ([[LAST[0]]], ((7, "tool.finished"),)),  # the result of no call
        ([[{"step": "begun", "seq": 3, "call_id": "a"}]], ((3, "llm.responded"),)),
        ([{"not": "a list"}], ()),
    ],
)
def test_anything_else_is_refused(parts: list[object], records: Any) -> None:
    with pytest.raises(WorkingCopyError):
        _progress(parts, records)
