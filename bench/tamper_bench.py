"""The attack bench: every class of attack on a real ledger, clean controls, blind mutations.

Prints the table and, as its last line, the figures. Exit code 1 when anything stayed undetected or
an honest run was accused. `--full` (or MESHFLOW_PROOF=1) for full counts, which also write
docs/tamper-bench.md.
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path

from bench.paired import report
from bench.tampering import undo, witnessed_campaign
from bench.tampering.attack import Outcome
from bench.tampering.attack_list import classes
from bench.tampering.blind_mutator import Mutations, mutate
from bench.tampering.campaign import Tally, control, run_class
from bench.tampering.judge import Judge
from bench.tampering.own_sequencer import sequencing
from bench.tampering.report import figures, table
from bench.tampering.scene import Scene, erase_some, leave_fresh, populate, scene
from tests.support.databases import Roles, database_server

_BEGAN = time.monotonic()
ROOT = Path(__file__).resolve().parents[1]
RUNS_EACH = {True: 20, False: 3}
PARTS = {True: 4, False: 2}
RIVALS = {True: 16, False: 4}
MUTATIONS = {True: 10_000, False: 40}
ASKED = {True: 100, False: 2}  # runs that a mutation is looked for in


async def bench(
    roles: Roles, second: Roles, seed: int, *, full: bool
) -> tuple[Tally, Mutations, str]:
    """Everything, on two databases at once; the counts, and the table."""
    tally = Tally()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(witnessed_campaign.run_witnessed(second, seed, tally, full=full))
        async with scene(roles, seed, parts=PARTS[full]) as stage:
            async with sequencing(stage):
                await populate(stage, RUNS_EACH[full], 1)
                await erase_some(stage)
            await leave_fresh(stage)
            await undo.install(stage.superuser)
            stage.rivals = RIVALS[full]
            mutations = await _attack(stage, tally, full=full)
            has = stage.has
    return tally, mutations, table(classes(), has, tally)


async def _attack(stage: Scene, tally: Tally, *, full: bool) -> Mutations:
    """The classes that one scene can serve, then blind changes."""
    elsewhere = {row.number for row in witnessed_campaign.rows()}
    here = [one for one in classes() if one.number not in elsewhere]
    judge = Judge(stage)
    try:
        await judge.remember(stage.runs)
        await control(judge, stage.runs, tally)
        shared = [one for one in here if not one.own_server]
        for one in sorted(shared, key=lambda one: not one.guarded):
            await run_class(stage, judge, one, tally, full=full)
            _told(one.title)
        await stage.close_all()
        async with sequencing(stage):
            pass  # until what was still open is sequenced, too
        judge.before.clear()
        await judge.remember(stage.runs)
        mutations = await mutate(stage, judge, MUTATIONS[full], ASKED[full])
        _told("blind changes")
        await control(judge, stage.runs, tally)
        for one in (one for one in here if one.own_server):
            await run_class(stage, judge, one, tally, full=full)
            _told(one.title)
        return mutations
    finally:
        await judge.close()


def _told(what: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.1f} s {what}", file=sys.stderr)


def tell(tally: Tally, mutations: Mutations) -> None:
    """What is wrong, in full: a seed and these lines are enough to see it again."""
    for trial in tally.trials:
        if trial.outcome in {Outcome.UNDETECTED, Outcome.ELSEWHERE}:
            told = "; ".join(f"{said.detector} {said.reason}" for said in trial.told)
            print(f"{trial.outcome}: class {trial.number}, {trial.act}: {trial.where} {told}")
    for line in (*tally.false_alarms, *mutations.undetected):
        print(f"mutation or false alarm: {line}")
    print("changes that no reader notices:", json.dumps(mutations.silent, sort_keys=True))


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", default="MESHFLOW_PROOF" in os.environ)  # noqa: TID251 - the bench reads its own switch
    parser.add_argument("--seed", type=int, default=20260101)
    wanted = parser.parse_args()
    logging.disable(logging.CRITICAL)  # every detected attack would be a line
    with database_server() as server:
        tally, mutations, shown = asyncio.run(
            bench(server.new_database(), server.new_database(), wanted.seed, full=wanted.full)
        )
    print(shown)
    tell(tally, mutations)
    if wanted.full:
        (ROOT / "docs" / "tamper-bench.md").write_text(shown, encoding="utf-8")
    metrics = figures(tally, mutations)
    report("tamper", metrics, {})
    return 1 if metrics["undetected"] or metrics["false_alarms"] else 0


if __name__ == "__main__":
    sys.exit(main())
