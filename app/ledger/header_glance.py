"""One look at a header's bytes: whether they are a header at all, and what they say of their place.

A pattern of the whole canonical form takes a tenth of the time of parsing, checking and spelling
anew. It is narrower than the rules and never wider: what it does not know, the slow way decides.

Source: docs/ledger-format.md sections 2 and 3.

Threat: Ledger tampering
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

_ID, _HASH = rb'"[0-9a-f]{32}"', rb'"[0-9a-f]{64}"'
_WHOLE = rb"(?:0|[1-9][0-9]{0,14})"
_ENGINE, _CODE = rb'"[a-zA-Z0-9_.:-]{1,128}"', rb'"[a-z0-9_.:-]{1,128}"'
# A comma has a member after it, and the last member has none: nothing else fits.
_NEXT = rb'(?:,(?=")|(?=\}))'
_MEMBERS = (
    rb'"actor":"(?:key:[0-9a-f]{16}|system|model|tool|operator)"',
    rb'"approval":(?:null|' + _ID + rb")",
    rb'"commit":\{((?:"[a-z]{1,16}":' + _HASH + _NEXT + rb")*)\}",
    rb'"engine":(?:null|' + _ENGINE + rb")",
    rb'"epoch":(' + _WHOLE + rb")",
    rb'"event_id":' + _ID,
    rb'"intent":(null|' + _WHOLE + rb")",
    rb'"kind":"([a-z0-9_.]{1,64})"',
    rb'"log":"([0-9a-f]{32})"',
    rb'"model":(?:null|' + _ENGINE + rb")",
    rb'"nonce":' + _ID,
    rb'"outcome":(?:null|' + _CODE + rb")",
    rb'"parent":(?:null|' + _ID + rb")",
    rb'"policy":(null|\{[^{}]*\})',
    rb'"run":"([0-9a-f]{32})"',
    rb'"sandbox":(?:null|' + _CODE + rb")",
    rb'"scrub":(null|\{[^{}]*\{[^{}]*\}[^{}]*\})',
    rb'"seq":(' + _WHOLE + rb")",
    rb'"size":(\{[^{}]*\})',
    rb'"tool":(?:null|' + _HASH + rb")",
    rb'"ts":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z)"',
    rb'"usage":(?:null|\{"cost_micros":' + _WHOLE + rb',"input_tokens":' + _WHOLE
    + rb',"output_tokens":' + _WHOLE + rb"\})",
    rb'"v":1',
    rb'"writer":"([0-9a-f]{32})"',
)  # fmt: skip
_HEADER = re.compile(rb"\{" + rb",".join(_MEMBERS) + rb"\}").fullmatch
_NAMES = re.compile(rb'"([a-z]+)":').findall
Part = Callable[[str, bytes], bool]


class Glance(NamedTuple):
    """What a header says of its place, as it is spelled there."""

    epoch: bytes
    kind: bytes
    log: bytes
    run: bytes
    seq: bytes
    ts: bytes
    writer: bytes


class HeaderGlance:
    """Looks at headers. `part_holds` is the slow rule for the members that repeat all the time."""

    def __init__(self, part_holds: Part, most_bytes: int) -> None:
        self._part_holds = part_holds
        self._fields_of = lru_cache(maxsize=4096)(self._checked_fields)
        self._most_bytes = most_bytes

    def __call__(self, data: bytes) -> Glance | None:
        """The header's place if this is one; None if it is not, or not one of the usual kind."""
        found = _HEADER(data)
        if found is None or len(data) > self._most_bytes:
            return None
        commit, epoch, intent, kind, log, policy, run, scrub, seq, size, ts, writer = found.groups()
        # The size has its names known, sorted and once; so has the commit if they are the same.
        if self._fields_of(policy, scrub, size) != _NAMES(commit):
            return None
        if intent != b"null" and int(intent) >= int(seq):
            return None
        return Glance(epoch, kind, log, run, seq, ts, writer)

    def _checked_fields(self, policy: bytes, scrub: bytes, size: bytes) -> list[bytes] | None:
        holds = self._part_holds
        if holds("policy", policy) and holds("scrub", scrub) and holds("size", size):
            return _NAMES(size)
        return None
