"""A plain copy to look in, and the way back to the text as it came."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.privacy.shadow import shadow_of


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("a&#64;b", "a@b"),
        ("a%40b", "a@b"),
        ("x\\u0041y", "xAy"),
        ("one\\ntwo", "one\ntwo"),
        ("\uff11\uff12\uff13", "123"),
        ("\u0661\u0662", "12"),
        ("j\u200bo\u200bhn", "john"),
        ("\ufb01x", "fix"),
        ("José", "José"),
    ],
)
def test_what_is_written_otherwise_is_read_plainly(written: str, plain: str) -> None:
    shadow = shadow_of(f"<{written}>".encode())
    assert shadow.text.decode() == f"<{plain}>"
    start, end = shadow.origin(1, 1 + len(plain.encode()))
    assert f"<{written}>".encode()[start:end].decode() == written


def test_a_part_of_a_rewritten_piece_takes_the_whole_piece() -> None:
    shadow = shadow_of("\ufb01x".encode())
    assert shadow.origin(1, 2) == (0, 3)


def test_plain_ascii_is_its_own_copy() -> None:
    raw = b"nothing to do here"
    assert shadow_of(raw).text is raw


@given(st.text(max_size=60))
def test_the_way_back_stays_in_the_text_and_in_order(text: str) -> None:
    raw = text.encode("utf-8", "replace")
    shadow = shadow_of(raw)
    ends = [shadow.origin(at, at + 1) for at in range(len(shadow.text))]
    assert all(0 <= start <= end <= len(raw) for start, end in ends)
    assert all(one[0] <= two[0] for one, two in pairwise(ends))
