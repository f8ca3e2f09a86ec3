"""Followers are woken by the bell, by what the database says, and when they are due."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import pytest

from app.domain.errors import LedgerUnavailableError
from app.domain.run import RunId, TenantId
from app.runs import run_watch
from app.runs.notifier import Bell
from app.runs.run_watch import Followed, RunWatch

pytestmark = pytest.mark.anyio

TENANT = TenantId(UUID(int=1))
RUNS = [(TENANT, RunId(UUID(int=number))) for number in range(2, 12)]
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Head:
    run_id: RunId
    seq: int
    is_over: bool = False
    mark: str = "as it was"


class Database:
    """What `heads` answers, and what it was asked."""

    def __init__(self) -> None:
        self.heads: dict[RunId, Head] = {run[1]: Head(run[1], 3) for run in RUNS}
        self.asked: list[list[Followed]] = []
        self.looked = asyncio.Event()
        self.is_there = True

    async def answer(self, runs: Sequence[Followed]) -> Sequence[Head]:
        self.asked.append(list(runs))
        self.looked.set()
        if not self.is_there:
            raise LedgerUnavailableError("gone")
        return [self.heads[run[1]] for run in runs if run[1] in self.heads]

    async def looks(self, count: int) -> None:
        """Return after so many more looks."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(count):
                self.looked.clear()
                await self.looked.wait()


def never(_: float) -> bool:
    return False


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
async def watch(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[RunWatch, Bell]]:
    monkeypatch.setattr(run_watch, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(run_watch, "TICK_SECONDS", 0.001)
    bell = Bell()
    made = RunWatch(bell, database.answer)
    async with made.watching():
        yield made, bell


async def test_a_record_of_another_process_wakes_who_does_not_know_it(
    watch: tuple[RunWatch, Bell], database: Database
) -> None:
    with watch[0].follow(RUNS[0], 3, never) as knows, watch[0].follow(RUNS[0], 2, never) as behind:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await behind.wait()
            assert await knows.wait()  # everybody looks once at the beginning
        await database.looks(3)
        assert not knows.has_news
        database.heads[RUNS[0][1]] = Head(RUNS[0][1], 4)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await knows.wait()


@pytest.mark.parametrize("end", ["over", "deleted"])
async def test_the_end_of_a_run_wakes_its_followers(
    watch: tuple[RunWatch, Bell], database: Database, end: str
) -> None:
    with watch[0].follow(RUNS[0], 3, never) as follower:
        if end == "over":
            database.heads[RUNS[0][1]] = Head(RUNS[0][1], 3, is_over=True)
        else:
            del database.heads[RUNS[0][1]]
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await follower.wait()


async def test_whoever_changes_the_row_of_a_run_wakes_its_followers(
    watch: tuple[RunWatch, Bell], database: Database
) -> None:
    with watch[0].follow(RUNS[0], 3, never) as follower:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await follower.wait()
        await database.looks(3)
        assert not follower.has_news
        database.heads[RUNS[0][1]] = Head(RUNS[0][1], 3, mark="changed")
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await follower.wait()


async def test_the_bell_wakes_the_followers_of_its_run_alone(
    watch: tuple[RunWatch, Bell], database: Database
) -> None:
    with watch[0].follow(RUNS[0], 3, never) as one, watch[0].follow(RUNS[1], 3, never) as other:
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await one.wait()
            assert await other.wait()  # everybody looks once at the beginning
        watch[1].ring(RUNS[0][1])
        assert await one.wait()
        await database.looks(3)
        assert not other.has_news


async def test_who_is_due_is_woken_without_news(watch: tuple[RunWatch, Bell]) -> None:
    with watch[0].follow(RUNS[0], 3, lambda _: True) as follower:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await follower.wait():  # everybody looks once at the beginning
                pass


async def test_a_database_that_was_gone_is_asked_again(
    watch: tuple[RunWatch, Bell], database: Database
) -> None:
    database.is_there = False
    with watch[0].follow(RUNS[0], 2, never) as follower:
        await database.looks(3)
        assert not follower.has_news
        database.is_there = True
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await follower.wait()


async def test_many_runs_are_asked_about_in_few_questions_and_none_is_left_out(
    watch: tuple[RunWatch, Bell], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_watch, "MOST_AT_ONCE", 4)
    database.asked.clear()
    follows = [watch[0].follow(run, 3, never) for run in RUNS for _ in range(3)]
    for follow in follows:
        follow.__enter__()
    await database.looks(6)
    assert {run for question in database.asked for run in question} == set(RUNS)
    assert max(map(len, database.asked)) == 4
    for follow in follows:
        follow.__exit__(None, None, None)
    await asyncio.sleep(0)
    database.asked.clear()
    assert watch[0]._followers == {}
