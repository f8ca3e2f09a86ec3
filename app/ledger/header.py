"""The header of a ledger/v1 record: a closed list of members, none of which can hold free text.

Source: docs/ledger-format.md section 3.

Threat: Ledger tampering
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from app.domain.run import Json, JsonObject, Usage
from app.domain.verdict import Decision, ScrubBlock
from app.ledger.canonical import (
    MAX_HEADER_BYTES,
    MAX_INTEGER,
    CanonicalError,
    parse_canonical,
    spelled,
)
from app.ledger.header_glance import HeaderGlance

VERSION: Final = 1
_TIME_CHARACTERS: Final = 26  # what comes after them is the offset

FIELD_NUMBERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "task": 1,
        "request": 2,
        "reply": 3,
        "call": 4,
        "result": 5,
        "output": 6,
        "features": 7,
        "note": 8,
    }
)
FIELD_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {number: name for name, number in FIELD_NUMBERS.items()}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Everything a record says in clear. Codes, numbers, digests and random ids only."""

    log: bytes
    run: bytes
    seq: int
    epoch: int
    kind: str
    at: datetime
    event_id: bytes
    nonce: bytes
    actor: str
    writer: bytes
    intent: int | None
    parent: bytes | None
    decision: Decision | None
    model: str | None
    engine: str | None
    tool: bytes | None  # keyed digest of the tool's name
    usage: Usage | None
    outcome: str | None
    sandbox: str | None
    approval: bytes | None
    scrub: ScrubBlock | None
    size: Mapping[str, int]
    commit: Mapping[str, bytes]

    def encode(self) -> bytes:
        """The canonical bytes. CanonicalError when a member breaks its rule."""
        members = self._members()
        # The members' rules are narrower than the profile: what keeps them is in it.
        _check_members(members)
        return spelled(members)

    def _members(self) -> JsonObject:
        return {
            "v": VERSION,
            "log": self.log.hex(),
            "run": self.run.hex(),
            "seq": self.seq,
            "epoch": self.epoch,
            "kind": self.kind,
            "ts": encode_time(self.at),
            "event_id": self.event_id.hex(),
            "nonce": self.nonce.hex(),
            "actor": self.actor,
            "writer": self.writer.hex(),
            "intent": self.intent,
            "parent": None if self.parent is None else self.parent.hex(),
            "policy": _policy(self.decision),
            "model": self.model,
            "engine": self.engine,
            "tool": None if self.tool is None else self.tool.hex(),
            "usage": _usage(self.usage),
            "outcome": self.outcome,
            "sandbox": self.sandbox,
            "approval": None if self.approval is None else self.approval.hex(),
            "scrub": _scrub(self.scrub),
            "size": dict(self.size),
            "commit": {name: value.hex() for name, value in self.commit.items()},
        }


