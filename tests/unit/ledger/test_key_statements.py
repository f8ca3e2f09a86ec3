"""Where a key that gave way still counts, and which keys a reader of one of them trusts."""

import pytest

from app.keys.signing_keys import SigningKey
from app.ledger.key_statements import KeyChange, ends_at, read_rotation, rotation_note, tied

LOG = b"l" * 16
A, B, C, D = (letter * 32 for letter in (b"a", b"b", b"c", b"d"))


def change(old: bytes, new: bytes, role: str = "erasure", at: int = 7) -> KeyChange:
    return KeyChange(role=role, old=old, new=new, sizes={LOG.hex(): at})


def test_a_key_ends_where_it_gave_way_and_at_nothing_in_a_log_that_is_not_listed() -> None:
    changes = [change(A, B), change(B, C, at=9)]
    assert [ends_at(changes, "erasure", key, LOG) for key in (A, B, C)] == [7, 9, None]
    assert ends_at(changes, "erasure", A, b"x" * 16) == 0
    assert ends_at(changes, "enrolment", A, LOG) is None


def test_of_two_ends_the_earlier_counts() -> None:
    assert ends_at([change(A, B), change(A, C, at=3)], "erasure", A, LOG) == 3


@pytest.mark.parametrize("pinned", [A, B, C])
def test_who_trusts_one_key_of_a_line_trusts_all_in_whatever_order_they_are_told(
    pinned: bytes,
) -> None:
    for changes in ([change(A, B), change(B, C)], [change(B, C), change(A, B)]):
        assert set(tied(changes, "erasure", [pinned])) == {A, B, C}
        assert tied(changes, "enrolment", [pinned]) == [pinned]
        assert tied(changes, "erasure", [D]) == [D]


def test_a_change_that_one_of_the_two_did_not_sign_is_none() -> None:
    old, new, other = (SigningKey(seed) for seed in (A, B, C))
    told = KeyChange(role="enrolment", old=old.public_key, new=new.public_key, sizes={"x": 1})
    assert read_rotation(rotation_note(told, old.sign, new.sign)) == told
    for first, second in ((old, other), (other, new)):
        with pytest.raises(ValueError, match="not signed by both"):
            read_rotation(rotation_note(told, first.sign, second.sign))
