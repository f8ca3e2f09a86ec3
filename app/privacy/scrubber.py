"""The only maker of `Scrubbed`: takes a JSON value, gives canonical bytes without secrets.

It fails closed: whatever goes wrong, the result is a stub that says so and holds nothing of the
value; there is no second try with fewer rules. Output is a fixed point: scrubbing it again changes
no byte. A secret cut in two over neighbouring values is not found.

Threat: PHI leakage in audit logs
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.errors import MeshFlowError
from app.domain.run import Json, JsonObject
from app.domain.verdict import Scrubbed, ScrubBlock
from app.privacy.linear_regex import compiled
from app.privacy.secrets import KEYWORD, OwnSecrets, RuleSet, Span, default_rules
from app.privacy.walker import MAX_SIZE, UnscannableError, Walker, measured

ENGINE = "secrets/1"
POLICY = "secrets-only/1"
WITHHELD = "[UNSCRUBBED CONTENT WITHHELD]"
_ROUNDS = 8  # one finds, one proves it; more only when a cut joins what it stood between
_SHORTEST = 8  # characters; no rule matches less, and keys are judged by the walker
_MARK = compiled(r"\[SECRET:[a-z0-9-]{1,40}\]")
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
)
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


class UnsettledError(MeshFlowError):
    """The text still changed after the last round."""


@dataclass(slots=True)
class _Tally:
    secret: int = 0


def canonical(value: Json) -> bytes:
    """The value's canonical JSON in UTF-8; lone surrogates become U+FFFD, NaN is a ValueError."""
    text = _ENCODER.encode(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.translate(_SURROGATES).encode()


def machine_note(value: Json) -> Scrubbed:
    """What this program says of itself in ids, keys, codes and signatures: sealed as it is.

    Nothing that a caller or a model supplied may be in it. The rules would take a signature for a
    secret.
    """
    return _of_the_machine(canonical(value))


def machine_facts(facts: bytes, weighed: JsonObject) -> Scrubbed:
    """A feature record, in canonical bytes, and what was made of it, as its last member.

    It holds classes, flags, counters and names of tools, arguments and rules, never content.
    """
    if not facts.endswith(b"}") or facts == b"{}":
        raise ValueError("a feature record is an object")
    told = canonical(weighed)
    return _of_the_machine(b"".join((facts[:-1], b',"weighed":', told, b"}")))


def _of_the_machine(value: bytes) -> Scrubbed:
    block = ScrubBlock(
        engine=ENGINE,
        rules=default_rules().digest,
        policy="machine/1",
        mode="audit",
        status="ok",
        counts={},
        unscanned=0,
    )
    return Scrubbed(value=value, block=block)


class Scrubber:
    """Takes secrets out of JSON and text; the server's keys, `own_secrets`, literally."""

    def __init__(self, own_secrets: Sequence[str], rules: RuleSet | None = None) -> None:
        self._rules = default_rules() if rules is None else rules
        self._own = OwnSecrets(own_secrets)

    def scrub(self, value: Json) -> Scrubbed:
        """Canonical bytes without secrets, or the stub and status "failed". Never raises."""
        tally = _Tally()
        try:
            clean = self._settled(value, tally)
        except Exception as failure:  # noqa: BLE001  # whatever it was, nothing unscrubbed may pass
            stub: Json = {
                "scrub": {"status": "failed", "error": type(failure).__name__},
                "body": WITHHELD,
            }
            return Scrubbed(value=canonical(stub), block=self._block("failed", 0, unscanned=1))
        return Scrubbed(value=clean, block=self._block("ok", tally.secret, unscanned=0))

    def scrub_text(self, text: str) -> str:
        """A text without secrets, or the withheld mark. Never raises."""
        try:
            if len(text) > MAX_SIZE:
                return WITHHELD
            if not text.isascii():
                text = text.translate(_SURROGATES)
            raw = text.encode()
            if not self._may_hold(raw):
                return text
            for _ in range(_ROUNDS):
                clean = self._cut(raw, _Tally())
                if clean == raw:
                    return clean.decode()
                raw = clean
        except Exception:  # noqa: BLE001  # as above
            return WITHHELD
        return WITHHELD

    def _settled(self, value: Json, tally: _Tally) -> bytes:
        if measured(value) > MAX_SIZE:
            raise UnscannableError("too large")
        raw = canonical(value)
        if len(raw) > MAX_SIZE:
            raise UnscannableError("too large")
        if not self._may_hold(raw):
            return raw
        current: Json = json.loads(raw)
        for _ in range(_ROUNDS):
            walker = Walker(lambda text: self._line(text, tally), lambda: self._keyed(tally))
            current = walker.walked(current)
            clean = canonical(current)
            if clean == raw:
                return clean
            raw = clean
        raise UnsettledError("still changing")

    def _may_hold(self, raw: bytes) -> bool:
        return self._rules.may_hold(raw) or self._own.may_hold(raw)

    def _line(self, text: str, tally: _Tally) -> str:
        return text if len(text) < _SHORTEST else self._cut(text.encode(), tally).decode()

    @staticmethod
    def _keyed(tally: _Tally) -> str:
        tally.secret += 1
        return f"[SECRET:{KEYWORD}]"

    def _cut(self, raw: bytes, tally: _Tally) -> bytes:
        spans = _merged([*self._own.spans(raw), *self._rules.spans(raw)], raw)
        if not spans:
            return raw
        tally.secret += len(spans)
        pieces: list[bytes] = []
        at = 0
        for start, end, name in spans:
            pieces += (raw[at:start], f"[SECRET:{name}]".encode())
            at = end
        pieces.append(raw[at:])
        return b"".join(pieces)

    def _block(self, status: str, secrets: int, *, unscanned: int) -> ScrubBlock:
        return ScrubBlock(
            engine=ENGINE,
            rules=self._rules.digest,
            policy=POLICY,
            mode="audit",
            status=status,
            counts={"secret": secrets},
            unscanned=unscanned,
        )


def _merged(found: list[Span], raw: bytes) -> list[Span]:
    """Overlapping findings as one, named by the first rule; what lies in a mark is left alone."""
    if not found:
        return []
    marks = [(mark.start(), mark.end()) for mark in _MARK.finditer(raw)]
    ranked = sorted((start, end, rank, name) for rank, (start, end, name) in enumerate(found))
    out: list[tuple[int, int, int, str]] = []
    at = 0
    for start, end, rank, name in ranked:
        while at < len(marks) and marks[at][1] <= start:
            at += 1
        if end <= start or (at < len(marks) and marks[at][0] <= start and end <= marks[at][1]):
            continue
        if out and start < out[-1][1]:
            first, last, best, label = out[-1]
            if rank < best:
                best, label = rank, name
            out[-1] = (first, max(last, end), best, label)
        else:
            out.append((start, end, rank, name))
    return [(start, end, name) for start, end, _, name in out]
