"""The attack bench: every class of attack on a real ledger, clean controls, blind mutations.

Prints the table and, as its last line, the figures. Exit code 1 when anything stayed undetected or
an honest run was accused. `--full` (or MESHFLOW_PROOF=1) for full counts, which also write
docs/tamper-bench.md.
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path

from bench.tampering import witnessed_campaign
from bench.tampering.attack import Outcome
from bench.tampering.attack_list import classes
from bench.tampering.blind_mutator import Mutations, mutate
from bench.tampering.campaign import Tally, control, run_class
from bench.tampering.judge import Judge
from bench.tampering.report import figures, machine, table
from bench.tampering.scene import scene
from tests.support.databases import Roles, database_server

ROOT = Path(__file__).resolve().parents[1]
RUNS_EACH = {True: 20, False: 3}
RIVALS = {True: 16, False: 4}
MUTATIONS = {True: 10_000, False: 200}


async def bench(
    roles: Roles, second: Roles, seed: int, *, full: bool
) -> tuple[Tally, Mutations, str]:
    """Everything, on two databases; the counts, and the table."""
    tally, numbered = Tally(), classes()
    async with scene(roles, seed, runs_each=RUNS_EACH[full]) as stage:
        stage.rivals = RIVALS[full]
        judge = Judge(stage)
        try:
            await judge.remember(stage.runs)
            await control(judge, stage.runs, tally)
            elsewhere = {row.number for row in witnessed_campaign.rows()}
            for one in sorted(numbered, key=lambda one: not one.guarded):
                if one.number not in elsewhere:
                    await run_class(stage, judge, one, tally, full=full)
                    print(f"{one.number:3} {one.title}", file=sys.stderr)
            await stage.close_all()
            await judge.remember(stage.runs)
            mutations = await mutate(stage, judge, MUTATIONS[full])
            await control(judge, stage.runs, tally)
        finally:
            await judge.close()
        has = stage.has
    await witnessed_campaign.run_witnessed(second, seed, tally, has, full=full)
    return tally, mutations, table(numbered, has, tally)


def tell(tally: Tally, mutations: Mutations) -> None:
    """What is wrong, in full: a seed and these lines are enough to see it again."""
    for trial in tally.trials:
        if trial.outcome in {Outcome.UNDETECTED, Outcome.ELSEWHERE}:
            told = "; ".join(f"{said.detector} {said.reason}" for said in trial.told)
            print(f"{trial.outcome}: class {trial.number}, {trial.act}: {trial.where} {told}")
    for line in (*tally.false_alarms, *mutations.undetected, *mutations.gone):
        print(f"mutation or false alarm: {line}")
    print("changes that no reader notices:", json.dumps(mutations.silent, sort_keys=True))


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", default="MESHFLOW_PROOF" in os.environ)  # noqa: TID251 - the bench reads its own switch
    parser.add_argument("--seed", type=int, default=20260101)
    wanted = parser.parse_args()
    with database_server() as server:
        tally, mutations, shown = asyncio.run(
            bench(server.new_database(), server.new_database(), wanted.seed, full=wanted.full)
        )
    print(shown)
    tell(tally, mutations)
    if wanted.full:
        (ROOT / "docs" / "tamper-bench.md").write_text(shown, encoding="utf-8")
    metrics = figures(tally, mutations)
    print(json.dumps({"bench": "tamper", "metrics": metrics, "machine": machine()}))
    return 1 if metrics["undetected"] or metrics["false_alarms"] else 0


if __name__ == "__main__":
    sys.exit(main())
