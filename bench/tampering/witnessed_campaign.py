"""Runs the classes that need a sequencer and a witness, and honest restarts between them."""

import math
import sys
import tempfile
from pathlib import Path
from random import Random  # noqa: TID251 - seeded positions

from bench.tampering.attack import AttackClass, Deed, Outcome
from bench.tampering.campaign import FULL_TRIALS, LEAST_A_VARIANT, Tally
from bench.tampering.hands import Hands
from bench.tampering.history_attacks import CLASSES as HISTORIES
from bench.tampering.history_attacks import CONTROL, history_trial
from bench.tampering.note_attacks import CLASSES as NOTES
from bench.tampering.note_attacks import Word, note_trial
from bench.tampering.scene import MISSING
from bench.tampering.witnessed import Deployment, copied, cosigned, witnessed
from tests.support.databases import Roles, connect
from tests.support.witness_process import witness_process

RESTARTS = {True: 20, False: 1}
RUNS_EACH = {True: 4, False: 1}
_D4_D6 = frozenset({"D4", "D6"})


async def _elsewhere(_attacker: Hands) -> Deed:
    raise AssertionError("this class is run by its own campaign")


def rows() -> list[AttackClass]:
    """The classes as rows of the table."""
    histories = [
        AttackClass(
            number=one.number,
            title=one.title,
            who=one.who,
            named=_D4_D6 if one.number == 13 else frozenset({"D6"}),
            acts=tuple((name, _elsewhere) for name, _ in one.acts),
            waits={name: frozenset({"continuity"}) for name in one.waits},
            needs=frozenset({"log"}),
        )
        for one in HISTORIES
    ]
    notes = [
        AttackClass(
            number=one.number,
            title=one.title,
            who=one.who,
            named=frozenset({one.named}),
            acts=tuple((name, _elsewhere) for name, _ in one.acts),
            needs=frozenset({"log"}),
        )
        for one in NOTES
    ]
    return [*histories, *notes]


def _each(count: int, *, full: bool) -> int:
    return max(math.ceil(FULL_TRIALS / count), LEAST_A_VARIANT) if full else 1


async def run_witnessed(roles: Roles, seed: int, tally: Tally, *, full: bool) -> None:
    """Everything that needs the witness; restarts that nobody attacked are controls."""
    with tempfile.TemporaryDirectory(prefix="mf-witnessed-") as made:
        async with witnessed(
            roles, Path(made), Random(seed), runs_each=RUNS_EACH[full]
        ) as deployment:
            await _notes(deployment, tally, full=full)
            for one in HISTORIES:
                print(f"witnessed: {one.title}", file=sys.stderr)
                waits = one.waits if "continuity" in MISSING else frozenset()
                acts = [(name, do) for name, do in one.acts if name not in waits]
                chosen = acts * _each(len(acts), full=True) if full else (acts * 2)[:2]
                for name, do in chosen:
                    tally.trials.append(await history_trial(deployment, one, name, do))
            for _ in range(RESTARTS[full]):
                name, do = CONTROL.acts[0]
                trial = await history_trial(deployment, CONTROL, name, do)
                tally.controls += 1
                if trial.outcome is not Outcome.UNDETECTED:
                    tally.false_alarms.append(f"after a restart: {trial.told}")


async def _notes(deployment: Deployment, tally: Tally, *, full: bool) -> None:
    """The classes about notes, at the door of a witness that remembers the operator log."""
    assert deployment.late is not None
    async with copied(deployment, deployment.late, deployment.late) as (copy, files):
        sql = await connect(copy.superuser)
        row = await sql.fetchrow(
            "SELECT size, root FROM checkpoint WHERE tenant_id = $1 AND size = $2",
            deployment.operator,
            await cosigned(sql),
        )
        await sql.close()
        word = Word(
            origin=deployment.origin,
            size=row["size"],
            root=row["root"],
            seed=deployment.log_seed,
        )
        with witness_process(files, [deployment.watched]) as witness:
            for one in NOTES:
                for name, do in one.acts:
                    for _ in range(_each(len(one.acts), full=full)):
                        trial = await note_trial(deployment, witness, word, one, name, do)
                        tally.trials.append(trial)
