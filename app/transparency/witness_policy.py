"""The trust policy of a verifier: which logs, which witnesses, how many of them must agree.

A line `#meshflow/v1 enrolment <vkey>` or `#meshflow/v1 erasure <vkey>` is a comment to other
readers and names a key to MeshFlow; `#meshflow/v1 log <vkey>` means the same as `log <vkey>` and
may name a log's key again, under another origin. No other comment may start with `#meshflow/`.

Source: C2SP tlog-policy; docs/ledger-format.md section 11.

Threat: Ledger tampering
"""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from app.transparency.note import COSIGNATURE, ED25519, NoteError, VerifierKey

MAX_POLICY_BYTES = 64 * 1024
NO_QUORUM = "none"
_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_SPACE = re.compile(r"[ \t]+")
_THRESHOLD = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_OWN = "#meshflow/"
_OWN_FIRST = "#meshflow/v1"


class WitnessPolicyError(ValueError):
    """The policy file breaks a rule; nothing of it may be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyLog:
    """A log whose checkpoints are believed; its key's name is the origin."""

    key: VerifierKey
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWitness:
    """A witness under the name that only this file uses for it."""

    name: str
    key: VerifierKey
    url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGroup:
    """Has witnessed what at least `threshold` of its members have witnessed."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessPolicy:
    """A policy that `parse_policy` accepted. Groups are in the order of their lines."""

    logs: tuple[PolicyLog, ...]
    witnesses: tuple[PolicyWitness, ...]
    groups: tuple[PolicyGroup, ...]
    quorum: str
    enrolment_keys: tuple[VerifierKey, ...]
    erasure_keys: tuple[VerifierKey, ...]

    def satisfied(self, cosigners: Collection[str]) -> bool:
        """Whether these witnesses, by their names in this file, are enough.

        A name that is no witness counts for nothing, a group's name too.
        """
        if self.quorum == NO_QUORUM:
            return True
        agreed = {witness.name for witness in self.witnesses} & set(cosigners)
        # A group names only what stands before it, so one pass is enough.
        for group in self.groups:
            if len(agreed.intersection(group.members)) >= group.threshold:
                agreed.add(group.name)
        return self.quorum in agreed


def parse_policy(data: bytes) -> WitnessPolicy:
    """The policy of a file. WitnessPolicyError, with the line's number, if it breaks any rule."""
    if len(data) > MAX_POLICY_BYTES:
        raise WitnessPolicyError("longer than 64 KiB")
    if _FORBIDDEN.search(data):
        raise WitnessPolicyError("a control character")
    # Half a last line may still be a policy, and a weaker one.
    if not data.endswith(b"\n"):
        raise WitnessPolicyError("the last line has no end")
    draft = _Draft()
    # Names are octets: what is not UTF-8 goes through one to one.
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            draft.add(line.strip(" \t"))
        except (WitnessPolicyError, NoteError) as error:
            raise WitnessPolicyError(f"line {number}: {error}") from error
    return draft.finished()


