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


_NEVER_SEEN = frozenset({8, 11, 27, 28, 42, 47})
_NEVER_KEPT = _NEVER_SEEN | {12, 13, 26}
REMOVALS: tuple[Removal, ...] = (
    Removal(
        name="witness",
        layers=_of("D6", "D10"),
        model="2: rollback fork, freeze",
        lost=_NEVER_SEEN,
        why="The restored snapshot (26) is told by clients here: ours keep the chain hash of every"
        " record that they were shown. Nobody keeps any of the operator log's own records, so two"
        " variants of 8 and 11 on it are lost. Two trees for two readers (27) need a witness to be"
        " told; the model counted them under the log. Not in the model: an export without"
        " cosignatures (42), a wrong clock (47), which is held against the witnesses' times",
    ),
    Removal(
        name="witness and receipts",
        layers=_of("D6", "D10", "D9"),
        model="6: and whole rewrite, truncation, drop before sequencing, re-signed deletion",
        lost=_NEVER_KEPT,
        why="The same four come (8, 11, 12, 13: a variant each at least), and the snapshot (26)."
        " A tenant's log that alone was rewritten or cut stays told: it does not go on as the"
        " operator log's records say",
    ),
    Removal(
        name="witness, receipts and writers' signatures",
        layers=_of("D6", "D10", "D9", "D7"),
        model="7: and forged append",
        lost=_NEVER_KEPT | {15, 36},
        why="Forged appends (15) come, and the record of a retired writer (36), which is one; of"
        " exports (42) signatures, batches and writers",
    ),
    Removal(
        name="receipts",
        layers=_of("D9"),
        model="1: drop before sequencing",
        lost=frozenset({12}),
        why="-",
    ),
    Removal(
        name="Merkle log and checkpoints (and so witnesses)",
        layers=_of("D4", "D5", "D6", "D10"),
        model="6: rollback fork, freeze, split view, wrong-key checkpoint, skip and double",
        lost=_NEVER_SEEN | {29, 30, 34, 35, 36, 37, 41},
        why="All of the model's but the snapshot (26: clients). 34 to 37 and 41 are about proofs,"
        " notes, keys of the log and tiles, and not in the model",
    ),
    Removal(
        name="commitments",
        layers=_of("D3"),
        model="6: every edit and swap of contents",
        lost=frozenset({1, 2, 32, 33, 42}),
        why="The model's are classes 1 and 2 and the added field (32). Ours counts a field that"
        " does not open as D3 too, and 33 and exports (42) are not in the model",
    ),
    Removal(
        name="rules of erasure records",
        layers=_of("D8"),
        model="5: everything that claims to be lawful",
        lost=frozenset({19, 20, 21, 22, 23, 24, 42}),
        why="Deleting the record of an erasure (24) is the sixth; in an export (42) dropped fields"
        " and a dropped erasure record are the same claim",
    ),
    Removal(
        name="columns against headers",
        layers=_of("D2"),
        model="2: column edit, back-dating",
        lost=frozenset({3, 4, 47}),
        why="A wrong clock (47) is not in the model",
    ),
)


_READ_SO = (
    "Which classes would slip through if a layer were not there. Nothing is switched off in the",
    "application: a detection counts as long as a layer that is on objects to the attacked",
    "rows. A door names the first break alone and so hides what is behind it; what else objects",
    "is asked of a second reader, which is written from the format's page and goes on after a",
    "break, of the chain hashes that clients keep, and of all findings of the offline verifier.",
    "A class is listed when a trial of one of its variants is lost. What the database refuses",
    "(D11) and the form of a bundle (D12) stay on, and so does the encryption of contents where",
    "a blob is moved without its key.",
)


def lost(trials: Sequence[Trial], removed: Layers) -> dict[int, list[str]]:
    """The variants of each class that nobody would have told."""
    found: dict[int, set[str]] = {}
    for trial in trials:
        still = [one for one in trial.layers if not removed & set(one.split(" and "))]
        if trial.outcome is Outcome.UNDETECTED or not still:
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
        *_READ_SO,
        "",
        "| layer removed | lost | classes (variants) | the model lost, of 38 | why it differs |",
        "|---|---|---|---|---|",
        *rows,
    ]
