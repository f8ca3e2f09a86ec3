"""Whether the instructions ask for what a tool does, by the words that people use for it.

The words are general ones by effect and by the verb in the tool's name, or those of the catalogue.
A noun of the tool's name that the instructions do not have, where they have that of another such
tool, says that the other one was meant.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from app.domain.step import EFFECTFUL, ToolSpec
from app.policy.authority import Said, name_words
from app.policy.gate_words import (
    EMPTY_NOUNS,
    GROUPS_OF_EFFECT,
    SAID,
    SAME_NOUN,
    TOOL_VERBS,
)
from app.policy.value_forms import fold, singular, stem

_BETWEEN = 8  # words that may stand where a phrase has `...`

_GROUPS_OF_PHRASE: Mapping[str, frozenset[str]] = {
    phrase: frozenset(group for group, phrases in SAID.items() if phrase in phrases)
    for phrase in {phrase for phrases in SAID.values() for phrase in phrases}
}
_WORDS = frozenset(phrase for phrase in _GROUPS_OF_PHRASE if phrase.isalnum())
_ROWS = tuple(sorted(phrase for phrase in _GROUPS_OF_PHRASE if " " in phrase))
_SIGNS = tuple(sorted(_GROUPS_OF_PHRASE.keys() - _WORDS - set(_ROWS)))


def asked_tools(said: Said, catalogue: Sequence[ToolSpec]) -> frozenset[str]:
    """The tools with an effect that the instructions ask for."""
    effectful = [spec for spec in catalogue if spec.effect in EFFECTFUL]
    nouns = frozenset(noun for spec in effectful for noun in _nouns_of(spec))
    heard = (phrase for phrase in _heard_phrases(said) if not _is_noun(said, phrase, nouns))
    groups = frozenset(group for phrase in heard for group in _GROUPS_OF_PHRASE[phrase])
    return frozenset(spec.name for spec in effectful if _is_asked(said, spec, groups, effectful))


def _heard_phrases(said: Said) -> Iterator[str]:
    """The phrases of all groups that stand in the instructions; most words begin none."""
    yield from said.all_words & _WORDS
    for phrase in _ROWS:
        if phrase.partition(" ")[0] in said.all_words and _is_said(said, phrase):
            yield phrase
    for phrase in _SIGNS:
        if _is_said(said, phrase):
            yield phrase


def _is_asked(
    said: Said, spec: ToolSpec, groups: frozenset[str], effectful: Iterable[ToolSpec]
) -> bool:
    if spec.asked_by:
        return any(_is_said(said, fold(phrase)) for phrase in spec.asked_by)
    if not groups & _groups_of(spec):
        return False
    nouns, heard = _nouns_of(spec), _heard(said)
    if not nouns or nouns & heard:
        return True
    others = (
        _nouns_of(other)
        for other in effectful
        if other.name != spec.name and _groups_of(other) & _groups_of(spec)
    )
    return not any(other & heard for other in others)


def _is_noun(said: Said, phrase: str, nouns: frozenset[str]) -> bool:
    """Whether a word stands for a thing and not for what is to be done: `the last order`."""
    return _noun(phrase) in nouns and phrase not in said.imperatives


def _groups_of(spec: ToolSpec) -> frozenset[str]:
    """The groups of words by which this tool is asked for; the verb of its name narrows them."""
    groups = GROUPS_OF_EFFECT.get(spec.effect, ())
    verb = next(iter(name_words(spec.name)), "")
    narrow = [group for group in groups if verb in TOOL_VERBS[group]]
    return frozenset(narrow or groups)


def _nouns_of(spec: ToolSpec) -> frozenset[str]:
    words = name_words(spec.name)
    verbs = TOOL_VERBS[next(iter(_groups_of(spec)), "send")]
    kept = [word for at, word in enumerate(words) if at > 0 or word not in verbs]
    return frozenset(_noun(word) for word in kept if word not in EMPTY_NOUNS)


def _heard(said: Said) -> frozenset[str]:
    return frozenset(_noun(word) for word in said.all_words)


def _noun(word: str) -> str:
    return SAME_NOUN.get(word) or SAME_NOUN.get(singular(word), stem(word))


def _is_said(said: Said, phrase: str) -> bool:
    """Whether the words of a phrase stand in the instructions in a row, with room at `...`."""
    steps = phrase.split()
    if len(steps) == 1:
        return steps[0] in said.all_words or (not steps[0].isalnum() and steps[0] in said.text)
    first = [at for at, word in enumerate(said.words) if word == steps[0]]
    return any(_goes_on(said.words, at + 1, steps[1:]) for at in first)


def _goes_on(words: Sequence[str], at: int, steps: Sequence[str]) -> bool:
    if not steps:
        return True
    if steps[0] == "...":
        reach = range(at, min(at + _BETWEEN + 1, len(words) + 1))
        return any(_goes_on(words, further, steps[1:]) for further in reach)
    return at < len(words) and words[at] == steps[0] and _goes_on(words, at + 1, steps[1:])
