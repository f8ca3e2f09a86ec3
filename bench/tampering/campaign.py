"""Runs the classes in one scene: attack, judge, put back, and read everything clean again."""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bench.tampering import undo
from bench.tampering.attack import AttackClass, Deed, Outcome, Trial
from bench.tampering.hands import hands
from bench.tampering.judge import Judge
from bench.tampering.scene import Scene

FULL_TRIALS = 30
LEAST_A_VARIANT = 5


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a campaign came to."""

    trials: list[Trial] = field(default_factory=list)
    controls: Counter[str] = field(default_factory=Counter)  # clean reads, by what was before them
    false_alarms: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Another campaign's figures too."""
        self.trials += other.trials
        self.controls += other.controls
        self.false_alarms += other.false_alarms

    def count(self, outcome: Outcome) -> int:
        """Trials that ended so."""
        return sum(trial.outcome is outcome for trial in self.trials)


def each_of(variants: int, *, full: bool) -> int:
    """How often each variant of a class is made."""
    return max(math.ceil(FULL_TRIALS / variants), LEAST_A_VARIANT) if full else 1


def told(what: str) -> None:
    """How far the bench is, for whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


async def run_class(
    scene: Scene, judge: Judge, one: AttackClass, tally: Tally, *, full: bool
) -> None:
    """All variants of a class that are ready, then clean reads of what they touched."""
    acts = one.ready(scene.has)
    if not acts:
        return
    each = max(each_of(len(acts), full=full), 2 if len(acts) == 1 else 1)
    await undo.set_guards(scene.superuser, on=one.guarded)
    for name, act in acts:
        for _ in range(each):
            async with hands(scene) as attacker:
                deed = await act(attacker)
            look = _judged_apart if one.own_server else _judged
            tally.trials.append(await look(scene, judge, one, (name, deed)))
            await undo.put_back(scene.superuser, guarded=one.guarded)
    await control(
        judge, scene.rng.sample(scene.runs, min(len(scene.runs), 10 if full else 2)), tally
    )
    told(f"{one.number}: {one.title}")


async def _judged(_scene: Scene, judge: Judge, one: AttackClass, done: tuple[str, Deed]) -> Trial:
    return await judge.judged(one, *done)


async def _judged_apart(
    scene: Scene, judge: Judge, one: AttackClass, done: tuple[str, Deed]
) -> Trial:
    """By a server that is started for it and forgets everything after it."""
    with scene.server() as url:
        apart = Judge(replace(scene, url=url), judge.before, judge.second)
        try:
            return await apart.judged(one, *done)
        finally:
            await apart.close()


async def control(judge: Judge, runs: Iterable[object], tally: Tally) -> None:
    """Clean reads: anything but what was read before is a false alarm."""
    chosen = [run for run in judge.before if run in set(runs)]
    tally.false_alarms += await judge.false_alarms(chosen)
    tally.controls["nothing, or an attack that was taken back"] += len(chosen)
