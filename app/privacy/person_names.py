"""Finds people's names in a text: by title, role, kin, credential, order, list, and in speech.

A word that is also a plain word needs a cue. Names of diseases and instruments stay.

Threat: PHI leakage in audit logs
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.privacy.identifier_words import any_of
from app.privacy.linear_regex import compiled
from app.privacy.name_words import NameWord, known_name

Place = tuple[int, int]

_CAPITAL: Final = compiled(r"\p{Lu}[\pL\pM']*(?:-\p{Lu}?[\pL\pM']+)*")
_GAP: Final = compiled(
    r"(?i)(?:\s{1,2}|\.\s{0,2}|-|\s" + any_of("particles") + r"\s|\s(?:al|el)-|\s['\"]|['\"]\s)"
)
_TITLE: Final = compiled("(?i)" + any_of("titles"))
_CUE: Final = compiled(
    r"(?i)(?:\b"
    + any_of("roles")
    + r"(?:\s(?:is|was|by|with|name|are|and))?\s?[:,.\-=|]{0,2}\s{0,3}"
    r"|[\^|]|\bby\s|\bwith\s(?:dr\.?\s)?)$"
)
_SPEECH: Final = compiled(
    r"(?i)\b" + any_of("speech") + r"[.,]?\s{0,1},?\s{1,2}"
    r"(\pL[\pL']{1,19})(?:\s(\pL[\pL'\-]{1,19}))?"
)
_STRONG_SPEECH: Final = compiled("(?i)^" + any_of("strong_speech") + r"\b")
_CREDENTIAL: Final = compiled(r",?\s{1,2}" + any_of("credentials") + r"\b\.?")
_LAST_FIRST: Final = compiled(r",\s{0,2}")
_FIRST_MIDDLE: Final = compiled(r"(\p{Lu}[\pL\pM']+)(?:\s\p{Lu}\b)?")
_HEADS: Final = compiled(r"(?i)(?:'s)?\s(?:\S{1,20}\s)?" + any_of("eponym_heads") + r"\b")
# Endings of substances, germs and ailments that title case makes look like names.
_SUBSTANCE: Final = compiled("(?i)" + any_of("substance_endings") + "$")
_STARTS: Final = compiled(r"(?:^|[.!?:;\n\r|\]]\s{0,3}|\n\s*[-*\d.)]{0,4}\s{0,3})$")
_LOOK_BACK: Final = 40
_MOST_TOKENS: Final = 5
_SHORTEST_SPOKEN: Final = 3
_SHORTEST_UNHEARD: Final = 4


@dataclass(slots=True)
class _Token:
    start: int
    end: int
    word: str
    known: NameWord
    is_initial: bool

    @property
    def may_be(self) -> bool:
        """Whether it can be part of a name when something else says that there is one."""
        return self.is_initial or not self.known.is_plain or self.is_listed

    @property
    def is_listed(self) -> bool:
        return self.known.is_given or self.known.is_family

    @property
    def speaks(self) -> bool:
        """Whether it is a name and nothing else."""
        return self.is_listed and not self.known.is_plain and not self.is_initial


def names_in(text: bytes, *, is_audit: bool) -> Iterator[Place]:
    """Where names stand in a plain copy of a text; overlaps may come."""
    for chain in _chains(text):
        yield from _judged(text, chain, is_audit=is_audit)
    yield from _spoken(text, is_audit=is_audit)


def _chains(text: bytes) -> Iterator[list[_Token]]:
    chain: list[_Token] = []
    for found in _CAPITAL.finditer(text):
        token = _token(text, found.start(), found.end())
        if chain and (len(chain) == _MOST_TOKENS or not _follows(text, chain[-1], token)):
            yield chain
            chain = []
        chain.append(token)
    if chain:
        yield chain


def _token(text: bytes, start: int, end: int) -> _Token:
    word = text[start:end].decode("utf-8", "replace")
    return _Token(start, end, word, known_name(word), len(word) == 1)


def _follows(text: bytes, before: _Token, token: _Token) -> bool:
    gap = text[before.end : token.start]
    if not gap or len(gap) > 12 or _GAP.fullmatch(gap) is None:  # noqa: PLR2004 - van der and air
        return False
    # A full stop ends a sentence, but for an initial and a title.
    return b"." not in gap or before.is_initial or _is_title(before)


def _is_title(token: _Token) -> bool:
    return _TITLE.fullmatch(token.word.encode()) is not None


def _judged(text: bytes, chain: list[_Token], *, is_audit: bool) -> Iterator[Place]:
    while chain and _is_title(chain[0]) and len(chain) > 1:
        chain = chain[1:]
        if chain[0].may_be or not chain[0].known.is_plain:
            run = _run(chain)
            yield run[0].start, run[-1].end
            chain = chain[len(run) :]
    for run in _runs(chain):
        turned = _reversed(text, run)
        if turned is not None:
            yield turned
        elif _is_name(text, run, is_audit=is_audit):
            yield run[0].start, run[-1].end


def _run(chain: Sequence[_Token]) -> list[_Token]:
    run = []
    for token in chain:
        if not token.may_be:
            break
        run.append(token)
    return run or list(chain[:1])


def _runs(chain: Sequence[_Token]) -> Iterator[list[_Token]]:
    """The parts of a chain between words that are no names."""
    run: list[_Token] = []
    for token in chain:
        if token.may_be:
            run.append(token)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _is_name(text: bytes, run: Sequence[_Token], *, is_audit: bool) -> bool:
    if _HEADS.match(text[run[-1].end : run[-1].end + 40]) is not None:
        return False
    if all(token.is_initial for token in run):
        return False
    before = text[max(0, run[0].start - _LOOK_BACK) : run[0].start]
    if _CREDENTIAL.match(text[run[-1].end : run[-1].end + 16]) is not None and len(run) > 1:
        return True
    has_cue = _CUE.search(before) is not None
    starts = _STARTS.search(before) is not None
    if len(run) == 1:
        return _is_single(run[0], has_cue=has_cue, starts=starts, is_audit=is_audit)
    speaking = sum(token.speaks for token in run)
    if speaking:
        return speaking > 1 or has_cue or not starts or run[0].speaks or run[0].is_initial
    listed = run[0].known.is_given and run[-1].known.is_family
    if listed or run[0].is_initial or run[-1].is_listed:
        return has_cue or (is_audit and not starts and (listed or run[0].is_initial))
    if has_cue:
        return all(not token.known.is_plain for token in run)
    return is_audit and not starts and all(_is_unheard_of(token) for token in run)


def _is_unheard_of(token: _Token) -> bool:
    """Whether a word is neither in the dictionary nor built like a substance or an ailment."""
    return (
        not token.known.is_plain
        and len(token.word) >= _SHORTEST_UNHEARD
        and not token.word.isupper()
        and _SUBSTANCE.search(token.word.encode()) is None
    )


def _is_single(token: _Token, *, has_cue: bool, starts: bool, is_audit: bool) -> bool:
    if token.word.isupper() and len(token.word) < 5 and not has_cue:  # noqa: PLR2004 - abbreviations
        return False
    if has_cue:
        return token.speaks or (token.is_listed and not starts) or not token.known.is_plain
    if not token.speaks:
        return False
    return is_audit or token.known.is_given


def _reversed(text: bytes, run: Sequence[_Token]) -> Place | None:
    """`Last, First M.` and `LAST, FIRST`: the word behind the comma tells."""
    last = run[-1]
    comma = _LAST_FIRST.match(text[last.end : last.end + 3])
    if comma is None or last.is_initial:
        return None
    at = last.end + comma.end()
    found = _FIRST_MIDDLE.match(text[at : at + 60])
    if found is None:
        return None
    first = _token(text, at, at + found.end(1))
    if not first.known.is_given or not last.may_be:
        return None
    if not (last.is_listed or not last.known.is_plain) or (
        first.known.is_plain and not last.speaks
    ):
        return None
    return run[0].start, at + found.end()


def _spoken(text: bytes, *, is_audit: bool) -> Iterator[Place]:
    at = 0
    while (found := _SPEECH.search(text, at)) is not None:
        at = found.start(1)  # the word may be a cue itself: "i'm doctor ..."
        strong = _STRONG_SPEECH.match(text[found.start() : found.end()]) is not None
        first = _token(text, found.start(1), found.end(1))
        if len(first.word) < _SHORTEST_SPOKEN or not _is_spoken(first, strong=strong):
            continue
        end = first.end
        if found.start(2) >= 0:
            second = _token(text, found.start(2), found.end(2))
            if second.speaks or (strong and not second.known.is_plain):
                end = second.end
        yield first.start, end
    if is_audit:
        yield from _listed_words(text)


def _is_spoken(token: _Token, *, strong: bool) -> bool:
    if strong:
        return token.is_listed or not token.known.is_plain
    return token.speaks


_LOWER: Final = compiled(r"(?:^|[^\pL\pN'\-])(\p{Ll}[\pL']{3,19})")


def _listed_words(text: bytes) -> Iterator[Place]:
    """Given names in lower case, as speech to text writes them."""
    for found in _LOWER.finditer(text):
        token = _token(text, found.start(1), found.end(1))
        if token.known.is_given and token.speaks:
            yield token.start, token.end


def words_of(names: Iterable[str]) -> frozenset[str]:
    """The words of found names that give the name away wherever they stand."""
    out = set()
    for name in names:
        for word in name.replace("-", " ").replace(",", " ").split():
            bare = word.strip(".'\"()")
            if len(bare) > 2 and not known_name(bare).is_plain:  # noqa: PLR2004 - Al and Jo are everywhere
                out.add(bare)
    return frozenset(out)