@dataclass(slots=True)
class _Draft:
    """What the lines so far have said."""

    logs: list[PolicyLog] = field(default_factory=list)
    witnesses: list[PolicyWitness] = field(default_factory=list)
    groups: list[PolicyGroup] = field(default_factory=list)
    own: dict[str, list[VerifierKey]] = field(
        default_factory=lambda: {"enrolment": [], "erasure": [], "log": []}
    )
    quorum: str | None = None
    names: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)

    def add(self, line: str) -> None:
        """Take in one line, stripped."""
        if line.startswith(_OWN):
            self._own_key(_SPACE.split(line))
        elif line and not line.startswith("#"):
            word, *items = _SPACE.split(line)
            kinds: dict[str, Callable[[Sequence[str]], None]] = {
                "log": self._log,
                "witness": self._witness,
                "group": self._group,
                "quorum": self._quorum,
            }
            if word not in kinds:
                raise WitnessPolicyError("an unknown kind of line")
            kinds[word](items)

    def finished(self) -> WitnessPolicy:
        """The policy of all lines."""
        if self.quorum is None:
            raise WitnessPolicyError("no quorum line")
        more = [PolicyLog(key=key, url=None) for key in self.own["log"]]
        logs = {key.public_key for key in (*self.own["log"], *(log.key for log in self.logs))}
        own = [key.public_key for use in ("enrolment", "erasure") for key in self.own[use]]
        # A log may stand there under several origins; no other key may stand there twice.
        _refuse_twice([*logs, *own, *(witness.key.public_key for witness in self.witnesses)])
        return WitnessPolicy(
            logs=(*self.logs, *more),
            witnesses=tuple(self.witnesses),
            groups=tuple(self.groups),
            quorum=self.quorum,
            enrolment_keys=tuple(self.own["enrolment"]),
            erasure_keys=tuple(self.own["erasure"]),
        )

    def _log(self, items: Sequence[str]) -> None:
        vkey, url = _with_url(items, 1)
        self.logs.append(PolicyLog(key=_key(vkey[0], ED25519), url=url))
        _refuse_twice([log.key.public_key for log in self.logs])

    def _witness(self, items: Sequence[str]) -> None:
        (name, vkey), url = _with_url(items, 2)
        self._define(name)
        self.witnesses.append(PolicyWitness(name=name, key=_key(vkey, COSIGNATURE), url=url))
        _refuse_twice([witness.key.public_key for witness in self.witnesses])

    def _group(self, items: Sequence[str]) -> None:
        if len(items) < 3:  # noqa: PLR2004 - a name, a threshold and a member
            raise WitnessPolicyError("a group has a name, a threshold and members")
        name, threshold, *members = items
        for member in members:
            self._check_defined(member)
            if member in self.members:
                raise WitnessPolicyError("a name is a member for the second time")
            self.members.add(member)
        self._define(name)
        needed = _threshold(threshold, len(members))
        self.groups.append(PolicyGroup(name=name, threshold=needed, members=tuple(members)))

    def _quorum(self, items: Sequence[str]) -> None:
        if self.quorum is not None:
            raise WitnessPolicyError("a second quorum line")
        if len(items) != 1:
            raise WitnessPolicyError("a quorum is one name")
        if items[0] != NO_QUORUM:
            self._check_defined(items[0])
        self.quorum = items[0]

    def _own_key(self, items: Sequence[str]) -> None:
        if len(items) != 3 or items[0] != _OWN_FIRST or items[1] not in self.own:  # noqa: PLR2004 - mark, use, key
            raise WitnessPolicyError("an unknown line of MeshFlow's own")
        self.own[items[1]].append(_key(items[2], ED25519))

    def _define(self, name: str) -> None:
        if name == NO_QUORUM or name in self.names:
            raise WitnessPolicyError("a name is taken")
        self.names.add(name)

    def _check_defined(self, name: str) -> None:
        if name not in self.names:
            raise WitnessPolicyError("a name that no line before defines")


def _with_url(items: Sequence[str], count: int) -> tuple[Sequence[str], str | None]:
    if len(items) not in {count, count + 1}:
        raise WitnessPolicyError("too few words, or too many")
    return items[:count], items[count] if len(items) > count else None


def _key(vkey: str, algorithm: int) -> VerifierKey:
    key = VerifierKey.parse(vkey)
    if key.algorithm != algorithm:
        raise WitnessPolicyError("a key of the wrong signature type")
    return key


def _threshold(word: str, count: int) -> int:
    if word == "any":
        return 1
    if word == "all":
        return count
    if _THRESHOLD.fullmatch(word) is None or int(word) > count:
        raise WitnessPolicyError("a threshold from 1 to the number of members")
    return int(word)


def _refuse_twice(public_keys: Sequence[bytes]) -> None:
    # The key counts, not its name or key id: one holder must not sign as two.
    if len(set(public_keys)) != len(public_keys):
        raise WitnessPolicyError("a public key for the second time")
