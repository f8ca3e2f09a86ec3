"""Trust passes along rotations, and they cannot fork."""

import pytest

from app.offline.offline_keys import KeyHistory, Rotation
from app.offline.strict_json import BrokenError

A, B, C, D = (bytes([n]) * 32 for n in range(1, 5))
LOG = "0" * 32


def turned(old: bytes, new: bytes, size: int = 5, role: str = "log") -> Rotation:
    return Rotation(role=role, old=old, new=new, sizes={LOG: size})


def test_trust_goes_both_ways_along_the_chain_and_no_further() -> None:
    history = KeyHistory()
    history.add_rotation(turned(A, B))
    history.add_rotation(turned(B, C))
    assert set(history.trusted("log", [B])) == {A, B, C}
    assert history.trusted("log", [D]) == [D]
    assert history.trusted("log", []) == []
    assert history.trusted("erasure", [A]) == [A]


def test_a_key_in_the_middle_counts_from_one_size_to_another() -> None:
    history = KeyHistory()
    history.add_rotation(turned(A, B, 5))
    history.add_rotation(turned(B, C, 9))
    assert (history.starts_at("log", B, LOG), history.ends_at("log", B, LOG)) == (5, 9)
    assert (history.starts_at("log", A, LOG), history.ends_at("log", C, LOG)) == (None, None)
    assert history.ends_at("log", A, "1" * 32) == 0  # a log that is not listed


@pytest.mark.parametrize(("old", "new"), [(A, C), (C, B), (A, B)])
def test_a_key_has_one_successor_and_one_predecessor(old: bytes, new: bytes) -> None:
    history = KeyHistory()
    history.add_rotation(turned(A, B))
    with pytest.raises(BrokenError):
        history.add_rotation(turned(old, new))
    history.add_rotation(turned(old, new, role="erasure"))


def test_the_number_of_rotations_has_an_end() -> None:
    history = KeyHistory()
    for n in range(1000):
        history.add_rotation(turned(n.to_bytes(32, "big"), (n + 1).to_bytes(32, "big")))
    with pytest.raises(BrokenError, match="more"):
        history.add_rotation(turned(A, B))
