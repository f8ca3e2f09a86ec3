"""A caller's trace is gone on with when it is named as W3C Trace Context says, and else begun."""

import logging

import pytest

from app.telemetry.trace_context import MARK, MarkFilter, TraceMark, marked

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
NEW_TRACE, NEW_SPAN = "a" * 32, "b" * 16


def mark_of(*values: str) -> TraceMark:
    headers = [(b"traceparent", value.encode()) for value in values]
    return marked(headers, "request-1", new_trace=NEW_TRACE, new_span=NEW_SPAN)


@pytest.mark.parametrize(
    ("told", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-01", "01"),
        (f"00-{TRACE}-{SPAN}-00", "00"),
        (f"00-{TRACE}-{SPAN}-ff", "01"),  # of the flags only the one that is known is handed on
        (f"cc-{TRACE}-{SPAN}-01", "01"),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", "01"),
    ],
)
def test_a_trace_that_is_named_is_gone_on_with(told: str, flags: str) -> None:
    mark = mark_of(told)
    assert (mark.trace_id, mark.parent, mark.span_id) == (TRACE, SPAN, NEW_SPAN)
    assert mark.header() == f"00-{TRACE}-{NEW_SPAN}-{flags}".encode()


@pytest.mark.parametrize(
    "told",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01-",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0x",
        f" 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01-" + "x" * 1000,
    ],
)
def test_what_is_malformed_counts_as_not_there(told: str) -> None:
    mark = mark_of(told)
    assert (mark.trace_id, mark.parent) == (NEW_TRACE, None)
    assert mark.header() == f"00-{NEW_TRACE}-{NEW_SPAN}-00".encode()


def test_two_traces_are_none() -> None:
    assert mark_of(f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01").trace_id == NEW_TRACE
    assert mark_of().trace_id == NEW_TRACE


def test_a_record_has_the_ids_of_the_request_it_was_made_in() -> None:
    record = logging.makeLogRecord({"msg": "x"})
    MarkFilter().filter(record)
    assert not hasattr(record, "trace_id")
    before = MARK.set(mark_of(f"00-{TRACE}-{SPAN}-01"))
    try:
        MarkFilter().filter(record)
    finally:
        MARK.reset(before)
    told = vars(record)
    assert (told["request_id"], told["trace_id"], told["span_id"]) == ("request-1", TRACE, NEW_SPAN)
