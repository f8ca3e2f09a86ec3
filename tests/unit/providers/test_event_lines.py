"""The data of server-sent events comes out the same, however the bytes were cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.wire.event_lines import EventLines

STREAM = (
    "event: one\ndata: {\u2028\u0085}\n\n: a comment\n\nid: 7\r\ndata:two\r\ndata:  lines\r\n\r\n"
    "event: only a name\n\ndata: ü\n\ndata: not ended\n"
)
DATA = ["{\u2028\u0085}", "two\n lines", "ü"]


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM.encode())), max_size=12))
def test_the_data_does_not_depend_on_how_the_bytes_were_cut(cuts: list[int]) -> None:
    raw, lines, found = STREAM.encode(), EventLines(), list[str]()
    edges = [0, *sorted(cuts), len(raw)]
    for start, end in itertools.pairwise(edges):
        found += lines.take(raw[start:end])
    assert found == DATA


def test_what_is_no_utf_8_is_an_error() -> None:
    with pytest.raises(UnicodeDecodeError):
        EventLines().take(b"data: \xff\n\n")
