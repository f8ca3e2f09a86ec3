"""What a Monty says is read within bounds, whatever it says; what it shows is written alike."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sandbox.execution import ExecLimits
from app.sandbox.monty_text import shown_error, shown_value
from app.sandbox.monty_wire import (
    MOST_FRAME_BYTES,
    Acknowledged,
    Completed,
    Failed,
    Missing,
    Place,
    Printed,
    Unanswerable,
    configure,
    feed,
    take_events,
)

# As Monty 1.4 sent them.
PRINTED = bytes.fromhex("0a080a0608011202320a")
COMPLETED = bytes.fromhex("3208120608011202") + b"\x12\x00" + bytes.fromhex("a0012f")


def _frame(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


def _field(number: int, value: bytes) -> bytes:
    assert len(value) < 128
    key = number << 3 | 2
    return (
        bytes([key] if key < 128 else [key & 0x7F | 0x80, key >> 7]) + bytes([len(value)]) + value
    )


RAISED = _field(7, _field(1, _field(1, b"E") + _field(3, b"\x12\x02\x08\x01")))


def _value(*nodes: bytes, root: int) -> bytes:
    arena = b"".join(_field(2, node) for node in nodes)
    return bytes([1 << 3, root]) + _field(2, arena)


def _whole(value: int) -> bytes:
    return bytes([5 << 3, value << 1])


def test_frames_are_taken_whole_and_in_order() -> None:
    held = bytearray(_frame(PRINTED) + _frame(b"\x52\x00") + _frame(PRINTED)[:-1])
    assert take_events(held) == [Printed(parts=((False, b"2\n"),)), Acknowledged()]
    assert bytes(held) == _frame(PRINTED)[:-1]
    held += _frame(PRINTED)[-1:]
    assert take_events(held) == [Printed(parts=((False, b"2\n"),))]
    assert held == b""


def test_a_frame_that_claims_too_much_is_refused_before_it_is_there() -> None:
    with pytest.raises(ValueError, match="too long"):
        take_events(bytearray(struct.pack("<I", MOST_FRAME_BYTES + 1)))


def test_what_a_host_is_asked_for_is_not_answered_but_for_names_and_modules() -> None:
    opened = _field(3, _field(18, _field(1, b"/x") + _field(2, b"r")))
    imported = _field(3, _field(31, _field(1, b"socket")))
    name = _field(4, _field(1, b"nothing"))
    called = _field(2, _field(1, b"f"))
    events = take_events(bytearray(b"".join(map(_frame, (opened, imported, name, called)))))
    assert [type(event) for event in events] == [Unanswerable, Missing, Missing, Unanswerable]


def test_an_attribute_of_an_object_of_the_host_is_not_answered() -> None:
    (event,) = take_events(bytearray(_frame(_field(4, _field(1, b"a") + _field(2, b"id")))))
    assert event == Unanswerable()


@given(
    spoken=st.sampled_from((PRINTED, COMPLETED, RAISED)),
    changes=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), max_size=5),
)
def test_whatever_it_says_nothing_but_a_value_error_is_raised(
    spoken: bytes, changes: list[tuple[int, int]]
) -> None:
    message = bytearray(spoken)
    for place, byte in changes:
        message[place % len(message)] = byte
    with suppress(ValueError):
        for event in take_events(bytearray(_frame(bytes(message)))):
            match event:
                case Completed(value=value):
                    shown_value(value)
                case Failed():
                    shown_error(event)
                case _:
                    pass


def test_values_that_name_themselves_or_each_other_too_often_are_not_shown() -> None:
    itself = _field(11, _field(1, b"\x00"))
    assert shown_value(_value(itself, root=0)) is None
    doubled = (_field(11, _field(1, bytes([place, place]))) for place in range(20))
    nodes = [_whole(1), *doubled]
    body = b"".join(_field(2, node) for node in nodes)
    message = bytes([1 << 3, 20, 2 << 3 | 2, len(body) & 0x7F | 0x80, len(body) >> 7]) + body
    assert shown_value(message) is None


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (_value(b"\x12\x00", root=0), "None"),
        (_value(b"\x20\x01", root=0), "True"),
        (_value(_whole(21), root=0), "21"),
        (_value(_field(8, b"it's"), root=0), "it's"),
        (_value(_field(8, b"it's"), _field(11, _field(1, b"\x00")), root=1), None),
        (_value(_field(8, b"a"), _field(11, _field(1, b"\x00")), root=1), "['a']"),
        (_value(_field(15, b""), root=0), "set()"),
        (_value(b"\x39" + struct.pack("<d", 1.5), root=0), "1.5"),
        (_value(b"\x39" + struct.pack("<d", 1e300), root=0), None),
        (_value(_field(29, b"<class 'A'>"), root=0), None),
    ],
)
def test_a_value_is_shown_or_left_to_others(message: bytes, shown: str | None) -> None:
    assert shown_value(message) == shown


def test_repeated_frames_of_a_traceback_are_told_once() -> None:
    place = Place(
        line=1, column=5, end_line=1, end_column=6, name="f", source="    f(1)", shows_caret=True
    )
    told = shown_error(Failed(kind="RecursionError", message="deep", places=(place,) * 10))
    assert told.splitlines() == [
        "Traceback (most recent call last):",
        *['  File "<python>", line 1, in f', "    f(1)", "    ~"] * 3,
        "  [Previous line repeated 7 more times]",
        "RecursionError: deep",
    ]


def test_carets_beyond_the_line_are_not_drawn() -> None:
    wide = 2**32 - 1
    place = Place(
        line=1, column=1, end_line=1, end_column=wide, name=None, source="x", shows_caret=True
    )
    assert "~" not in shown_error(Failed(kind="E", message=None, places=(place,)))


def test_a_traceback_that_is_too_long_is_refused() -> None:
    raised = _field(1, b"E") + _field(3, b"") * 1_200
    size = len(raised)
    body = bytes([1 << 3 | 2, size & 0x7F | 0x80, size >> 7]) + raised
    size = len(body)
    message = bytes([7 << 3 | 2, size & 0x7F | 0x80, size >> 7]) + body
    with pytest.raises(ValueError, match="too long"):
        take_events(bytearray(_frame(message)))


def test_requests_are_the_bytes_that_monty_reads() -> None:
    assert feed(b"print(1+1)", b"/") == _frame(_field(3, _field(1, b"print(1+1)") + b"\x2a\x01/"))
    limits = ExecLimits(memory_bytes=1 << 20)
    told = configure(limits, heap_bytes=1 << 26, run_seconds=4.5, sleep_seconds=9.5)
    assert b"\x10\x80\x80\x40" in told  # the smaller of both heaps
    assert b"\x30\xa0\xd4\x92\x02\x40\xe0\xea\xc3\x04" in told
    assert b"1.4.0\x48\x06" in told
