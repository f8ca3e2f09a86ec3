"""Knows headers again by their shape: where everything stands, and what may differ between two.

Most headers of a log differ in nothing but ids, hashes, numbers and times. One that was checked is
a pattern for others of its length: what may differ is of the same kind, and the rest is the same,
byte for byte. Whatever is not told so is left to the rules themselves.

Source: docs/ledger-format.md sections 2 and 3.

Threat: Ledger tampering
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from struct import Struct
from typing import TypeAlias

from app.ledger.hashing import record_prefix
from app.ledger.header import FIELD_NUMBERS, glance

_ID, _HASH, _WHOLE = rb'"([0-9a-f]{32})"', rb'"([0-9a-f]{64})"', rb"([0-9]{1,15})"
# Where the members stand in a header that is known to be one. No member but `policy` has quotes
# within its value, and that one has no braces: nothing else can fit.
_MEMBERS = (
    rb'"actor":"[^"]*"',
    rb'"approval":(?:null|' + _ID + rb")",
    rb'"commit":\{(?P<commit>[^}]*)\}',
    rb'"engine":(?:null|"[^"]*")',
    rb'"epoch":[0-9]+',
    rb'"event_id":' + _ID,
    rb'"intent":(?:null|(?P<intent>[0-9]{1,15}))',
    rb'"kind":"[^"]*"',
    rb'"log":"[^"]*"',
    rb'"model":(?:null|"[^"]*")',
    rb'"nonce":' + _ID,
    rb'"outcome":(?:null|"[^"]*")',
    rb'"parent":(?:null|' + _ID + rb")",
    rb'"policy":(?:null|\{[^{}]*\})',
    rb'"run":"(?P<run>[0-9a-f]{32})"',
    rb'"sandbox":(?:null|"[^"]*")',
    rb'"scrub":(?:null|\{[^{}]*\{[^{}]*\}[^{}]*\})',
    rb'"seq":(?P<seq>[0-9]{1,15})',
    rb'"size":\{(?P<size>[^}]*)\}',
    rb'"tool":(?:null|' + _HASH + rb")",
    rb'"ts":"(?P<ts>[^"]{27})"',
    rb'"usage":(?:null|\{"cost_micros":' + _WHOLE + rb',"input_tokens":' + _WHOLE
    + rb',"output_tokens":' + _WHOLE + rb"\})",
    rb'"v":1',
    rb'"writer":"(?P<writer>[0-9a-f]{32})"',
)  # fmt: skip
_PLACED = re.compile(rb"\{" + rb",".join(_MEMBERS) + rb"\}").fullmatch
_COMMITTED = re.compile(rb'"([a-z]+)":"([0-9a-f]{64})"')
_SIZED = re.compile(rb'":([0-9]{1,15})(?=,|$)')
_HEX_DIGITS, _DIGITS = b"0123456789abcdef", b"0123456789"
_ALIKE = bytes.maketrans(_DIGITS, b"0" * 10)
_TIME = b"0000-00-00T00:00:00.000000Z"
_MOST_SHAPES = 2048  # some hundreds are usual
_MOST_ALIKE = 8  # of one length; each of them is tried
_HEX, _NUMBER, _PLACE, _INTENT = range(4)
Parts: TypeAlias = tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """How to take a header apart, and which of its parts are always the same."""

    unpack: Callable[[bytes], Parts]
    fixed: Callable[[Parts], Parts]
    same: Parts
    places: Callable[[Parts], Parts]  # run, seq, time and writer
    hexes: Callable[[Parts], Parts]
    numbers: Callable[[Parts], Parts]
    intent: int | None
    prefix: bytes
    fields: list[int]


@dataclass(slots=True)
class Told:
    """What headers say of themselves, in their order; believed once `is_spelled` holds."""

    record_hashes: list[bytes] = field(default_factory=list)
    fields: list[list[int]] = field(default_factory=list)
    places: list[bytes] = field(default_factory=list)
    hexes: list[bytes] = field(default_factory=list)
    numbers: list[bytes] = field(default_factory=list)

    @property
    def runs(self) -> list[bytes]:
        """The runs, in hex."""
        return self.places[0::4]

    @property
    def seqs(self) -> list[bytes]:
        """The seqs, in digits."""
        return self.places[1::4]

    @property
    def writers(self) -> list[bytes]:
        """The writers, in hex."""
        return self.places[3::4]

    def times(self) -> list[datetime] | None:
        """The times; None when one is not of this form, or of no calendar."""
        spelled = self.places[2::4]
        if b"".join(spelled).translate(_ALIKE) != _TIME * len(spelled):
            return None
        try:
            return list(map(datetime.fromisoformat, b" ".join(spelled).decode().split(" ")))
        except ValueError:
            return None

    def is_spelled(self) -> bool:
        """Whether all that may differ is of its kind: hex digits, and numbers in shortest form."""
        if b"".join(self.hexes).translate(None, _HEX_DIGITS):
            return False
        if b"".join(self.numbers).translate(None, _DIGITS):
            return False
        return b",0" not in b"," + b",".join(self.numbers) or all(map(_is_short, self.numbers))


class HeaderShapes:
    """The shapes of one log's headers, learnt as they come."""

    def __init__(self, log: bytes) -> None:
        self._log = log.hex().encode()
        self._by_epoch: dict[int, _Known] = {}
        self._learnt = 0

    @property
    def count(self) -> int:
        """How many are remembered."""
        return sum(len(alike) for known in self._by_epoch.values() for alike in known.values())

    def tell(
        self,
        told: Told,
        epoch: int,
        headers: Sequence[bytes | None],
        kinds: Sequence[str | None],
        seqs: Sequence[int],
    ) -> bool:
        """Add what headers of one epoch say; False when one of them is not of a usual kind."""
        known = self._by_epoch.get(epoch, {})
        for header, kind, seq in zip(headers, kinds, seqs, strict=True):
            if header is None or kind is None:
                return False
            for shape in known.get((kind, len(header)), ()):
                parts = shape.unpack(header)
                if shape.fixed(parts) == shape.same:
                    break
            else:
                learnt = self._learn(header, kind, epoch, known)
                if learnt is None:
                    return False
                shape, parts = learnt, learnt.unpack(header)
            if shape.intent is not None and not _is_before(parts[shape.intent], seq):
                return False
            told.places += shape.places(parts)
            told.hexes += shape.hexes(parts)
            told.numbers += shape.numbers(parts)
            told.fields.append(shape.fields)
            told.record_hashes.append(sha256(shape.prefix + header).digest())
        return True

    def _learn(self, header: bytes, kind: str, epoch: int, known: "_Known") -> _Shape | None:
        seen, placed = glance(header), _PLACED(header)
        if seen is None or placed is None:
            return None
        if (seen.log, seen.kind, seen.epoch) != (self._log, kind.encode(), b"%d" % epoch):
            return None
        if self._learnt >= _MOST_SHAPES:
            self._by_epoch.clear()
            known.clear()
            self._learnt = 0
        self._learnt += 1
        self._by_epoch[epoch] = known
        shape = _shape_of(header, placed)
        known[kind, len(header)] = [shape, *known.get((kind, len(header)), ())[: _MOST_ALIKE - 1]]
        return shape


