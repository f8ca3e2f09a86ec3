"""Which characters a reader does not see but a machine may act upon, and which texts hold one."""

import unicodedata

from app.domain.run import Json

# Formats, tags, surrogates, private use, and code points that mean nothing yet.
_HIDDEN = frozenset({"Cf", "Cs", "Co", "Cn"})
# Those that Unicode files under letters and marks though they show nothing: joiners, fillers, and
# selectors, 256 of which spell out bytes. The two that choose between text and emoji are common.
_HIDDEN_LETTERS = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE0E),
            *range(0xE0100, 0xE01F0),
        ),
    )
)


def is_hidden(char: str) -> bool:
    """Whether this one character shows nothing; spaces and line ends do show something."""
    if char < "\x7f":  # below it there is nothing invisible but controls
        return char == "\x00"
    return unicodedata.category(char) in _HIDDEN or char in _HIDDEN_LETTERS


def shows_something(text: str) -> bool:
    """Whether a reader sees anything but space."""
    return any(not char.isspace() and char.isprintable() and not is_hidden(char) for char in text)


def hides_something(value: Json) -> bool:
    """Whether any text in a value, names included, holds a hidden character."""
    match value:
        case str():
            return any(map(is_hidden, value))
        case list():
            return any(map(hides_something, value))
        case dict():
            return any(hides_something(key) or hides_something(item) for key, item in value.items())
        case _:
            return False
