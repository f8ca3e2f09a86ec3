"""Headers as section 3 wants them, and the hashes over records, chains, leaves and fields.

Threat: Ledger tampering
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.offline.offline_merkle import digest, prefixed, tag
from app.offline.strict_json import BrokenError, Json, parse_canonical

FIELD_NAMES: Mapping[int, str] = {
    1: "task",
    2: "request",
    3: "reply",
    4: "call",
    5: "result",
    6: "output",
    7: "features",
    8: "note",
}
_LARGEST_HEADER = 8192
_DEEPEST = 6
_KEY = re.compile(r"[a-z0-9_.]{1,64}")
_ID = re.compile(r"[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_ACTOR = re.compile(r"key:[0-9a-f]{16}|system|model|tool|operator")
_NAME = re.compile(r"[a-zA-Z0-9_.:-]{1,128}")
_CODE = re.compile(r"[a-z0-9_.:-]{1,128}")
_POLICY_ID = re.compile(r"[a-z0-9_.-]{1,64}")
_USAGE = {"cost_micros", "input_tokens", "output_tokens"}
_POLICY = {"id", "ver", "digest", "verdict", "rules"}
_SCRUB = {
    "counts",
    "engine",
    "hmac_key",
    "mode",
    "ms",
    "ner",
    "policy",
    "rules",
    "status",
    "unscanned",
}

Holds = Callable[[Json], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The members of a header that verifying needs; the rest was checked for its form."""

    log: bytes
    run: bytes
    seq: int
    epoch: int
    kind: str
    ts: str
    writer: bytes
    size: Mapping[str, int]
    commit: Mapping[str, bytes]


def _matches(pattern: re.Pattern[str], *, or_null: bool = False) -> Holds:
    def holds(value: Json) -> bool:
        if value is None:
            return or_null
        return isinstance(value, str) and pattern.fullmatch(value) is not None

    return holds


