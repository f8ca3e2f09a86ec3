"""The table of the bench, in Markdown, and the line of figures."""

from collections import Counter

from bench.tampering.attack import AttackClass, Outcome
from bench.tampering.attack_list import COUNT, NOT_OFFERED, OPEN
from bench.tampering.blind_mutator import Mutations
from bench.tampering.campaign import Tally
from bench.tampering.scene import MISSING

_HEAD = """# The attack bench

Written by `make bench-tamper ARGS=--full`. Attacks are made on the tables of a real server's
database as the role named; only public doors judge. What is in each class, and what the detectors
D1 to D12 are: `bench/tampering/`. *Elsewhere* counts alarms by a detector that the class does not
name; *open* are variants whose machinery is not there.
"""
_COLUMNS = (
    "#",
    "attack",
    "who",
    "detector",
    "trials",
    "detected",
    "prevented",
    "elsewhere",
    "undetected",
    "told by",
    "open",
)


def table(classes: list[AttackClass], has: frozenset[str], tally: Tally) -> str:
    rows = {
        number: f"| {number} | {title} | | | 0 | | | | | | all |" for number, title in OPEN.items()
    }
    rows |= {
        number: f"| {number} | {title} | | | | | | | | | not offered |"
        for number, title in NOT_OFFERED.items()
    }
    rows |= {one.number: _row(one, has, tally) for one in classes}
    assert len(rows) == COUNT
    head = ["", "| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    return _HEAD + "\n".join([*head, *(rows[number] for number in sorted(rows))]) + "\n"


def _row(one: AttackClass, has: frozenset[str], tally: Tally) -> str:
    trials = [trial for trial in tally.trials if trial.number == one.number]
    counts = Counter(trial.outcome for trial in trials)
    told = Counter(said.detector for trial in trials for said in trial.told)
    cells = [
        str(one.number),
        one.title,
        one.who,
        " ".join(sorted(one.named, key=lambda name: int(name[1:]))),
        str(len(trials)),
        *(str(counts[outcome]) for outcome in Outcome if outcome is not Outcome.UNDETECTED),
        str(counts[Outcome.UNDETECTED]),
        ", ".join(f"{name} {count}" for name, count in sorted(told.items())),
        ", ".join(_waiting(one, has)) or "-",
    ]
    order = [0, 1, 2, 3, 4, 5, 7, 6, 8, 9, 10]
    return "| " + " | ".join(cells[place] for place in order) + " |"


def _waiting(one: AttackClass, has: frozenset[str]) -> list[str]:
    """The variants that wait, and the number of the finding each waits for."""
    found = []
    for name in one.open(has):
        numbers = sorted(MISSING[need] for need in one.waits.get(name, ()) if need in MISSING)
        found.append(f"{name} ({', '.join(numbers)})" if numbers else name)
    return found


def figures(tally: Tally, mutations: Mutations) -> dict[str, float]:
    """What the JSON line holds; the names are the issue's."""
    return {
        "attack_classes": len({trial.number for trial in tally.trials}),
        "trials": len(tally.trials),
        "undetected": tally.count(Outcome.UNDETECTED) + len(mutations.undetected),
        "elsewhere": tally.count(Outcome.ELSEWHERE),
        "controls": tally.controls,
        "false_alarms": len(tally.false_alarms),
        "mutations": mutations.made,
        "mutations_detected": mutations.detected,
        "mutations_harmless": mutations.harmless,
        "mutations_degraded": mutations.degraded,
    }
