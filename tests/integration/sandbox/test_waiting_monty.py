"""Workers of Monty that wait for their call: what they answer, what they leave, and who they are.

Where a test says that a worker that had waited answered, it counts; no test is about time.
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.sandbox.execution import EndedBy, EngineName, ExecLimits, ExecResult, ExecStatus
from app.sandbox.memory_file import memory_file
from app.sandbox.monty_wire import configure, feed
from app.sandbox.tool_runner import ToolRunner
from app.sandbox.worker_protocol import Ended
from app.sandbox.zygote_link import CallInFlight, ZygoteLink
from app.sandbox.zygote_pool import PoolLimits
from app.tools.monty_output import without_marks
from tests.support.escape_scene import (
    OTHER_TENANT,
    TENANT,
    corpus,
    held,
    monty_runner,
    open_directory,
    request_for,
)
from tests.support.processes import Seen, at_work, beneath
from tests.support.waiting_montys import answered, waiting_in, zygote_of_monty

CALLS = 10_000 if os.getenv("MESHFLOW_PROOF") == "1" else 60
PATIENCE_SECONDS = 60


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as base:
        yield base


@pytest.fixture
def workspace(place: Path) -> Iterator[int]:
    with held(place) as descriptor:
        yield descriptor


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[ToolRunner]:
    runner = monty_runner(**options)
    try:
        yield runner
    finally:
        await runner.close()


async def _call(
    runner: ToolRunner, workspace: int, text: str, tenant: str = TENANT, **limits: Any
) -> ExecResult:
    return await runner.run(request_for(text, workspace, tenant, engine=EngineName.MONTY, **limits))


async def _when_one_waits(
    runner: ToolRunner, workspace: int, text: str, **limits: Any
) -> ExecResult:
    """The call once a worker with its limits waits, which the call before had made."""
    await _call(runner, workspace, "1", **limits)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await runner.until_one_waits(TENANT)
    return await _call(runner, workspace, text, **limits)


async def _until_gone_but(before: set[int]) -> None:
    """Until there is no child but those, no zombie either."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while {one.pid for one in beneath(os.getpid())} - before:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0)


async def test_the_worker_that_waits_answers_the_next_call(workspace: int) -> None:
    async with running() as runner:
        result = await _when_one_waits(runner, workspace, "print(6 * 7)\n[1, 'a', (2,)]")
        assert runner.calls_at_once == 1
    told = without_marks(result)
    assert (told.status, told.exit_code) == (ExecStatus.OK, 0)
    assert told.stdout == b"42\n[1, 'a', (2)]\n"  # as this interpreter writes a tuple of one
    assert told.stderr == b""


async def test_nothing_is_kept_for_the_next_call(workspace: int) -> None:
    async with running() as runner:
        await _when_one_waits(runner, workspace, "kept = 1\nimport json\njson.kept = 2")
        again = await _when_one_waits(runner, workspace, "kept")
        assert runner.calls_at_once >= 2
    assert again.status is ExecStatus.ERROR
    assert b"NameError: name 'kept' is not defined" in again.stderr


async def test_what_warmed_it_up_is_not_there(workspace: int) -> None:
    async with running() as runner:
        for name in ("d", "f", "k"):
            told = await _when_one_waits(runner, workspace, f"print('mine')\n{name}")
            assert told.stdout == b"mine\n"
            assert f"name '{name}' is not defined".encode() in told.stderr


async def test_each_worker_is_of_one_call_and_of_one_tenant(workspace: int) -> None:
    """The processes beneath a zygote: none that answered lives, and no two calls had one."""
    async with running() as runner:
        seen = set[int]()
        for tenant in (TENANT, OTHER_TENANT) * 3:
            await _call(runner, workspace, "1", tenant)
            assert await runner.until_one_waits(tenant)
            waiting = {one.pid for one in _waiting()}
            before = runner.calls_at_once
            await _call(runner, workspace, "1", tenant)
            assert runner.calls_at_once == before + 1
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (gone := {pid for pid in waiting if not _lives(pid)}):  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(0)
            assert len(gone) == 1
            assert not gone & seen
            seen |= gone
        assert len(seen) == 6


def _waiting() -> list[Seen]:
    """Every Monty of this process that waits, or is just being told its program."""
    return [one for one in beneath(os.getpid()) if "monty subprocess" in one.command]


def _lives(pid: int) -> bool:
    return any(one.pid == pid and one.state != "Z" for one in beneath(os.getpid()))


