"""Nobody waits for a flood to be taken apart but who comes when too many are."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.domain.errors import ToolError
from app.sandbox.execution import ExecLimits
from app.sandbox.flooded_workspaces import FloodedWorkspaces

pytestmark = pytest.mark.anyio
LIMITS = ExecLimits(workspace_entries=2)


class Lent:
    """A workspace whose flood is taken apart when the test says so."""

    def __init__(self, refusal: str = "") -> None:
        self.goes_on = threading.Event()
        self.renewed: list[bool] = []
        self.taken_apart = threading.Event()
        self._refusal = refusal

    def renew(self, flooded: int) -> Callable[[], None]:
        if self._refusal:
            raise ToolError(self._refusal)
        self.renewed.append(bool(os.fstat(flooded)))
        return self._take_apart

    def _take_apart(self) -> None:
        self.goes_on.wait(60)
        self.taken_apart.set()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for number in range(3):
        (tmp_path / f"{number}").touch()
    return tmp_path


def _names(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


def _held(place: Path) -> int:
    return os.open(place, os.O_PATH | os.O_DIRECTORY)


async def test_it_is_told_before_the_flood_is_taken_apart(place: Path) -> None:
    flooded, lent = FloodedWorkspaces(), Lent()
    assert await flooded.emptied_when_over(_held(place), lent, LIMITS)
    assert lent.renewed == [True]
    assert not lent.taken_apart.is_set()
    lent.goes_on.set()
    assert await asyncio.to_thread(lent.taken_apart.wait, 60)


async def test_who_comes_when_too_many_are_set_aside_waits_for_one_of_them(place: Path) -> None:
    flooded, lent = FloodedWorkspaces(most=1), Lent()
    await flooded.room()
    assert await flooded.emptied_when_over(_held(place), lent, LIMITS)
    waiting = asyncio.ensure_future(flooded.room())
    done, _ = await asyncio.wait((waiting,), timeout=0)
    assert not done
    assert not lent.taken_apart.is_set()
    lent.goes_on.set()
    async with asyncio.timeout(60):
        await waiting


async def test_one_within_its_quota_is_left_alone(place: Path) -> None:
    flooded, lent = FloodedWorkspaces(), Lent()
    assert not await flooded.emptied_when_over(_held(place), lent, ExecLimits())
    assert lent.renewed == []


async def test_one_that_cannot_be_set_aside_is_emptied_where_it_is(place: Path) -> None:
    assert await FloodedWorkspaces().emptied_when_over(_held(place), Lent("no"), LIMITS)
    assert _names(place) == []


async def test_one_that_nobody_lent_is_emptied_where_it_is(place: Path) -> None:
    assert await FloodedWorkspaces().emptied_when_over(_held(place), None, LIMITS)
    assert _names(place) == []


async def test_one_that_cannot_be_counted_is_over(place: Path) -> None:
    lent = Lent()
    lent.goes_on.set()
    file = os.open(place / "0", os.O_RDONLY)
    assert await FloodedWorkspaces().emptied_when_over(file, lent, LIMITS)
    assert lent.renewed == [True]


async def test_the_descriptor_is_closed(place: Path) -> None:
    lent = Lent()
    lent.goes_on.set()
    for given in (lent, None):
        held = _held(place)
        await FloodedWorkspaces().emptied_when_over(held, given, LIMITS)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(held)
