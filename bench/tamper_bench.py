"""The attack bench: every class of attack on a real ledger, clean controls, blind mutations.

Prints the page and, as its last line, the figures. Exit code 1 when anything stayed undetected or
an honest run was accused. `--full` (or MESHFLOW_PROOF=1) for full counts, which also write
docs/tamper-bench.md.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.paired import report
from bench.tampering.attack import Outcome
from bench.tampering.blind_mutator import Mutations
from bench.tampering.campaign import Tally
from bench.tampering.parts import PARTS, RUNS_EACH, Order, Part, names, work
from bench.tampering.report import figures, page
from bench.tampering.scene import TENANTS
from tests.support.databases import DatabaseServer
from tests.support.other_account import other_account

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which parts, how many at a time, and where finished ones are kept; all, in any order."""

    only: Sequence[str] = ()
    workers: int = os.cpu_count() or 1
    keep: Path | None = None
    until: float | None = None
    is_over: bool = False  # only what is kept is put together


ALL = Wanted()


def bench(server: DatabaseServer | None, seed: int, *, full: bool, wanted: Wanted = ALL) -> Part:
    """The parts' figures together; without a server each part starts one of its own."""
    orders = [
        Order(
            name=name,
            share=share,
            roles=None if server is None else server.new_database(),
            seed=seed + place,
            full=full,
            kept=wanted.keep,
            until=wanted.until,
        )
        for place, (name, share) in enumerate(names(full=full))
        if not wanted.only or name in wanted.only
    ]
    if wanted.is_over:
        orders = [order for order in orders if order.file is not None and order.file.exists()]
    whole = Part()
    fresh = multiprocessing.get_context("spawn")  # nothing of this process's threads and sockets
    with ProcessPoolExecutor(wanted.workers, mp_context=fresh) as pool:
        started = [pool.submit(work, order) for order in orders]
        wait(started)  # the others go on though one fails: what they found is kept
        for part in (one.result() for one in started):
            whole.tally.add(part.tally)
            whole.mutations.add(part.mutations)
            whole.has |= part.has
            whole.seconds += part.seconds
    return whole


def how_it_was_made(seconds: float, seed: int, *, full: bool) -> str:
    """The counts' surroundings, in words."""
    account = other_account()
    witness = (
        f"The witness ran as a user of its own (uid {account}), its key and memory closed to the"
        " database's account and superuser, which was tried."
        if account is not None
        else "The witness was another process under the same user: the bench did not run as root."
    )
    runs = f"{len(TENANTS)} tenants with {RUNS_EACH[full]} runs each"
    records = "53 records a run" if PARTS[full] == 4 else "fewer than 50 records a run"
    return (
        f"Run of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: {os.cpu_count()} CPUs"
        f" ({platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}),"
        f" its parts took {seconds / 60:.0f} minutes together, seed {seed}, load average at the end"
        f" {os.getloadavg()[0]:.1f}; {runs} besides those"
        f" of the witnessed deployments, {records}. {witness}"
    )


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
    parser.add_argument("--only", action="append", default=[], help="a part; writes no page")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="where finished parts are kept for another run")
    parser.add_argument("--minutes", type=float, help="begin no further round after so many")
    parser.add_argument("--finished", action="store_true", help="only put together what is kept")
    wanted = parser.parse_args()
    if wanted.keep is not None:
        wanted.keep.mkdir(parents=True, exist_ok=True)  # not found out when the first part is done
    how_many = Wanted(
        only=wanted.only,
        workers=wanted.workers,
        keep=wanted.keep,
        until=None if wanted.minutes is None else time.time() + 60 * wanted.minutes,
        is_over=wanted.finished,
    )
    found = bench(None, wanted.seed, full=wanted.full, wanted=how_many)
    how = how_it_was_made(found.seconds, wanted.seed, full=wanted.full)
    how += " Put together from parts of several runs." if wanted.finished else ""
    shown = page(found.tally, found.mutations, found.has, how=how)
    print(shown)
    tell(found.tally, found.mutations)
    if wanted.full and not wanted.only:
        (ROOT / "docs" / "tamper-bench.md").write_text(shown, encoding="utf-8")
    metrics = figures(found.tally, found.mutations)
    report("tamper", metrics, {})
    return 1 if metrics["undetected"] or metrics["false_alarms"] else 0


if __name__ == "__main__":
    sys.exit(main())