def encode_time(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds and `Z`."""
    there = at if at.tzinfo is UTC else at.astimezone(UTC)
    return f"{there.isoformat(timespec='microseconds')[:_TIME_CHARACTERS]}Z"


def decode_header(data: bytes) -> JsonObject:
    """The members of stored header bytes. CanonicalError outside the closed list."""
    if glance(data) is not None:  # canonical, and every rule kept
        known: JsonObject = json.loads(data)
        return known
    members = parse_canonical(data)
    if not isinstance(members, dict):
        raise CanonicalError("a header is an object")
    _check_members(members)
    return members


def _policy(decision: Decision | None) -> Json:
    if decision is None:
        return None
    return {
        "id": decision.policy.policy_id,
        "ver": decision.policy.version,
        "digest": decision.policy.digest,
        "verdict": decision.verdict.value,
        "rules": list(decision.rules),
    }


def _usage(usage: Usage | None) -> Json:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_micros": usage.cost_micros,
    }


def _scrub(block: ScrubBlock | None) -> Json:
    if block is None:
        return None
    counts: JsonObject = dict(block.counts)
    return {
        "engine": block.engine,
        "rules": block.rules,
        "policy": block.policy,
        "mode": block.mode,
        "status": block.status,
        "counts": counts,
        "unscanned": block.unscanned,
        "ms": None,
        "hmac_key": None,
        "ner": None,
    }


def scrub_spelled(block: ScrubBlock) -> str:
    """A scrub block as a header spells it. CanonicalError when it breaks its rule."""
    value = _scrub(block)
    if not _MEMBERS["scrub"](value):
        raise CanonicalError("header member 'scrub' breaks its rule")
    return spelled(value).decode("ascii")


Rule = Callable[[Json], bool]


def _text(pattern: str) -> Rule:
    fullmatch = re.compile(pattern, re.ASCII).fullmatch
    return lambda value: isinstance(value, str) and fullmatch(value) is not None


def _or_null(rule: Rule) -> Rule:
    return lambda value: value is None or rule(value)


def _count(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


def _object_of(rules: Mapping[str, Rule]) -> Rule:
    def check(value: Json) -> bool:
        if not isinstance(value, dict) or value.keys() != rules.keys():
            return False
        for name, rule in rules.items():  # noqa: SIM110 - a generator costs more than its rules
            if not rule(value[name]):
                return False
        return True

    return check


def _map_of(keys: Rule, values: Rule) -> Rule:
    return lambda value: (
        isinstance(value, dict) and all(keys(key) and values(item) for key, item in value.items())
    )


_HEX16 = _text(r"[0-9a-f]{32}")
_HEX32 = _text(r"[0-9a-f]{64}")
_CODE = _text(r"[a-z0-9_.:-]{1,128}")
_NAME = _text(r"[a-z0-9_.-]{1,64}")
_ENGINE = _text(r"[a-zA-Z0-9_.:-]{1,128}")
_FIELD: Rule = lambda value: isinstance(value, str) and value in FIELD_NUMBERS  # noqa: E731 - one of a table of rules

_MEMBERS: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "v": lambda value: _count(value) and value == VERSION,
        "log": _HEX16,
        "run": _HEX16,
        "seq": _count,
        "epoch": _count,
        "kind": _text(r"[a-z0-9_.]{1,64}"),
        "ts": _text(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z"),
        "event_id": _HEX16,
        "nonce": _HEX16,
        "actor": _text(r"key:[0-9a-f]{16}|system|model|tool|operator"),
        "writer": _HEX16,
        "intent": _or_null(_count),
        "parent": _or_null(_HEX16),
        "policy": _or_null(
            _object_of(
                {
                    "id": _NAME,
                    "ver": _count,
                    "digest": _HEX32,
                    "verdict": _NAME,
                    "rules": lambda value: isinstance(value, list) and all(map(_NAME, value)),
                }
            )
        ),
        "model": _or_null(_ENGINE),
        "engine": _or_null(_ENGINE),
        "tool": _or_null(_HEX32),
        "usage": _or_null(
            _object_of({"input_tokens": _count, "output_tokens": _count, "cost_micros": _count})
        ),
        "outcome": _or_null(_CODE),
        "sandbox": _or_null(_CODE),
        "approval": _or_null(_HEX16),
        "scrub": _or_null(
            _object_of(
                {
                    "engine": _text(r"[a-z0-9_./-]{1,64}"),
                    "rules": _text(r"sha256:[0-9a-f]{64}"),
                    "policy": _text(r"[a-z0-9_./-]{1,64}"),
                    "mode": _NAME,
                    "status": _NAME,
                    "counts": _map_of(_text(r"[a-z0-9_.]{1,64}"), _count),
                    "unscanned": _count,
                    "ms": _or_null(_count),
                    "hmac_key": _or_null(_NAME),
                    "ner": _or_null(_NAME),
                }
            )
        ),
        "size": _map_of(_FIELD, _count),
        "commit": _map_of(_FIELD, _HEX32),
    }
)


def _check_members(members: JsonObject) -> None:
    if members.keys() != _MEMBERS.keys():
        raise CanonicalError("a header member is missing or unknown")
    for name, rule in _MEMBERS.items():
        if not rule(members[name]):
            raise CanonicalError(f"header member '{name}' breaks its rule")
    size, commit, seq, intent = (
        members["size"],
        members["commit"],
        members["seq"],
        members["intent"],
    )
    if not isinstance(size, dict) or not isinstance(commit, dict) or size.keys() != commit.keys():
        raise CanonicalError("size and commit name different fields")
    if isinstance(intent, int) and isinstance(seq, int) and intent >= seq:
        raise CanonicalError("an intent comes before its effect")


def _part_holds(name: str, data: bytes) -> bool:
    """Whether these are the canonical bytes of a value that this member may have."""
    try:
        return _MEMBERS[name](parse_canonical(data))
    except CanonicalError:
        return False


glance: Final = HeaderGlance(_part_holds, MAX_HEADER_BYTES)
