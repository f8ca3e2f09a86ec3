"""Checks of values that carry a check digit or a shape of their own; each takes the bare text.

A check speaks for a value where the shape alone says little. It never speaks against a value that
a label or a shape of its own gives away.

Threat: PHI leakage in audit logs
"""

from collections.abc import Callable, Mapping
from typing import Final

from app.privacy.identifier_words import words_of_list

_VIN_VALUES: Final = {
    **{str(digit): digit for digit in range(10)},
    **dict(zip("ABCDEFGH", range(1, 9), strict=True)),
    **dict(zip("JKLMN", range(1, 6), strict=True)),
    "P": 7,
    "R": 9,
    **dict(zip("STUVWXYZ", range(2, 10), strict=True)),
}
_VIN_WEIGHTS: Final = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_FEWEST_CODE_DIGITS: Final = 4
_CENTURIES: Final = ("18", "19", "20", "21")
_YEAR: Final = 4  # digits


def _digits(text: str) -> list[int]:
    return [int(char) for char in text if char.isdigit()]


def is_luhn(text: str) -> bool:
    """ISO/IEC 7812-1, annex B: the check digit of payment cards."""
    digits = _digits(text)
    odd, even = digits[-1::-2], digits[-2::-2]
    total = sum(odd) + sum(sum(divmod(2 * digit, 10)) for digit in even)
    return 12 < len(digits) < 20 and total % 10 == 0  # noqa: PLR2004 - the lengths of card numbers


def is_iban(text: str) -> bool:
    """ISO 13616: the remainder by 97."""
    plain = text.replace(" ", "")
    turned = plain[4:] + plain[:4]
    number = "".join(str(int(char, 36)) for char in turned if char.isalnum())
    return int(number) % 97 == 1


def is_vin(text: str) -> bool:
    """ISO 3779 with the North American check digit, or letters and digits mixed as in others."""
    total = sum(_VIN_VALUES[char] * weight for char, weight in zip(text, _VIN_WEIGHTS, strict=True))
    return text[8] == "0123456789X"[total % 11] and not text.isdigit() and not text.isalpha()


def is_dea(text: str) -> bool:
    """The last digit of (d1+d3+d5) + 2 (d2+d4+d6) is the seventh."""
    digits = _digits(text[2:])
    return (sum(digits[0:6:2]) + 2 * sum(digits[1:6:2])) % 10 == digits[6]


def is_code(text: str) -> bool:
    """Four digits and more, that are no span of years and no name of a standard."""
    if len(_digits(text)) < _FEWEST_CODE_DIGITS or text.upper().startswith(
        tuple(words_of_list("standards"))
    ):
        return False
    return not all(len(part) == _YEAR and part.startswith(_CENTURIES) for part in text.split("-"))


def is_street(text: str) -> bool:
    """A number, then words of which none measures or counts something."""
    words = {word.strip(".") for word in text.lower().replace(",", " ").split()[1:-1]}
    return words.isdisjoint(words_of_list("no_streets"))


CHECKS: Final[Mapping[str, Callable[[str], bool]]] = {
    "luhn": is_luhn,
    "iban": is_iban,
    "vin": is_vin,
    "dea": is_dea,
    "code": is_code,
    "street": is_street,
}
