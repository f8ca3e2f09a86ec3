"""What is known of a word as a name: on the list of given or family names, or a plain word.

The list is data: one folded word a line, `g` given, `f` family, `b` both; `?` marks those that are
plain words as well and need a cue.

Threat: PHI leakage in audit logs
"""

import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

_UNFOLDED: Final = str.maketrans(
    {
        "\u0142": "l",
        "\u00f8": "o",
        "\u0111": "d",
        "\u0131": "i",
        "\u00df": "ss",
        "\u00e6": "ae",
        "\u0153": "oe",
        "\u00f0": "d",
        "\u00fe": "th",
    }
)
_ENDINGS: Final = ("'s", "s'", "\u2019s")


@dataclass(frozen=True, slots=True)
class NameWord:
    """What the list says of a word."""

    is_given: bool
    is_family: bool
    is_plain: bool  # a word of the language as well


_UNKNOWN: Final = NameWord(is_given=False, is_family=False, is_plain=False)
_PLAIN: Final = NameWord(is_given=False, is_family=False, is_plain=True)


def folded(word: str) -> str:
    """The word in lower case without accents and without a genitive."""
    lower = word.lower()
    if not lower.isascii():
        lower = lower.translate(_UNFOLDED)
        lower = "".join(
            char for char in unicodedata.normalize("NFKD", lower) if not unicodedata.combining(char)
        )
    return lower[:-2] if lower.endswith(_ENDINGS) else lower


def known_name(word: str) -> NameWord:
    """What is known of a word, given as it stands in a text."""
    return _known(folded(word))


@cache
def _table() -> dict[str, NameWord]:
    table = dict.fromkeys(_read("plain_words.txt").split(), _PLAIN)
    plain = set(table)
    for line in _read("person_names.txt").splitlines():
        word, flags = line.split()
        table[word] = NameWord(
            is_given=flags[0] in "gb",
            is_family=flags[0] in "fb",
            is_plain=flags.endswith("?") or word in plain,
        )
    return table


def _known(word: str) -> NameWord:
    table = _table()
    found = table.get(word)
    if found is not None:
        return found
    parts = word.split("-")
    if len(parts) > 1 and any(part in table and not table[part].is_plain for part in parts):
        return next(table[part] for part in parts if part in table and not table[part].is_plain)
    # A plural or a past form of a plain word is one.
    for ending in ("s", "es", "ed", "ing", "ly", "d"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2 and table.get(stem) is _PLAIN:  # noqa: PLR2004 - no stem is shorter
            return _PLAIN
    return _UNKNOWN


def _read(name: str) -> str:
    return files("app.privacy").joinpath(name).read_text("utf-8")
