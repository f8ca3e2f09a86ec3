"""Wakes those who follow runs, thousands of them, when there is something new for them.

One question a second to the database for all of them, whatever process drives the runs, and one
timer: who only waits holds no timer, no connection and none of what it has read.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from app.domain.errors import MeshFlowError
from app.domain.run import RunId, TenantId
from app.runs.notifier import Bell, RunEnd

_log = logging.getLogger("meshflow.runs")

LOOK_SECONDS = 1.0
TICK_SECONDS = 1.0
MOST_AT_ONCE = 2000  # runs in one question


class RunHead(Protocol):
    """Where the ledger of a run ends."""

    @property
    def run_id(self) -> RunId:
        """The run."""

    @property
    def seq(self) -> int:
        """The seq of its last record."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""

    @property
    def mark(self) -> str:
        """Another one when the run's row was changed, by whomever."""


Followed = tuple[TenantId, RunId]
Heads = Callable[[Sequence[Followed]], Awaitable[Sequence[RunHead]]]


class Follower:
    """One who follows a run. `seen`: the seq of the last record it knows of.

    `mark`: the one of the run's row when it was last told to look; it looks once at the beginning.
    """

    __slots__ = ("_is_due", "_wake", "has_news", "mark", "run", "seen")

    def __init__(self, run: Followed, seen: int, is_due: Callable[[float], bool]) -> None:
        self.run = run
        self.seen = seen
        self.has_news = False
        self.mark: str | None = None
        self._is_due = is_due
        self._wake = asyncio.Event()

    def set(self) -> None:
        """There is a record that it may not know of."""
        self.has_news = True
        self._wake.set()

    def is_behind(self, head: RunHead) -> bool:
        """Whether there is more than it knows of, or the row is not as it was at the last look."""
        is_changed, self.mark = head.mark != self.mark, head.mark
        return is_changed or head.seq > self.seen

    def hear(self, _: RunEnd | None) -> None:
        """The bell of the run rang."""
        self.set()

    def tick(self, now: float) -> None:
        """Wake it when it has something to do at this time."""
        if self._is_due(now):
            self._wake.set()

    async def wait(self) -> bool:
        """Return when there is news (true), or when it is due (false)."""
        await self._wake.wait()
        self._wake.clear()
        news, self.has_news = self.has_news, False
        return news


class RunWatch:
    """All followers of one process."""

    def __init__(self, bell: Bell, heads: Heads) -> None:
        self._bell = bell
        self._heads = heads
        self._followers: dict[Followed, set[Follower]] = {}

    @contextmanager
    def follow(
        self, run: Followed, seen: int, is_due: Callable[[float], bool]
    ) -> Iterator[Follower]:
        """A follower that is woken for as long as this lasts. `is_due` is asked once a second."""
        follower = Follower(run, seen, is_due)
        self._followers.setdefault(run, set()).add(follower)
        try:
            with self._bell.heard_by(follower, run[1]):
                yield follower
        finally:
            self._followers[run].discard(follower)
            if not self._followers[run]:
                del self._followers[run]

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keep watch in the background for as long as this lasts."""
        tasks = [asyncio.create_task(work) for work in (self._look_forever(), self._tick_forever())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = asyncio.get_running_loop().time()
            for followers in self._followers.values():
                for follower in followers:
                    follower.tick(now)

    async def _look_forever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            followed = list(self._followers)
            try:
                for first in range(0, len(followed), MOST_AT_ONCE):
                    await self._look(followed[first : first + MOST_AT_ONCE])
            except MeshFlowError as error:
                _log.warning("streams may be late: %s", type(error).__name__)
            except Exception:  # noqa: BLE001 - a watch that stops would leave every reader waiting
                _log.exception("the watch failed")

    async def _look(self, followed: Sequence[Followed]) -> None:
        found = {head.run_id: head for head in await self._heads(followed)}
        for run in followed:
            head = found.get(run[1])
            is_over = head is None or head.is_over  # None: the run was deleted
            for follower in self._followers.get(run, ()):
                if head is None or is_over or follower.is_behind(head):
                    follower.set()