_Known: TypeAlias = dict[tuple[str, int], list[_Shape]]


def _is_before(intent: bytes, seq: int) -> bool:
    return intent.isdigit() and int(intent) < seq


def _is_short(number: bytes) -> bool:
    return number == b"0" or not number.startswith(b"0")


def _shape_of(header: bytes, placed: "re.Match[bytes]") -> _Shape:
    named = {placed.re.groupindex[name]: name for name in placed.re.groupindex}
    spans: list[tuple[int, int, int]] = []
    names: list[bytes] = []
    for group in range(1, placed.re.groups + 1):
        start, end = placed.span(group)
        match named.get(group):
            case _ if start < 0:
                continue
            case "commit":
                for found in _COMMITTED.finditer(header, start, end):
                    names.append(found[1])
                    spans.append((*found.span(2), _HEX))
            case "size":
                spans += [
                    (*found.span(1), _NUMBER) for found in _SIZED.finditer(header, start, end)
                ]
            case "run" | "seq" | "ts" | "writer":
                spans.append((start, end, _PLACE))
            case "intent":
                spans.append((start, end, _INTENT))
            case _:
                is_hex = end - start in {32, 64}
                spans.append((start, end, _HEX if is_hex else _NUMBER))
    return _made(header, spans, names)


def _made(header: bytes, spans: Sequence[tuple[int, int, int]], names: Sequence[bytes]) -> _Shape:
    lengths, at = [], 0
    kinds: dict[int, list[int]] = {_HEX: [], _NUMBER: [], _PLACE: [], _INTENT: []}
    for number, (start, end, kind) in enumerate(spans):
        lengths += [start - at, end - start]
        kinds[kind].append(2 * number + 1)
        at = end
    lengths.append(len(header) - at)
    unpack = Struct("".join(f"{length}s" for length in lengths)).unpack
    fixed = _picker(range(0, len(lengths), 2))
    intent = kinds[_INTENT]
    return _Shape(
        unpack=unpack,
        fixed=fixed,
        same=fixed(unpack(header)),
        places=_picker(kinds[_PLACE]),
        hexes=_picker(kinds[_HEX]),
        numbers=_picker(kinds[_NUMBER] + intent),
        intent=intent[0] if intent else None,
        prefix=record_prefix(len(header)),
        fields=sorted(FIELD_NUMBERS[name.decode()] for name in names),
    )


def _picker(places: Sequence[int]) -> Callable[[Parts], Parts]:
    """Picks these parts, as a tuple however few they are."""
    if len(places) > 1:
        return itemgetter(*places)
    if not places:
        return lambda _: ()
    (place,) = places
    return lambda parts: (parts[place],)
