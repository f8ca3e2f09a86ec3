"""The policy file: which logs, witnesses and keys a reader trusts (C2SP tlog-policy).

Lines that begin with `#meshflow/v1` are comments to other tools and pin our own keys. What is not
understood is refused, not passed over: a pin that is silently lost would weaken every answer.

Threat: Ledger tampering
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.offline.offline_notes import COSIGNATURE, SIGNATURE, VerifierKey, parse_vkey
from app.offline.strict_json import BrokenError, UnusableError

LONGEST_POLICY = 1_048_576
_MOST_NAMES = 1024
_OURS = b"#meshflow/"
_VERSION = b"#meshflow/v1"
_NONE = b"none"
_CONTROL = bytes({*range(0x20), 0x7F} - {0x09})


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A witness (no members) or a group that needs `least` of its members."""

    least: int
    members: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is pinned."""

    logs: tuple[VerifierKey, ...]
    witnesses: Mapping[bytes, VerifierKey]
    groups: Mapping[bytes, Group]
    quorum: bytes
    enrolment: tuple[bytes, ...]
    erasure: tuple[bytes, ...]

    @property
    def asks_for_witnesses(self) -> bool:
        """False for `quorum none`, with which nothing is ever witnessed."""
        return self.quorum != _NONE

    def is_satisfied(self, public_keys: Iterable[bytes]) -> bool:
        """Whether cosignatures by these keys make up the quorum. `none` is never made up."""
        present = set(public_keys)
        holds = {name: key.public in present for name, key in self.witnesses.items()}
        for name, group in self.groups.items():
            holds[name] = sum(holds[member] for member in group.members) >= group.least
        return holds.get(self.quorum, False)

    def quorum_time(self, stamps: Mapping[bytes, int]) -> int | None:
        """When the quorum was reached, given when each key cosigned; None if it was not."""
        for moment in sorted(set(stamps.values())):
            if self.is_satisfied(key for key, stamp in stamps.items() if stamp <= moment):
                return moment
        return None


class _Reading:
    """What the lines before the present one have said."""

    def __init__(self) -> None:
        self.logs: list[VerifierKey] = []
        self.own_logs: list[VerifierKey] = []
        self.witnesses: dict[bytes, VerifierKey] = {}
        self.groups: dict[bytes, Group] = {}
        self.members: set[bytes] = set()
        self.quorum: bytes | None = None
        self.pinned: dict[bytes, list[bytes]] = {b"enrolment": [], b"erasure": []}

    def log(self, words: list[bytes]) -> None:
        if len(words) not in {2, 3}:
            raise BrokenError("is no log line")
        key = _key(words[1], SIGNATURE)
        if any(other.public == key.public for other in self.logs):
            raise BrokenError("names a log's key a second time")
        self.logs.append(key)

    def witness(self, words: list[bytes]) -> None:
        if len(words) not in {3, 4}:
            raise BrokenError("is no witness line")
        self._new_name(words[1])
        key = _key(words[2], COSIGNATURE)
        if any(other.public == key.public for other in self.witnesses.values()):
            raise BrokenError("names a witness's key a second time")
        self.witnesses[words[1]] = key

    def group(self, words: list[bytes]) -> None:
        if len(words) < 4:  # noqa: PLR2004 - group NAME K MEMBER
            raise BrokenError("is no group line")
        _, name, least, *members = words
        self._new_name(name)
        for member in members:
            if member not in self.witnesses and member not in self.groups:
                raise BrokenError("names a member that no line before it defines")
            if member in self.members:
                raise BrokenError("names a member a second time")
            self.members.add(member)
        self.groups[name] = Group(least=_threshold(least, len(members)), members=tuple(members))

    def take_quorum(self, words: list[bytes]) -> None:
        if len(words) != 2 or self.quorum is not None:  # noqa: PLR2004 - quorum NAME
            raise BrokenError("is not the one quorum line")
        if words[1] != _NONE and words[1] not in self.witnesses and words[1] not in self.groups:
            raise BrokenError("names a quorum that no line before it defines")
        self.quorum = words[1]

    def own(self, words: list[bytes]) -> None:
        if len(words) != 3 or words[0] != _VERSION:  # noqa: PLR2004 - mark, role, vkey
            raise BrokenError("is no line of #meshflow/v1")
        key = _key(words[2], SIGNATURE)
        if words[1] == b"log":
            self.own_logs.append(key)
        elif words[1] in self.pinned:
            self.pinned[words[1]].append(key.public)
        else:
            raise BrokenError("pins a key for a purpose that is not known")

    def has_a_key_of_two_uses(self) -> bool:
        """Whether a key is a log's, a witness's or pinned, and another of these as well."""
        logs = {key.public for key in (*self.logs, *self.own_logs)}
        pinned = [key for keys in self.pinned.values() for key in keys]
        uses = [*logs, *(key.public for key in self.witnesses.values()), *pinned]
        return len(set(uses)) != len(uses)

    def _new_name(self, name: bytes) -> None:
        if name == _NONE or name in self.witnesses or name in self.groups:
            raise BrokenError("defines a name that is taken")
        if len(self.witnesses) + len(self.groups) >= _MOST_NAMES:
            raise BrokenError("is one name too many")


def parse_policy(data: bytes) -> Policy:
    """A policy file. UnusableError names the first line that is not understood."""
    if len(data) > LONGEST_POLICY:
        raise UnusableError("the policy is longer than a policy may be")
    reading = _Reading()
    if not data.endswith(b"\n"):
        # Half a last line may still be a policy, and a weaker one.
        raise UnusableError("the policy's last line does not end")
    for number, line in enumerate(data.split(b"\n"), 1):
        try:
            _take_line(reading, line)
        except BrokenError as error:
            raise UnusableError(f"policy line {number} {error.reason}") from None
    if reading.quorum is None:
        raise UnusableError("the policy has no quorum line")
    if reading.has_a_key_of_two_uses():
        raise UnusableError("the policy has a key of two uses")
    return Policy(
        logs=(*reading.logs, *reading.own_logs),
        witnesses=reading.witnesses,
        groups=reading.groups,
        quorum=reading.quorum,
        enrolment=tuple(reading.pinned[b"enrolment"]),
        erasure=tuple(reading.pinned[b"erasure"]),
    )


def _take_line(reading: _Reading, line: bytes) -> None:
    if any(byte in _CONTROL for byte in line):
        raise BrokenError("holds a control character")
    words = line.replace(b"\t", b" ").split(b" ")
    words = [word for word in words if word]
    match words[0] if words else b"#":
        case b"log":
            reading.log(words)
        case b"witness":
            reading.witness(words)
        case b"group":
            reading.group(words)
        case b"quorum":
            reading.take_quorum(words)
        case word if word.startswith(_OURS):
            reading.own(words)
        case word if word.startswith(b"#"):
            pass
        case _:
            raise BrokenError("is of no known kind")


def _key(word: bytes, algorithm: int) -> VerifierKey:
    try:
        key = parse_vkey(word.decode("utf-8"))
    except UnicodeDecodeError:
        raise BrokenError("names a key that is not UTF-8") from None
    if key.algorithm != algorithm:
        raise BrokenError(f"names a key that is not of type {algorithm:#04x}")
    return key


def _threshold(word: bytes, members: int) -> int:
    if word == b"any":
        return 1
    if word == b"all":
        return members
    least = int(word) if word.isdigit() and len(word) <= 4 else 0  # noqa: PLR2004 - digits
    if not 1 <= least <= members or word.startswith(b"0"):
        raise BrokenError("asks for a number of members that cannot be")
    return least
