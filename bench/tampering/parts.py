"""The bench in parts, each on a database and in a process of its own: together they use all cores.

A part is named, seeded and gives back its figures; what it found can be had again with `--only`.
"""

import asyncio
import logging
import pickle
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251 - seeded positions

from bench.tampering import undo
from bench.tampering.attack import AttackClass
from bench.tampering.attack_list import classes
from bench.tampering.blind_mutator import FULL_MUTATIONS, Mutations, Task, mutate
from bench.tampering.campaign import Tally, control, run_classes, told
from bench.tampering.judge import Judge
from bench.tampering.own_sequencer import sequencing
from bench.tampering.scene import Scene, erase_some, leave_fresh, populate, scene
from bench.tampering.upheavals import upheave
from bench.tampering.witnessed import witnessed
from bench.tampering.witnessed_campaign import rows, run_histories, run_rotated
from tests.support.databases import Roles, database_server

RUNS_EACH = {True: 20, False: 3}
PARTS = {True: 4, False: 2}
RIVALS = {True: 16, False: 4}
WITNESSED_RUNS_EACH = {True: 4, False: 1}
MUTATIONS = {True: FULL_MUTATIONS, False: 40}
SHARES = {True: 2, False: 1}  # of the attacks, and of the histories
MUTATORS = {True: 8, False: 1}
ASKED = 3  # runs, beside those that a mutation names, that are looked at


@dataclass(slots=True, kw_only=True)
class Part:
    """What a part came to."""

    tally: Tally = field(default_factory=Tally)
    mutations: Mutations = field(default_factory=Mutations)
    has: frozenset[str] = frozenset()
    seconds: float = 0.0  # that it took


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a part is told."""

    name: str
    roles: Roles | None  # None: a database server of its own
    seed: int
    full: bool
    share: int = 0  # which share of its classes
    kept: Path | None = None  # where a finished part is written down, and taken from
    until: float | None = None  # when no further round begins, as of `time.time`

    @property
    def file(self) -> Path | None:
        """What a finished part is written into."""
        return None if self.kept is None else self.kept / f"{self.name}.{self.share}.{self.seed}"


async def _attacks(order: Order, roles: Roles, part: Part) -> None:
    """The classes that one scene without a witness can serve."""
    full = order.full
    async with scene(roles, order.seed, parts=PARTS[full]) as stage:
        judge = await _settled(stage, full=full)
        part.has = stage.has
        here = [one for one in _here() if not one.own_server]
        stage.rivals = RIVALS[full]
        try:
            await control(judge, stage.runs, part.tally)
            wanted = here[order.share :: SHARES[full]]
            await run_classes(stage, judge, wanted, part.tally, full=full)
        finally:
            await judge.close()


def _here() -> list[AttackClass]:
    """The classes that need no witness."""
    elsewhere = {row.number for row in rows()}
    return [one for one in classes() if one.number not in elsewhere]


async def _servers(order: Order, roles: Roles, part: Part) -> None:
    """Those of them that are judged by a server that is started for each attack."""
    async with scene(roles, order.seed, parts=PARTS[order.full]) as stage:
        judge = await _settled(stage, full=False)
        try:
            await _closed(stage, judge)
            await control(judge, stage.runs, part.tally)
            here = [one for one in _here() if one.own_server]
            await run_classes(stage, judge, here, part.tally, full=order.full)
        finally:
            await judge.close()


async def _closed(stage: Scene, judge: Judge) -> None:
    """Nothing is open any more, everything is sequenced, and that is how it was before."""
    await stage.close_all()
    async with sequencing(stage):
        pass
    judge.before.clear()
    await judge.remember(stage.runs)


async def _settled(stage: Scene, *, full: bool) -> Judge:
    """Runs of all tenants, some erased, the last ones open; all of them read once."""
    async with sequencing(stage):
        await populate(stage, RUNS_EACH[full], 1)
        await erase_some(stage)
    await leave_fresh(stage)
    await undo.install(stage.superuser)
    judge = Judge(stage)
    await judge.remember(stage.runs)
    return judge


async def _mutations(order: Order, roles: Roles, part: Part) -> None:
    """Blind changes, on a scene of their own."""
    full = order.full
    if part.tally.is_over:
        return
    async with scene(roles, order.seed, parts=PARTS[full]) as stage:
        judge = await _settled(stage, full=full)
        try:
            await _closed(stage, judge)
            count = MUTATIONS[full] // MUTATORS[full]
            part.mutations = await mutate(
                stage, judge, Task(count=count, others=ASKED, until=order.until)
            )
            await undo.set_guards(stage.superuser, on=True)
            await control(judge, stage.runs, part.tally)
        finally:
            await judge.close()


async def _histories(order: Order, roles: Roles, part: Part) -> None:
    """Everything that needs a sequencer and a witness."""
    with tempfile.TemporaryDirectory(prefix="mf-witnessed-") as made:
        async with witnessed(
            roles,
            Path(made),
            Random(order.seed),
            runs_each=WITNESSED_RUNS_EACH[order.full],
        ) as deployment:
            share = (order.share, SHARES[order.full])
            await run_histories(deployment, part.tally, full=order.full, share=share)


async def _rotated(order: Order, roles: Roles, part: Part) -> None:
    """The same deployment after a rotation, and what it exported."""
    with tempfile.TemporaryDirectory(prefix="mf-witnessed-") as made:
        async with witnessed(
            roles,
            Path(made),
            Random(order.seed),
            runs_each=WITNESSED_RUNS_EACH[order.full],
        ) as deployment:
            await run_rotated(deployment, part.tally, full=order.full)


async def _upheavals(order: Order, roles: Roles, part: Part) -> None:
    """Nothing but honest trouble."""
    await upheave(roles, order.seed, part.tally, full=order.full)


_DO: Mapping[str, Callable[[Order, Roles, Part], Coroutine[None, None, None]]] = {
    "attacks": _attacks,
    "histories": _histories,
    "mutations": _mutations,
    "rotated": _rotated,
    "servers": _servers,
    "upheavals": _upheavals,
}


def names(*, full: bool) -> list[tuple[str, int]]:
    """All parts with their shares; those that can be cut short come last."""
    shares = range(SHARES[full])
    return [
        *(("attacks", share) for share in shares),
        *(("histories", share) for share in shares),
        ("rotated", 0),
        ("servers", 0),
        ("upheavals", 0),
        *(("mutations", share) for share in range(MUTATORS[full])),
    ]


def work(order: Order) -> Part:
    """One part, in this process; or what a run of before wrote down of it."""
    logging.disable(logging.CRITICAL)  # every detected attack would be a line
    kept = order.file
    if kept is not None and kept.exists():
        found = pickle.loads(kept.read_bytes())  # noqa: S301 - the bench wrote it itself
        assert isinstance(found, Part)
        return found
    part, began = Part(tally=Tally(until=order.until)), time.monotonic()
    if order.roles is not None:
        asyncio.run(_DO[order.name](order, order.roles, part))
    else:
        with database_server() as server:
            asyncio.run(_DO[order.name](order, server.new_database(), part))
    part.seconds = time.monotonic() - began
    if kept is not None:
        kept.write_bytes(pickle.dumps(part))
    told(f"{order.name} {order.share}: done")
    return part
