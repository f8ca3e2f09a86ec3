"""A mark that leaves is found, plain and in the disguises that people use."""

import base64
import codecs
from collections.abc import Callable
from functools import partial

import pytest

from app.policy.canary import Canaries, canary_for

MARK = canary_for(b"k" * 32, "system")
LOOKED_FOR = Canaries.of([MARK])


def test_a_mark_depends_on_its_secret_and_its_place() -> None:
    assert len({MARK, canary_for(b"j" * 32, "system"), canary_for(b"k" * 32, "data 1")}) == 3
    assert canary_for(b"k" * 32, "system") == MARK
    assert len(MARK) == 20


def _behind(encode: Callable[[bytes], bytes], shift: int, mark: str) -> str:
    return encode(b"x" * shift + mark.encode() + b"yz").decode()


DISGUISES: dict[str, Callable[[str], str]] = {
    "plain": lambda mark: mark,
    "upper case": str.upper,
    "spaced": " ".join,
    "dashed": "-".join,
    "lines": "\n".join,
    "starred": "*".join,
    "invisible": "\u200b".join,
    "backwards": lambda mark: mark[::-1],
    "turned by 13": lambda mark: codecs.encode(mark, "rot13"),
    "hex": lambda mark: mark.encode().hex(),
    "hex, upper": lambda mark: mark.upper().encode().hex().upper(),
    "hex with colons": lambda mark: mark.encode().hex(":"),
    "percent": lambda mark: "".join(f"%{byte:02X}" for byte in mark.encode()),
    "escaped": lambda mark: "".join(f"\\x{byte:02x}" for byte in mark.encode()).replace("\\x", " "),
    **{
        f"{name} at {shift}": partial(_behind, encode, shift)
        for shift in range(6)
        for name, encode in (
            ("base64", base64.b64encode),
            ("base64 for addresses", base64.urlsafe_b64encode),
            ("base32", base64.b32encode),
        )
    },
    "base64 in lines": lambda mark: "\n".join(
        base64.b64encode(b"a report:" + mark.encode()).decode()[at : at + 6]
        for at in range(0, 48, 6)
    ),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguised_mark_is_found(name: str) -> None:
    text = "The answer is " + DISGUISES[name](MARK) + " as you asked."
    assert LOOKED_FOR.are_in({"content": [text]})


def test_a_mark_in_a_name_and_one_cut_over_two_values_are_found() -> None:
    assert LOOKED_FOR.are_in({MARK: 1})
    assert LOOKED_FOR.are_in(["start", MARK[:9], MARK[9:]])


def test_other_texts_hold_no_mark() -> None:
    other = canary_for(b"j" * 32, "system")
    assert not LOOKED_FOR.are_in(["nothing of it " * 500, other, MARK[:-1], 12345, None, True])
