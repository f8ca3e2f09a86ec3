"""The table of the bench, in Markdown, and the line of figures."""

from collections import Counter

from bench.tampering.ablation import without_layers
from bench.tampering.attack import AttackClass, Outcome
from bench.tampering.attack_list import COUNT, NOT_OFFERED, classes
from bench.tampering.blind_mutator import FULL_MUTATIONS, Mutations
from bench.tampering.campaign import FULL_TRIALS, Tally
from bench.tampering.scene import MISSING

_HEAD = """# The attack bench

Written by `make bench-tamper ARGS=--full`; attacks, controls and this page are made by
`bench/tampering/`. The classes are those of the ledger's design, by its numbers. Each attack is
made on the rows of a real server's database, on a real export or at a real witness's door, as
the role named: A1 the application's login, A2 the database's superuser, A3 also its writers'
and enrolment keys, A4 also the log key, A5 also the erasure key. Only public doors judge: the
HTTP API, `/readyz`, `meshflow verify-bundle` and a witness's answers.

Detectors: D1 chain and form of headers, D2 columns against headers and records, D3 commitments
of contents, D4 places, tiles and proofs of the log, D5 signatures of checkpoints and notes, D6
witnesses, D7 writers' signatures, D8 erasure records, D9 the chain hashes that clients keep,
D10 the age of the witnessed state, D11 refused by the database, D12 the offline verifier.
*Detected* is by a detector that the class (or the variant) names, *elsewhere* by another.
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
)


def page(tally: Tally, mutations: Mutations, has: frozenset[str], *, how: str) -> str:
    """The whole document."""
    return "\n".join(
        (
            _HEAD,
            how,
            *_short(tally, mutations),
            "",
            "## Attacks",
            "",
            *_table(classes(), has, tally),
            "",
            "## Without a layer",
            "",
            *without_layers(tally.trials),
            "",
            "## Blind changes",
            "",
            *_blind(mutations),
            "",
            "## Clean controls",
            "",
            *_controls(tally),
            "",
        )
    )


def _short(tally: Tally, mutations: Mutations) -> list[str]:
    """In which the run is short of the full counts; nothing when it is not."""
    counts = Counter(trial.number for trial in tally.trials)
    few = sorted(number for number, count in counts.items() if count < FULL_TRIALS)
    if not few and mutations.made >= FULL_MUTATIONS:
        return []
    told = (
        f"This run was cut short: classes with fewer than {FULL_TRIALS} trials:"
        f" {', '.join(map(str, few)) or 'none'}; blind changes: {mutations.made} of"
        f" {FULL_MUTATIONS}."
    )
    return ["", told]


def _table(attacks: list[AttackClass], has: frozenset[str], tally: Tally) -> list[str]:
    rows = {
        number: f"| {number} | {title} | | | | | | | | not offered |"
        for number, title in NOT_OFFERED.items()
    }
    rows |= {one.number: _row(one, has, tally) for one in attacks}
    assert len(rows) == COUNT
    head = ["| " + " | ".join(_COLUMNS) + " |", "|---" * len(_COLUMNS) + "|"]
    return [*head, *(rows[number] for number in sorted(rows))]


def _blind(found: Mutations) -> list[str]:
    silent = sorted(found.silent.items(), key=lambda item: (-item[1], item[0]))[:20]
    shown = "; ".join(f"{name} {count}" for name, count in silent)
    told = (
        f"{found.made} random changes of cells and rows by a program that knows the schema from"
        " `information_schema` and nothing else. After each, every run that the changed rows name"
        " and three others were read again and compared with what they said before:"
        f" {found.looked_at} runs in all. {found.detected} changes were told, {found.harmless}"
        f" changed no answer, {found.degraded} took away an output that is kept for a while, which"
        f" the answer says, and **{len(found.undetected)}** changed an answer that was believed."
        f" The database refused {found.refused} more."
    )
    hidden = (
        f"{len(found.withheld)} times a run was answered 404 by every door, as if it had never"
        " been: its tenant's row had another name or id when the server looked. Whoever kept a hash"
        " of the run or a checkpoint of its log knows better; the server does not say so."
    )
    return [told, "", hidden, "", f"Changes that changed no answer, the twenty commonest: {shown}."]


def _controls(tally: Tally) -> list[str]:
    rows = [f"| {name} | {count} |" for name, count in sorted(tally.controls.items())]
    told = (
        f"{tally.controls.total()} clean reads of honest runs, proofs, exports and restarts: each"
        " has to be valid and to say what it said before. False alarms:"
        f" **{len(tally.false_alarms)}**."
    )
    return [told, "", "| what happened before | controls |", "|---|---|", *rows]


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
    ]
    waiting = _waiting(one, has)
    if waiting:
        cells[-1] += f"; open: {', '.join(waiting)}"
    order = [0, 1, 2, 3, 4, 5, 7, 6, 8, 9]
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
        "controls": tally.controls.total(),
        "false_alarms": len(tally.false_alarms),
        "mutations": mutations.made,
        "mutations_detected": mutations.detected,
        "mutations_harmless": mutations.harmless,
        "mutations_degraded": mutations.degraded,
        "mutations_withheld": len(mutations.withheld),
    }
