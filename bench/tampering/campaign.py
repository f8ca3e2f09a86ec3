"""Runs the classes in one scene: attack, judge, put back, and read everything clean again."""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from bench.tampering import undo
from bench.tampering.attack import AttackClass, Deed, Outcome, Trial
from bench.tampering.hands import hands
from bench.tampering.judge import Judge
from bench.tampering.scene import Scene, ended

FULL_TRIALS = 30
LEAST_A_VARIANT = 5


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a campaign came to."""

    trials: list[Trial] = field(default_factory=list)
    controls: Counter[str] = field(default_factory=Counter)  # clean reads, by what was before them
    false_alarms: list[str] = field(default_factory=list)
    until: float | None = None  # no further round begins after it, as of `time.time`

    @property
    def is_over(self) -> bool:
        """Whether the time is."""
        return self.until is not None and time.time() > self.until

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


def times_of(one: AttackClass, has: frozenset[str], *, full: bool) -> int:
    """How often each variant that is ready is made."""
    ready = len(one.ready(has))
    return max(each_of(ready, full=full), 2 if ready == 1 else 1) if ready else 0


async def run_classes(
    scene: Scene, judge: Judge, wanted: Sequence[AttackClass], tally: Tally, *, full: bool
) -> None:
    """All of them in rounds: whenever the time is over, each was made as often as the others."""
    times = {one.number: times_of(one, scene.has, full=full) for one in wanted}
    most, guarded = max(times.values(), default=0), None
    for number in range(most):
        if number and (tally.is_over or await _gave_up(scene)):
            break
        for one in sorted(wanted, key=lambda one: not one.guarded):
            if number >= times[one.number]:
                continue
            if one.guarded is not guarded:
                guarded = one.guarded
                await undo.set_guards(scene.superuser, on=guarded)
            await _once(scene, judge, one, tally)
        told(f"{wanted[0].number} to {wanted[-1].number}: round {number + 1} of {most}")


async def _gave_up(scene: Scene) -> bool:
    """Whether an open run has ended by itself: on a busy machine the server misses its heartbeat.

    That is no attack and no false alarm, and there is nothing open to be attacked any more.
    """
    gave_up = [run.public for run in scene.opened if await ended(scene, run)]
    if gave_up:
        told(f"no further rounds, runs ended by themselves: {' '.join(gave_up)}")
    return bool(gave_up)


async def _once(scene: Scene, judge: Judge, one: AttackClass, tally: Tally) -> None:
    """Every variant of a class once, each put back, then clean reads."""
    for name, act in one.ready(scene.has):
        async with hands(scene) as attacker:
            deed = await act(attacker)
        look = _judged_apart if one.own_server else _judged
        tally.trials.append(await look(scene, judge, one, (name, deed)))
        await undo.put_back(scene.superuser, guarded=one.guarded)
    await control(judge, scene.rng.sample(scene.runs, min(len(scene.runs), 2)), tally)


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