def _counts(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _number_or_null(value: Json) -> bool:
    return value is None or _counts(value)


def _usage(value: Json) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and value.keys() == _USAGE and all(map(_counts, value.values()))


def _policy(value: Json) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or value.keys() != _POLICY:
        return False
    rules = value["rules"]
    return (
        _matches(_POLICY_ID)(value["id"])
        and isinstance(value["ver"], int)
        and not isinstance(value["ver"], bool)
        and _matches(_HASH)(value["digest"])
        and isinstance(value["verdict"], str)
        and isinstance(rules, list)
        and all(isinstance(rule, str) for rule in rules)
    )


def _scrub(value: Json) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or value.keys() != _SCRUB:
        return False
    counts = value["counts"]
    return isinstance(counts, dict) and all(
        isinstance(count, int) and not isinstance(count, bool) for count in counts.values()
    )


def _sizes(value: Json) -> bool:
    return isinstance(value, dict) and all(map(_counts, value.values()))


def _commitments(value: Json) -> bool:
    return isinstance(value, dict) and all(map(_matches(_HASH), value.values()))


_MEMBERS: Mapping[str, Holds] = {
    "v": lambda value: value == 1 and not isinstance(value, bool),
    "log": _matches(_ID),
    "run": _matches(_ID),
    "seq": _counts,
    "epoch": _counts,
    "kind": _matches(_KEY),
    "ts": _matches(_TIME),
    "event_id": _matches(_ID),
    "nonce": _matches(_ID),
    "actor": _matches(_ACTOR),
    "writer": _matches(_ID),
    "intent": _number_or_null,
    "parent": _matches(_ID, or_null=True),
    "policy": _policy,
    "model": _matches(_NAME, or_null=True),
    "engine": _matches(_NAME, or_null=True),
    "tool": _matches(_HASH, or_null=True),
    "usage": _usage,
    "outcome": _matches(_CODE, or_null=True),
    "sandbox": _matches(_CODE, or_null=True),
    "approval": _matches(_ID, or_null=True),
    "scrub": _scrub,
    "size": _sizes,
    "commit": _commitments,
}


def read_header(raw: bytes) -> Header:
    """The header in these bytes. BrokenError if they are none."""
    if len(raw) > _LARGEST_HEADER:
        raise BrokenError("header is larger than 8 KiB")
    try:
        value = parse_canonical(raw)
    except BrokenError as error:
        raise BrokenError(f"header {error.reason}") from None
    if not isinstance(value, dict) or value.keys() != _MEMBERS.keys():
        raise BrokenError("header has not the members of section 3")
    if not _within_profile(value):
        raise BrokenError("header is deeper than 6, or has a key that is none")
    for name, holds in _MEMBERS.items():
        if not holds(value[name]):
            raise BrokenError(f"header member {name} is not what section 3 says")
    return _read(value)


def _read(value: Mapping[str, Json]) -> Header:
    size, commit, seq, epoch = (value[name] for name in ("size", "commit", "seq", "epoch"))
    intent = value["intent"]
    if (
        not isinstance(size, dict)
        or not isinstance(commit, dict)
        or not isinstance(seq, int)
        or not isinstance(epoch, int)
    ):
        raise BrokenError("header is not what section 3 says")
    if size.keys() != commit.keys() or not commit.keys() <= set(FIELD_NAMES.values()):
        raise BrokenError("header names other fields in size than in commit, or unknown ones")
    if isinstance(intent, int) and intent >= seq:
        raise BrokenError("header names an intent that does not come before it")
    return Header(
        log=bytes.fromhex(str(value["log"])),
        run=bytes.fromhex(str(value["run"])),
        seq=seq,
        epoch=epoch,
        kind=str(value["kind"]),
        ts=str(value["ts"]),
        writer=bytes.fromhex(str(value["writer"])),
        size={name: bits for name, bits in size.items() if isinstance(bits, int)},
        commit={name: bytes.fromhex(str(hashed)) for name, hashed in commit.items()},
    )


def _within_profile(value: Json) -> bool:
    """Depth and keys of section 2, level by level."""
    level: list[Json] = [value]
    for _ in range(_DEEPEST):
        below: list[Json] = []
        for item in level:
            if isinstance(item, dict):
                if not all(_KEY.fullmatch(key) for key in item):
                    return False
                below += item.values()
            elif isinstance(item, list):
                below += item
        level = [item for item in below if isinstance(item, dict | list)]
    return not level


def commitment(log: bytes, run: bytes, seq: int, name: str, salt: bytes, value: bytes) -> bytes:
    """C of section 4."""
    place = prefixed(log) + prefixed(run) + seq.to_bytes(8, "big")
    field = prefixed(name.encode("ascii"))
    return digest(tag("field"), place, field, prefixed(salt), prefixed(value))


def check_field(header: Header, name: str, salt: bytes, value: bytes) -> None:
    """BrokenError unless the header commits to this value of this field."""
    made = commitment(header.log, header.run, header.seq, name, salt, value)
    if header.commit.get(name) != made:
        raise BrokenError(f"field {name} is not what the header commits to")
    if header.size[name] != len(value).bit_length():
        raise BrokenError(f"field {name} has another size than the header says")


def record_hash(header: bytes) -> bytes:
    """R of section 5."""
    return digest(tag("record"), prefixed(header))


def genesis(log: bytes, run: bytes) -> bytes:
    """H before the first record."""
    return digest(tag("genesis"), prefixed(log), prefixed(run))


def chain_hash(previous: bytes, seq: int, record: bytes) -> bytes:
    """H of section 5."""
    return digest(tag("chain"), previous, seq.to_bytes(8, "big"), record)


def batch_entry(run: bytes, seq: int, chain: bytes) -> bytes:
    """What a batch's tree has for a record."""
    return run + seq.to_bytes(8, "big") + chain


def batch_message(log: bytes, batch_id: bytes, count: int, tip: bytes) -> bytes:
    """What a writer signs."""
    return tag("batch") + log + batch_id + count.to_bytes(4, "big") + tip


def leaf_data(log: bytes, run: bytes, seq: int, chain: bytes) -> bytes:
    """A record's entry in the log of its tenant."""
    return tag("leaf") + prefixed(log) + prefixed(run) + seq.to_bytes(8, "big") + chain
