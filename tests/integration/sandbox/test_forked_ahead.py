"""The worker that is forked before its call: who it is, what it holds, and that it is used once."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from app.sandbox.execution import EngineName, ExecStatus
from app.sandbox.tool_runner import ToolRunner
from tests.support.escape_scene import TENANT, held, open_directory, request_for, runner_for
from tests.support.processes import Seen, at_work, beneath, is_gone, zygotes_of

PATIENCE_SECONDS = 60
_WHO = "import os\nprint(os.getpid(), os.getppid())"

# It is closed to its peers: only root sees what it holds.
_WHAT_IT_HOLDS = ["/dev/null"] * 3 + ["anon_inode:[landlock-ruleset]", "socket:[1]"]


@pytest.fixture
def workspace() -> Iterator[int]:
    with open_directory() as base, held(base) as descriptor:
        yield descriptor


@asynccontextmanager
async def running() -> AsyncIterator[ToolRunner]:
    runner = runner_for()
    try:
        yield runner
    finally:
        await runner.close()


async def _who(runner: ToolRunner, workspace: int) -> tuple[int, int]:
    """The worker and the zygote of one call."""
    told = await runner.run(request_for(_WHO, workspace, TENANT))
    assert told.status is ExecStatus.OK, told
    worker, zygote = map(int, told.stdout.split())
    return worker, zygote


async def _ahead(zygote: int) -> Seen:
    """The one that has no call yet, once it waits for one."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            busy = {one.pid for one in at_work(zygote)}
            found = [one for one in beneath(zygote) if one.pid not in busy and one.state == "S"]
            if len(found) == 1 and _waits(found[0].pid):
                return found[0]
            await asyncio.sleep(0)


def _waits(pid: int) -> bool:
    """Whether it has dropped what it does not need: its zygote has a selector, it has not.

    Only root may look; for others one that sleeps is taken for one that waits.
    """
    if os.geteuid() != 0:
        return True
    with suppress(OSError):  # it is just dropping it
        return not any(name.startswith("anon_inode:[eventpoll]") for name in _held(pid))
    return False


def _held(pid: int) -> list[str]:
    return [str(entry.readlink()) for entry in (Path("/proc") / str(pid) / "fd").iterdir()]


async def test_a_call_is_handed_to_the_worker_that_was_forked_before_it(workspace: int) -> None:
    async with running() as runner:
        first, zygote = await _who(runner, workspace)
        seen = {first}
        for _ in range(3):
            ahead = await _ahead(zygote)
            assert ahead.pid not in seen
            assert await _who(runner, workspace) == (ahead.pid, zygote)
            assert is_gone(ahead.pid)
            seen.add(ahead.pid)


async def test_it_holds_nothing_of_its_zygote_but_what_a_worker_may_read(workspace: int) -> None:
    async with running() as runner:
        _, zygote = await _who(runner, workspace)
        ahead = await _ahead(zygote)
        names = _held(ahead.pid) if os.geteuid() == 0 else _WHAT_IT_HOLDS
        status = (await asyncio.to_thread(Path(f"/proc/{ahead.pid}/status").read_text)).split()
    assert sorted(name.partition("[")[0] for name in names) == sorted(
        name.partition("[")[0] for name in _WHAT_IT_HOLDS
    )
    assert "anon_inode:[landlock-ruleset]" in names
    uid = status.index("Uid:")
    assert "0" not in status[uid + 1 : uid + 5]
    assert set(status[status.index("CapEff:") + 1]) == {"0"}


async def test_one_that_was_killed_while_it_waited_is_not_missed(workspace: int) -> None:
    async with running() as runner:
        _, zygote = await _who(runner, workspace)
        for _ in range(3):
            ahead = await _ahead(zygote)
            os.kill(ahead.pid, signal.SIGKILL)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while any(one.pid == ahead.pid for one in beneath(zygote)):  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(0)
            assert (await _who(runner, workspace))[1] == zygote


async def test_calls_at_the_same_time_have_a_worker_each(workspace: int) -> None:
    async with running() as runner:
        _, zygote = await _who(runner, workspace)
        ahead = await _ahead(zygote)
        both = await asyncio.gather(_who(runner, workspace), _who(runner, workspace))
    assert len({worker for worker, _ in both}) == 2
    assert ahead.pid in {worker for worker, _ in both}
    assert {parent for _, parent in both} == {zygote}


async def test_what_warmed_it_up_is_not_there(workspace: int) -> None:
    text = (
        "import builtins, sys\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "print(sorted(name for name in globals() if not name.startswith('_')))\n"
        "print(hasattr(builtins, '_'), sys.path.count(''))\n"
        "with ThreadPoolExecutor(1) as pool:\n    print(pool.submit(lambda: 42).result())"
    )
    async with running() as runner:
        _, zygote = await _who(runner, workspace)
        await _ahead(zygote)
        told = await runner.run(request_for(text, workspace, TENANT))
    assert told.stdout == b"['ThreadPoolExecutor', 'builtins', 'sys']\nFalse 1\n42\n"
    assert told.stderr == b""


@pytest.mark.parametrize("engine", [EngineName.NATIVE, EngineName.VIRTUAL_SHELL])
async def test_the_end_of_the_zygote_is_its_own(workspace: int, engine: EngineName) -> None:
    """Killed or closed, no worker that never had a call outlives it."""
    text = "1" if engine is EngineName.NATIVE else "true"
    before = {one.pid for one in beneath(os.getpid())}
    async with running() as runner:
        await runner.run(request_for(text, workspace, TENANT, engine=engine))
        (zygote,) = [one.pid for one in zygotes_of(os.getpid())]
        ahead = await _ahead(zygote)
        os.kill(zygote, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not is_gone(ahead.pid):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0)
    async with running() as runner:
        await runner.run(request_for(text, workspace, TENANT, engine=engine))
    assert {one.pid for one in beneath(os.getpid())} <= before