@pytest.mark.parametrize(
    "text",
    [
        "x = (",
        "raise ValueError('a')",
        "def f(n):\n    return f(n + 1)\nf(0)",
        "import nowhere",
        "nothing",
        "nothing()",
        "assert 1 == 2",
        "import sys\nprint('e', file=sys.stderr)\nprint('o')\n1 / 0",
        "class A: pass\nA()",
        "1e300, 'it\\'s', {'\u00e9': {3}}, set(), (), {}, -5, 2 ** 70, b'x'",
        "[True, None, 1.5, -0.25, {'k': [1, {2}]}]",
        "'text'",
        "import sys\nprint('\u00e9\U0001f600')",
        "yield 1",
    ],
)
async def test_it_says_what_a_worker_says_that_was_made_for_the_call(
    text: str, workspace: int
) -> None:
    async with running() as runner, running(makes_ahead=False) as plain:
        told = without_marks(await _when_one_waits(runner, workspace, text))
        same = without_marks(await _call(plain, workspace, text))
        assert plain.calls_at_once == 0
    assert (told.status, told.exit_code) == (same.status, same.exit_code)
    assert (told.stdout.decode(), told.stderr.decode()) == (
        same.stdout.decode(),
        same.stderr.decode(),
    )


async def test_ordinary_programs_say_the_same_in_both_kinds_of_worker(workspace: int) -> None:
    rows = {row["id"]: row["program"] for row in corpus("benign_monty")}
    differing, alone = [], 0
    async with zygote_of_monty() as link, running(makes_ahead=False) as plain:
        for name, text in rows.items():
            found = await answered(link, text)
            if found is None:
                continue
            alone += 1
            told, same = without_marks(found), without_marks(await _call(plain, workspace, text))
            if (told.status, told.stdout, told.stderr) != (same.status, same.stdout, same.stderr):
                differing.append((name, told, same))
    assert differing == []
    assert alone >= len(rows) // 2


async def test_a_program_that_comes_to_want_files_has_them_and_is_told_once(
    workspace: int, place: Path
) -> None:
    """No name of a file's function is in it: it is tried without files first."""
    text = "print('begun')\nexec(''.join(['op', 'en(\"a\", \"w\").write(\"x\")']))\nprint('done')"
    async with running() as runner:
        told = await _when_one_waits(runner, workspace, text)
        assert runner.calls_at_once == 0
    assert told.stdout == b"begun\ndone\n"
    assert (place / "a").read_text() == "x"


async def test_a_program_with_names_of_files_in_it_is_not_tried_without_them(
    workspace: int, place: Path
) -> None:
    async with running() as runner:
        told = await _when_one_waits(runner, workspace, "open('b', 'w').write('x')\nprint(1)")
        assert await runner.until_one_waits(TENANT)  # it still waits
    assert told.stdout == b"1\n"
    assert (place / "b").exists()


async def test_only_a_worker_with_the_limits_of_the_call_is_taken(workspace: int) -> None:
    async with running() as runner:
        await _call(runner, workspace, "1")
        assert await runner.until_one_waits(TENANT)
        assert (await _call(runner, workspace, "1", cpu_seconds=2)).status is ExecStatus.OK
        assert runner.calls_at_once == 0
        assert await runner.until_one_waits(TENANT)
        await _call(runner, workspace, "1", cpu_seconds=2)
        assert runner.calls_at_once == 1


async def test_too_much_output_ends_it(workspace: int) -> None:
    async with running() as runner:
        told = await _when_one_waits(
            runner, workspace, "while True:\n    print('x' * 100)", stdout_bytes=5_000
        )
    assert (told.status, told.ended_by) == (ExecStatus.KILLED, EndedBy.OUTPUT_LIMIT)
    assert len(told.stdout) == 5_000
    assert told.stdout_truncated


async def test_an_endless_program_is_ended_and_said_to_be(workspace: int) -> None:
    async with running() as runner:
        told = await _when_one_waits(runner, workspace, "while True: pass", wall_seconds=1.0)
    assert told.status in (ExecStatus.ERROR, ExecStatus.TIMEOUT)
    assert told.status is ExecStatus.TIMEOUT or b"TimeoutError" in told.stderr


def _waiting_call(link: ZygoteLink, limits: ExecLimits) -> tuple[CallInFlight, socket.socket]:
    """A worker that waits, at the other end of a plain socket."""
    ours, theirs = socket.socketpair()
    program, root = memory_file(b'{"text": ""}'), os.open("/", os.O_PATH)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with theirs:
        ends = [root, program, theirs.fileno(), theirs.fileno(), nowhere]
        call = link.begin(limits, ends, waits=True)
    for descriptor in (program, root, nowhere):
        os.close(descriptor)
    return call, ours


