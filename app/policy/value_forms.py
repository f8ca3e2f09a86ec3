"""Puts values into the one form in which they are compared, and finds them in texts as wholes.

A value is in a text only as a whole token: not as a part of a longer address, not in pieces, not
encoded. Comparing never loosens beyond Unicode NFKC, letter case and the spelling of numbers.

Threat: Prompt injection via task input
"""

import re
import unicodedata
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from app.domain.run import Json
from app.domain.step import Role
from app.policy.gate_words import (
    ENDINGS,
    FILE_ENDINGS,
    MONTHS,
    NUMBER_MARKS,
    STOP_WORDS,
    TOP_NAMES,
    WEEKDAYS,
)

_SHORT_WORD = 3  # such a word is its own stem
_STEM = 4  # letters that a stem has at least
_CACHED_CHARACTERS = 256
MAX_VALUE_CHARACTERS = 2048  # longer than that nothing is an address or a name
_SPACE = re.compile(r"\s+")
_TOKEN = re.compile(r"\w+")
_NUMBERED = re.compile(r"([^\W\d_]+)\s(?:no\.?\s|nr\.?\s|number\s)?#?(\d{1,6}[a-z]?)(?!\w)")
_NUMBER = re.compile(r"(?<![\w.,])[-+]?(\d{1,3}(?:[, ]\d{3})+|\d+)([.,]\d{1,6})?(?![\w])")
_ACCOUNT = re.compile(
    r"(?<!\w)(?:[a-z]{2}\d{2} ?[a-z0-9]{4}(?: ?\d{4}){1,6}(?: ?\d{1,4})?"
    r"|[a-z]{2}\d{2}[a-z0-9]{10,30})(?!\w)"
)
_ACCOUNT_LIKE = re.compile(r"[a-z]{2}\d{2}[a-z0-9]{10,30}")
_LINK = re.compile(r"(?:[a-z][a-z0-9+.-]{1,15}://|www\.)[^\s<>\"'`)\]}|\\^]+", re.IGNORECASE)
_BARE_HOST = re.compile(
    r"(?<![\w@./-])(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,24}(?![\w@-])"
    r"(?:/[^\s<>\"'`)\]}]*)?",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[\w.+%-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+")
_IN_BRACKETS = re.compile(r"<([^<>\s]+@[^<>\s]+)>\s*$")
_JOINED = frozenset("@.-+_%&=~")  # between two word characters these make one token of them
_DATE = re.compile(r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?!\d)")
_CLOCK = re.compile(r"(?<!\d)(\d{1,2})[:.](\d{2})(?::\d{2})?\s*(am|pm)?(?![\d])")
_HOUR = re.compile(r"(?<![\w:.])(\d{1,2})\s*(am|pm)(?!\w)")
_DAY_MONTH = re.compile(r"(?<!\w)(\d{1,2})(?:st|nd|rd|th)?\.?\s+(?:of\s+)?([a-z]{3,9})\.?(?!\w)")
_MONTH_DAY = re.compile(r"(?<!\w)([a-z]{3,9})\.?\s+(\d{1,2})(?:st|nd|rd|th)?(?![\w:])")


def fold(text: str) -> str:
    """NFKC, without letter case, runs of space as one, none at the ends and no dot at the end."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _SPACE.sub(" ", plain).strip().rstrip(".")


@lru_cache(maxsize=4096)
def form_of(role: Role, text: str) -> str:
    """A value in the form in which values of this role are compared."""
    folded = fold(text[:MAX_VALUE_CHARACTERS])
    match role:
        case Role.RECIPIENT:
            bracketed = _IN_BRACKETS.search(folded)
            plain = bracketed.group(1) if bracketed else folded.removeprefix("mailto:")
            return squeezed(plain)
        case Role.URL:
            return link_form(folded)
        case Role.PATH:
            return folded.removeprefix("./") or folded
        case _:
            return squeezed(folded)


def squeezed(folded: str) -> str:
    """An account number without the spaces that people put in; anything else as it is."""
    tight = folded.replace(" ", "")
    return tight if _ACCOUNT_LIKE.fullmatch(tight) else folded


def link_form(folded: str) -> str:
    """A link without its web scheme, fragment and closing slash, so that one page is one form."""
    bare = folded.removeprefix("https://").removeprefix("http://").partition("#")[0]
    return bare.rstrip("/.,;:!?")


def host_of(folded: str) -> str | None:
    """The host of a link, without user, port and closing dot; None where there is none."""
    rest = folded.partition("://")[2] or folded
    host = re.split(r"[/?#\\]", rest, maxsplit=1)[0].rpartition("@")[2]
    host = host.partition(":")[0].rstrip(".")
    return host if "." in host and host.isascii() else None


def occurs(value: str, text: str) -> bool:
    """Whether a folded value stands in a folded text as a whole token or a row of whole tokens."""
    if not value:
        return False
    at = text.find(value)
    while at >= 0:
        if _begins(text, at) and _ends(text, at + len(value)):
            return True
        at = text.find(value, at + 1)
    return False


def _begins(text: str, at: int) -> bool:
    if at == 0 or not _is_word(text[at]):
        return True
    before = text[at - 1]
    if _is_word(before):
        return False
    joins = before in _JOINED or (before == "/" and at > 1 and text[at - 2] in "/:")
    return not (joins and at > 1 and (_is_word(text[at - 2]) or before == "@"))


def _ends(text: str, end: int) -> bool:
    if end >= len(text) or not _is_word(text[end - 1]):
        return True
    after = text[end]
    if _is_word(after):
        return False
    return not (after in _JOINED and end + 1 < len(text) and _is_word(text[end + 1]))


def _is_word(char: str) -> bool:
    return char.isalnum() or char == "_"


def number_of(value: Json) -> Decimal | None:
    """The number that a value is, whatever its spelling; None when it is none."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        try:
            return Decimal(str(value))
        except InvalidOperation:
            return None
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value.strip().strip("$€£ "))
        return None if found is None else _decimal(found)
    return None


def numbers_in(text: str) -> frozenset[Decimal]:
    """Every number of a text, by value."""
    found = (_decimal(match) for match in _NUMBER.finditer(text))
    return frozenset(number for number in found if number is not None)


def _decimal(match: re.Match[str]) -> Decimal | None:
    whole, part = match.group(1), match.group(2) or ""
    sign = "-" if match.group(0).startswith("-") else ""
    try:
        return Decimal(sign + re.sub(r"[, ]", "", whole) + part.replace(",", "."))
    except InvalidOperation:
        return None


def accounts_in(text: str) -> frozenset[str]:
    """Account numbers of a folded text, without their spaces."""
    return frozenset(match.group(0).replace(" ", "") for match in _ACCOUNT.finditer(text))


def links_in(text: str) -> tuple[str, ...]:
    """The links of a text, with or without a scheme, each in its one form."""
    plain = unicodedata.normalize("NFKC", text)
    return tuple(dict.fromkeys(form for _, _, form in link_spans(plain)))


def link_spans(text: str) -> tuple[tuple[int, int, str], ...]:
    """Where the links of a text stand, in their order, without overlaps.

    A full stop without a space after it is no host: `end.Next` is told from `host.example` by the
    letter after the stop, so the text must still have its case.
    """
    found = [(match.start(), match.end(), match.group(0)) for match in _LINK.finditer(text)]
    for match in _BARE_HOST.finditer(text):
        host, _, path = match.group(0).partition("/")
        top = host.rpartition(".")[2]
        one_case = top.islower() or host.isupper() or top.casefold() in TOP_NAMES
        if one_case and (path or top.casefold() not in FILE_ENDINGS):
            found.append((match.start(), match.end(), match.group(0)))
    kept: list[tuple[int, int, str]] = []
    for start, end, link in sorted(found, key=lambda one: (one[0], -one[1])):
        if not kept or start >= kept[-1][1]:
            kept.append((start, end, link_form(link.casefold())))
    return tuple(kept)


def addresses_in(text: str) -> tuple[str, ...]:
    """The mail addresses and account numbers of a folded text."""
    mails = (match.group(0).rstrip(".") for match in _ADDRESS.finditer(text))
    return tuple(dict.fromkeys([*mails, *sorted(accounts_in(text))]))


def tokens_of(text: str) -> frozenset[str]:
    """The words of a text in their stems, its numbers by value, and its dates and times."""
    return _short_tokens(text) if len(text) <= _CACHED_CHARACTERS else _tokens(text)


@lru_cache(maxsize=8192)
def _short_tokens(text: str) -> frozenset[str]:
    return _tokens(text)


def _tokens(text: str) -> frozenset[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    found = _TOKEN.findall(folded)
    words = {stem(word) for word in found if not word.isdigit()}
    words |= {stem(part) for word in found if "_" in word for part in word.split("_") if part}
    words |= {
        numbered(word, number)
        for word, number in _NUMBERED.findall(folded)
        if word not in NUMBER_MARKS
    }
    bare = _CLOCK.sub(" ", _DATE.sub(" ", folded))
    words |= {f"#{number.normalize():f}" for number in numbers_in(bare)}
    return frozenset(words | dates_in(folded))


def numbered(word: str, number: str) -> str:
    """The token of a word with its number: `shelf 2` is one thing, and no other 2 is."""
    return f"{stem(word)}#{number}"


def naming_tokens(text: str) -> frozenset[str]:
    """The words by which a person could mean what a text names: of an address not its host."""
    folded = fold(text)
    return tokens_of(_ADDRESS.sub(lambda found: found.group(0).partition("@")[0], folded))


def dates_in(folded: str) -> set[str]:
    """The dates (`@month-day`, and the day of the week) and the times of a folded text."""
    found: set[str] = set()
    for year, month, day in _DATE.findall(folded):
        found |= date_tokens(int(year), int(month), int(day))
    for day, month in _DAY_MONTH.findall(folded):
        if month in MONTHS:
            found.add(f"@{MONTHS[month]}-{int(day)}")
    for month, day in _MONTH_DAY.findall(folded):
        if month in MONTHS:
            found.add(f"@{MONTHS[month]}-{int(day)}")
    for hour, minute, half in _CLOCK.findall(folded):
        found.add(_clock(int(hour), int(minute), half))
    for hour, half in _HOUR.findall(folded):
        found.add(_clock(int(hour), 0, half))
    return found


def date_tokens(year: int, month: int, day: int) -> set[str]:
    """How a date is spoken of: by month and day, and by its day of the week."""
    try:
        weekday = date(year, month, day).weekday()
    except ValueError:
        return set()
    return {f"@{month}-{day}", WEEKDAYS[weekday]}


def _clock(hour: int, minute: int, half: str) -> str:
    if half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return f"@{hour}:{minute:02d}"


def singular(word: str) -> str:
    """A word without the ending of the plural."""
    if word.endswith("ies") and len(word) > _SHORT_WORD + 1:
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith("ss") and len(word) > _SHORT_WORD:
        return word[:-1]
    return word


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """What a word shares with its relatives: enough to find `gardener` by `gardening`."""
    plain = singular(word)
    if plain in WEEKDAYS:
        return plain
    for ending in ENDINGS:
        if plain.endswith(ending) and len(plain) - len(ending) >= _STEM:
            return plain[: -len(ending)]
    return plain.removesuffix("e") if len(plain) > _STEM else plain


# Words, in their stems too, that tell one thing from no other.
TELLS_NOTHING = STOP_WORDS | {stem(word) for word in STOP_WORDS}
