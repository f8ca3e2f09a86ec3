"""Finds every secret in a text: the rule set, the gate before it, and the digest that names it.

One automaton over all literals decides which rules are tried, so a text without secrets costs one
pass. What two rules both find is one finding, named by the rule that stands first.

Threat: PHI leakage in audit logs
"""

import base64
import hashlib
import json
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from urllib.parse import quote, quote_plus

from app.privacy import secret_words, token_entropy
from app.privacy.linear_regex import Pattern, compiled
from app.privacy.secret_families import FAMILIES, Family

Span = tuple[int, int, str]
ENTROPY = "high-entropy"
KEYWORD = secret_words.PairRule.name
OWN = "own"
_NEVER = r"[^\x00-\x{10FFFF}]"  # matches nothing
SHORTEST_OWN = 8  # a shorter own key would black out ordinary words; the settings refuse it anyway

_PUBLIC_BLOCK = compiled(r"(?s)-----BEGIN (?:CERTIFICATE|(?:RSA |EC )?PUBLIC KEY)-----.+?-----END ")
_BASE64_SIGNS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-=")


def _escaped(literal: str) -> str:
    return "".join(
        f"\\x{ord(sign):02x}" if sign.isascii() and not sign.isalnum() else sign for sign in literal
    )


class RuleSet:
    """The rules in force; `without` gives the set less one, so that each can be shown to matter."""

    def __init__(self, off: frozenset[str] = frozenset()) -> None:
        self.off = off
        self._families = tuple(family for family in FAMILIES if family.name not in off)
        self._patterns = tuple(compiled(family.pattern) for family in self._families)
        self._words = tuple(
            (name, compiled(pattern), picky)
            for name, pattern, picky in secret_words.WORDED
            if name not in off
        )
        self._pairs = None if KEYWORD in off else secret_words.PairRule()
        self._entropy = ENTROPY not in off
        self._by_literal = _rules_by_literal(self._families)
        ordered = sorted(self._by_literal, key=lambda needle: (-len(needle), needle))
        literals = "|".join(_escaped(needle.decode()) for needle in ordered) or _NEVER
        self._literals = compiled(literals)
        loose = [f.pattern for f in self._families if not f.needles]
        self._loose = compiled("|".join(f"(?:{pattern})" for pattern in loose) or _NEVER)
        self._loose_rules = {i for i, f in enumerate(self._families) if not f.needles}
        self._word_gate = compiled(secret_words.WORD_GATE)
        self._gate = compiled(f"{literals}|{secret_words.WORD_GATE}")
        self.digest = self._digest()

    def without(self, name: str) -> "RuleSet":
        """The same set with one rule switched off."""
        return RuleSet(self.off | {name})

    def may_hold(self, text: bytes) -> bool:
        """False only when no rule finds anything in the strings of this canonical JSON, or text."""
        if self._gate.search(text) is not None or self._loose.search(text) is not None:
            return True
        if not self._entropy or token_entropy.TOKEN.search(text) is None:
            return False
        # An escape shifts where a token begins: only the strings themselves can tell then.
        if b"\\" in text:
            return True
        return any(True for _ in self._random_tokens(text))

    def spans(self, text: bytes) -> list[Span]:
        """Every finding as byte offsets and rule name, in no order, overlaps included."""
        found: list[Span] = []
        for index in sorted(self._triggered(text)):
            found.extend(_captures(self._patterns[index], text, self._families[index].name))
        if self._word_gate.search(text) is not None:
            for name, pattern, picky in self._words:
                found.extend(
                    span
                    for span in _captures(pattern, text, name)
                    if _stands(text[span[0] : span[1]], picky=picky)
                )
            if self._pairs is not None:
                found.extend(self._pairs.spans(text))
        if self._entropy:
            found.extend(self._random_tokens(text))
        return found

    def _triggered(self, text: bytes) -> set[int]:
        rules: set[int] = set()
        if self._loose.search(text) is not None:
            rules |= self._loose_rules
        at = 0
        while (hit := self._literals.search(text, at)) is not None:
            needle = hit.group()
            if needle is None:
                break
            rules |= self._by_literal[needle]
            if len(rules) == len(self._families):
                break
            at = hit.start() + 1
        return rules

    def _random_tokens(self, text: bytes) -> Iterator[Span]:
        public: deque[tuple[int, int]] | None = None
        for token in token_entropy.TOKEN.finditer(text):
            start, end = token.start(), token.end()
            taken = token_entropy.looks_random(text, start, end)
            if not taken:
                taken = self._hides_secret(text[start:end])
            if not taken:
                continue
            if public is None:
                public = deque((at.start(), at.end()) for at in _PUBLIC_BLOCK.finditer(text))
            while public and public[0][1] <= start:
                public.popleft()
            if not public or start < public[0][0]:
                yield start, end, ENTROPY

    def _hides_secret(self, token: bytes) -> bool:
        """Whether a token is base64 of a text that holds a secret (one level, no deeper)."""
        if len(token) > token_entropy.LONGEST_ENCODED or token.isdigit():
            return False
        plain = token_entropy.decoded(token)
        if plain is None:
            return False
        if any(_captures(self._patterns[i], plain, "") for i in self._triggered(plain)):
            return True
        return self._pairs is not None and any(True for _ in self._pairs.spans(plain))

    def _digest(self) -> str:
        rules = {
            "entropy": token_entropy.SETTINGS if self._entropy else None,
            "families": [[f.name, list(f.needles), f.pattern] for f in self._families],
            "pair": None if self._pairs is None else secret_words.PAIR,
            "worded": [list(rule) for rule in secret_words.WORDED if rule[0] not in self.off],
        }
        text = json.dumps(rules, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@cache
def default_rules() -> RuleSet:
    """The full set, compiled once a process."""
    return RuleSet()


class OwnSecrets:
    """The server's own keys, found literally and in the encodings text takes on its way.

    Plain, URL-encoded, JSON-escaped, hexadecimal, and base64 (both alphabets) at all three
    alignments. A key shorter than SHORTEST_OWN characters is not looked for.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        forms: set[str] = set()
        encoded: set[str] = set()
        for secret in secrets:
            if len(secret) >= SHORTEST_OWN:
                raw = secret.encode("utf-8", "replace")
                forms |= {raw.decode(), quote(raw, safe=""), quote_plus(raw)}
                forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
                forms |= {raw.hex(), raw.hex().upper()}
                encoded |= _base64_forms(raw)
        self._literal = _alternatives(forms)
        self._encoded = _alternatives(encoded)

    def may_hold(self, text: bytes) -> bool:
        """Whether one of the keys is in the text in any form."""
        return any(
            p is not None and p.search(text) is not None for p in (self._literal, self._encoded)
        )

    def spans(self, text: bytes) -> Iterator[Span]:
        """Where they are; a base64 find takes the whole run of base64 signs around it."""
        if self._literal is not None:
            for found in self._literal.finditer(text):
                yield found.start(), found.end(), OWN
        if self._encoded is None:
            return
        done = 0
        for found in self._encoded.finditer(text):
            start, end = found.start(), found.end()
            if end <= done:
                continue
            while start > done and text[start - 1] in _BASE64_SIGNS:
                start -= 1
            while end < len(text) and text[end] in _BASE64_SIGNS:
                end += 1
            done = end
            yield start, end, OWN


def _base64_forms(raw: bytes) -> set[str]:
    forms: set[str] = set()
    for shift in range(3):
        text = base64.b64encode(bytes(shift) + raw).decode().rstrip("=")
        lead = (0, 2, 3)[shift]  # signs that also hold bits of what stands before the key
        tail = 0 if (shift + len(raw)) % 3 == 0 else 1
        core = text[lead : len(text) - tail]
        forms |= {core, core.replace("+", "-").replace("/", "_"), quote(core, safe="")}
    return forms


def _alternatives(forms: Iterable[str]) -> Pattern | None:
    ordered = sorted(forms, key=lambda form: (-len(form), form))
    return compiled("|".join(_escaped(form) for form in ordered)) if ordered else None


def _rules_by_literal(families: Sequence[Family]) -> dict[bytes, frozenset[int]]:
    """For each literal the rules it may start: its own, and those of literals it begins with."""
    own: dict[bytes, set[int]] = {}
    for index, family in enumerate(families):
        for needle in family.needles:
            own.setdefault(needle.encode(), set()).add(index)
    return {
        literal: frozenset().union(
            *(rules for head, rules in own.items() if literal.startswith(head))
        )
        for literal in own
    }


def _captures(pattern: Pattern, text: bytes, name: str) -> list[Span]:
    group = 1 if pattern.groups else 0
    return [(found.start(group), found.end(group), name) for found in pattern.finditer(text)]


def _stands(value: bytes, *, picky: bool) -> bool:
    if value.startswith(b"[SECRET:") or secret_words.is_placeholder(value):
        return False
    return not picky or secret_words.is_random_looking(value)