async def test_the_zygote_ends_it_at_its_deadline_whatever_the_interpreter_does() -> None:
    """Here it is told no limit of its own."""
    limits = ExecLimits(wall_seconds=0.2)
    async with zygote_of_monty() as link:
        call, ours = _waiting_call(link, limits)
        with ours:
            begin = configure(limits, heap_bytes=1 << 26, run_seconds=1e6, sleep_seconds=1e6)
            ours.sendall(begin + feed(b"while True: pass", b"/"))
            call.begun()
            async with asyncio.timeout(PATIENCE_SECONDS):
                done = await call.answer
    assert done is not None
    assert done.ended is Ended.DEADLINE


async def test_a_worker_that_waits_has_no_deadline_yet() -> None:
    async with zygote_of_monty() as link:
        call, ours = _waiting_call(link, ExecLimits(wall_seconds=0.01))
        with ours:
            # The zygote has looked at its deadlines by the time that this one was ended by it.
            other, theirs = _waiting_call(link, ExecLimits(wall_seconds=0.2))
            with theirs:
                other.begun()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    done = await other.answer
            assert done is not None
            assert done.ended is Ended.DEADLINE
            assert not call.answer.done()


def _links(place: Path) -> dict[str, Path]:
    return {entry.name: entry.readlink() for entry in place.iterdir()}


def _facts(place: Path) -> tuple[str, Path, bytes]:
    """Of a process: its status, its directory, its environment."""
    return (
        (place / "status").read_text(),
        (place / "cwd").readlink(),
        (place / "environ").read_bytes(),
    )


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_it_holds_its_socket_and_nothing_else_and_is_confined() -> None:
    async with zygote_of_monty() as link:
        await waiting_in(link)
        (worker,) = at_work(link.pid)
        place = Path("/proc") / str(worker.pid)
        held_ones = await asyncio.to_thread(_links, place / "fd")
        status, where, environment = await asyncio.to_thread(_facts, place)
    assert held_ones.keys() == {"0", "1", "2"}
    assert held_ones["0"].name.startswith("socket:")
    assert held_ones["2"] == Path("/dev/null")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"].strip() == "1"
    assert facts["Seccomp"].strip() == "2"
    assert set(facts["CapEff"].strip()) == {"0"}
    assert "0" not in facts["Uid"].split()
    assert where == Path("/")
    assert environment == b""


async def test_one_that_was_killed_while_it_waited_is_not_missed(workspace: int) -> None:
    async with running() as runner:
        await _call(runner, workspace, "1")
        assert await runner.until_one_waits(TENANT)
        (worker,) = _waiting()
        os.kill(worker.pid, signal.SIGKILL)
        told = [await _call(runner, workspace, "print(6 * 7)") for _ in range(3)]
    assert [one.stdout for one in told] == [b"42\n"] * 3


async def test_a_lost_zygote_takes_it_along_and_the_next_call_has_others(workspace: int) -> None:
    async with running() as runner:
        await _call(runner, workspace, "1")
        assert await runner.until_one_waits(TENANT)
        (worker,) = _waiting()
        os.kill(worker.parent, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (told := await _call(runner, workspace, "print(6 * 7)")).stdout != b"42\n":
                assert told.status is ExecStatus.UNAVAILABLE
    assert told.status is ExecStatus.OK


async def test_a_cancelled_call_leaves_no_process() -> None:
    async with zygote_of_monty() as link:
        waiting = await waiting_in(link)
        task = asyncio.create_task(waiting.run("while True: pass"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert at_work(link.pid) == []


async def test_nothing_is_left_by_many_calls(workspace: int) -> None:
    """Ordinary ends, errors, too much output and files in turn, over several zygotes."""
    texts = ("1", "1 / 0", "print('x' * 6000)", "open('c', 'w').write('y')", "exec('op' + 'en')")
    level, before = 0, {one.pid for one in beneath(os.getpid())}
    async with running(pool=PoolLimits(calls_per_zygote=CALLS // 3)) as runner:
        for number in range(CALLS):
            text = texts[number % len(texts)]
            await _when_one_waits(runner, workspace, text, stdout_bytes=5_000)
            if number == CALLS // 4:
                level = _descriptors()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(one.state == "Z" for one in beneath(os.getpid())):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)
            # A zygote that is just being replaced, and the ends of its worker.
            while _descriptors() > level + 2:  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)
        assert runner.calls_at_once > CALLS // 2
    await _until_gone_but(before)


async def test_more_than_the_queue_holds_is_turned_away(workspace: int) -> None:
    async with running(concurrency=1, queue=2) as runner:
        await _call(runner, workspace, "1")
        assert await runner.until_one_waits(TENANT)
        text = "import time\ntime.sleep(0.2)\nprint(1)"
        calls = [asyncio.create_task(_call(runner, workspace, text)) for _ in range(5)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(end, ExecResult) for end in ends].count(True) == 3
