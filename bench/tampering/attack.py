"""The words of the bench: an attack class, one deed of it, and what the public doors said."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from bench.tampering.hands import Hands
from bench.tampering.run_ref import RunRef


class Outcome(StrEnum):
    """How one trial ended."""

    DETECTED = "detected"  # by a detector that the table names for the class
    ELSEWHERE = "elsewhere"  # an alarm, but not by a named detector
    PREVENTED = "prevented"  # the database or the service refused it
    UNDETECTED = "undetected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What an attacker did: whose reads it should break, or who stopped it."""

    runs: tuple[RunRef, ...] = ()
    refused: str | None = None  # a refusal that the attack ran into: counts as D11
    signs: tuple[str, ...] = ()  # detectors that spoke up by themselves, e.g. a receipt's holder
    kept: bool = False  # the client of the runs compares the hashes that it kept
    quiet: str | None = None  # the attack got what it wanted, and no read has to break for it


Act = Callable[[Hands], Awaitable[Deed]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackClass:
    """One row of the table: `acts` are its variants, `needs` the machinery that it attacks."""

    number: int
    title: str
    who: str
    named: frozenset[str]
    acts: tuple[tuple[str, Act], ...]
    needs: frozenset[str] = frozenset()
    # By variant: machinery that it waits for, and detectors besides those of the class where the
    # variant goes further than the table's words and another detector looks first.
    waits: Mapping[str, frozenset[str]] = field(default_factory=dict)
    also: Mapping[str, frozenset[str]] = field(default_factory=dict)
    # A server remembers the longest administration run that it saw, so after an attack that makes
    # one longer only a new process can be asked about the rows as they were.
    own_server: bool = False
    guarded: bool = False  # the deny triggers stay as the migrations left them

    def ready(self, has: frozenset[str]) -> list[tuple[str, Act]]:
        """The variants for which the machinery is there."""
        if not self.needs <= has:
            return []
        return [(name, act) for name, act in self.acts if self.waits.get(name, has) <= has]

    def open(self, has: frozenset[str]) -> list[str]:
        """The variants that wait."""
        ready = {name for name, _ in self.ready(has)}
        return [name for name, _ in self.acts if name not in ready]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one public door said."""

    detector: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One attack and its judgement."""

    number: int
    act: str
    outcome: Outcome
    told: tuple[Told, ...] = field(default_factory=tuple)
    where: str = ""
    # Every layer that objects, those behind the first too: what `ablation.py` counts.
    layers: frozenset[str] = frozenset()
