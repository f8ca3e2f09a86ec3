"""Gives a text back without the characters that a reader does not see.

What belongs to a visible sign stays: the joiners of emoji, the three flags that are spelled with
tags, and the joiners that Arabic and Indic scripts are written with, each only where it does that.
"""

from typing import Final

from app.domain.visible_text import is_hidden

_JOINER: Final = "\u200d"
_NON_JOINER: Final = "\u200c"
_SELECTORS: Final = frozenset("\ufe0e\ufe0f")
_BLACK_FLAG: Final = "\U0001f3f4"
_TAG_END: Final = "\U000e007f"
# England, Scotland and Wales: the flags that Unicode recommends for interchange (UTS 51, C.1).
_FLAGS: Final = tuple(
    _BLACK_FLAG + "".join(chr(0xE0000 + ord(letter)) for letter in place) + _TAG_END
    for place in ("gbeng", "gbsct", "gbwls")
)
_LONGEST_FLAG: Final = 7
_JOINING_SCRIPTS: Final = ((0x0600, 0x08FF), (0x0900, 0x0DFF), (0x0F00, 0x109F), (0x1780, 0x18AF))
_PICTURES: Final = ((0x203C, 0x3299), (0x1F000, 0x1FAFF))
# Where signs are added every year: one that is newer than this program's tables shows all the same.
_NEWER_PICTURES: Final = ((0x1F000, 0x1FAFF),)
_KEYCAPS: Final = frozenset("#*0123456789\u00a9\u00ae")


def made_visible(text: str) -> str:
    """The text without hidden characters; the same object when it holds none."""
    if text.isascii() and "\x00" not in text:
        return text
    kept: list[str] = []
    at = 0
    while at < len(text):
        flag = text[at : at + _LONGEST_FLAG]
        if flag in _FLAGS:
            kept.append(flag)
            at += len(flag)
            continue
        if _shows(text, at, kept):
            kept.append(text[at])
        at += 1
    made = "".join(kept)
    return text if made == text else made


def _shows(text: str, at: int, kept: list[str]) -> bool:
    char = text[at]
    before = kept[-1] if kept else ""
    if char in _SELECTORS:
        return _is_picture(before) or before in _KEYCAPS
    after = text[at + 1 : at + 2]
    if char == _JOINER and (_is_picture(before) or before in _SELECTORS) and _is_picture(after):
        return True
    if char in (_JOINER, _NON_JOINER):
        return _joins(before) and _joins(after)
    return not is_hidden(char) or _within(char, _NEWER_PICTURES)


def _is_picture(char: str) -> bool:
    return len(char) == 1 and _within(char, _PICTURES)


def _joins(char: str) -> bool:
    return len(char) == 1 and char.isprintable() and _within(char, _JOINING_SCRIPTS)


def _within(char: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= ord(char) <= last for first, last in ranges)
