"""What would slip through if a layer were not there: the bench's second table.

Nothing is switched off in the application. A detection counts as long as a layer that is on objects
to the attacked rows. Doors name the first break alone; what else objects is asked of the second
reader (`second_reader.py`), of the receipts that clients keep, and of every finding of the offline
verifier. A trial is lost without some layers when nothing else objected to it; a class is lost when
one of its trials is. What a database right prevents (D11) and what the form of a bundle or the
reader's pinned keys tell (D12) stays on.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.tampering.attack import Outcome, Trial

Layers = frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """Layers that are taken away together; `lost`: the classes that then slip through."""

    name: str
    layers: Layers
    model: str  # what the design's model lost, of its 38 attacks
    lost: frozenset[int]
    why: str


def _of(*names: str) -> Layers:
    return frozenset(names)


REMOVALS: tuple[Removal, ...] = (
    Removal(
        name="witness",
        layers=_of("D6", "D10"),
        model="2: rollback fork, freeze",
        lost=frozenset(),
        why="",
    ),
    Removal(
        name="witness and receipts",
        layers=_of("D6", "D10", "D9"),
        model="6: and whole rewrite, truncation, drop before sequencing, re-signed deletion",
        lost=frozenset(),
        why="",
    ),
    Removal(
        name="witness, receipts and writers' signatures",
        layers=_of("D6", "D10", "D9", "D7"),
        model="7: and forged append",
        lost=frozenset(),
        why="",
    ),
    Removal(
        name="receipts",
        layers=_of("D9"),
        model="1: drop before sequencing",
        lost=frozenset(),
        why="",
    ),
    Removal(
        name="Merkle log and checkpoints (and so witnesses)",
        layers=_of("D4", "D5", "D6", "D10"),
        model="6: rollback fork, freeze, split view, wrong-key checkpoint, sequencer skip and double",
        lost=frozenset(),
        why="",
    ),
    Removal(
        name="commitments",
        layers=_of("D3"),
        model="6: every edit and swap of contents",
        lost=frozenset(),
        why="",
    ),
    Removal(
        name="rules of erasure records",
        layers=_of("D8"),
        model="5: everything that claims to be lawful",
        lost=frozenset(),
        why="",
    ),
    Removal(
        name="columns against headers",
        layers=_of("D2"),
        model="2: column edit, back-dating",
        lost=frozenset(),
        why="",
    ),
)


def lost(trials: Sequence[Trial], removed: Layers) -> dict[int, list[str]]:
    """The variants of each class that nobody would have told."""
    found: dict[int, set[str]] = {}
    for trial in trials:
        if trial.outcome is Outcome.UNDETECTED or not trial.layers - removed:
            found.setdefault(trial.number, set()).add(trial.act)
    return {number: sorted(acts) for number, acts in sorted(found.items())}


def without_layers(trials: Sequence[Trial]) -> list[str]:
    """The table, in Markdown."""
    rows = []
    for one in REMOVALS:
        found = lost(trials, one.layers)
        shown = "; ".join(f"{number} ({', '.join(acts)})" for number, acts in found.items())
        rows.append(f"| {one.name} | {len(found)} | {shown} | {one.model} | {one.why} |")
    return [
        "| layer removed | classes lost | which (variants) | the design's model of 38 | why it differs |",
        "|---|---|---|---|---|",
        *rows,
    ]
