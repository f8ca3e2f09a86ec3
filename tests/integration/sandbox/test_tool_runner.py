"""The runner: how calls end, what is kept apart, what is left behind, and what is turned away."""

import asyncio
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sysconfig
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from app.domain.errors import OverloadedError
from app.domain.sandbox_mode import SandboxMode
from app.sandbox import zygote_link
from app.sandbox.execution import Argv, EndedBy, EngineName, ExecRequest, ExecResult, ExecStatus
from app.sandbox.sandbox_profile import SandboxProfile
from app.sandbox.tool_runner import ToolRunner
from app.sandbox.zygote_configuration import ZygoteConfiguration
from app.sandbox.zygote_link import ZygoteLink
from app.sandbox.zygote_pool import PoolLimits
from tests.support.escape_scene import (
    RUN,
    TENANT,
    held,
    open_directory,
    request_for,
    runner_for,
    worker_account,
)
from tests.support.processes import at_work, beneath, is_gone, zygotes_of

CALLS = 10_000 if os.getenv("MESHFLOW_PROOF") == "1" else 200


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as base:
        yield base


@pytest.fixture
def workspace(place: Path) -> Iterator[int]:
    with held(place) as descriptor:
        yield descriptor


@asynccontextmanager
async def running(
    mode: SandboxMode = SandboxMode.STRICT, **options: Any
) -> AsyncIterator[ToolRunner]:
    runner = runner_for(mode, **options)
    try:
        yield runner
    finally:
        await runner.close()


def _children() -> set[int]:
    return {process.pid for process in beneath(os.getpid())}


def _names(place: Path) -> list[str]:
    return [path.name for path in place.iterdir()]


def _text(path: Path) -> str:
    return path.read_text()


def _size(path: Path) -> int:
    return path.stat().st_size


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_program_is_run_and_what_it_wrote_comes_back(workspace: int) -> None:
    async with running() as runner:
        result = await runner.run(
            request_for("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7", workspace)
        )
    assert (result.status, result.exit_code) == (ExecStatus.OK, 0)
    assert (result.stdout, result.stderr) == (b"out\n42\n", b"err\n")
    assert not result.stdout_truncated
    assert result.peak_memory_bytes > 0


@pytest.mark.parametrize(
    ("text", "status", "code", "ended_by"),
    [
        ("raise SystemExit(3)", ExecStatus.ERROR, 3, None),
        ("raise SystemExit", ExecStatus.OK, 0, None),
        ("raise SystemExit('words')", ExecStatus.ERROR, 1, None),
        ("1 / 0", ExecStatus.ERROR, 1, None),
        ("def", ExecStatus.ERROR, 1, None),
        ("import os\nos._exit(125)", ExecStatus.ERROR, 125, None),
        ("import os\nos.kill(os.getpid(), 9)", ExecStatus.KILLED, None, EndedBy.SIGNAL),
        ("import time\ntime.sleep(60)", ExecStatus.TIMEOUT, None, EndedBy.DEADLINE),
        ("print('x' * 2_000_000)", ExecStatus.KILLED, None, EndedBy.OUTPUT_LIMIT),
        ("x = bytearray(10 ** 9)", ExecStatus.ERROR, 1, None),
    ],
)
async def test_every_end_has_its_status(
    workspace: int, text: str, status: ExecStatus, code: int | None, ended_by: EndedBy | None
) -> None:
    async with running() as runner:
        result = await runner.run(request_for(text, workspace, wall_seconds=0.5))
    if ended_by is EndedBy.OUTPUT_LIMIT:  # it may end by itself before it is ended
        assert (result.status, result.ended_by) == (status, ended_by)
        assert result.stdout == b"x" * 1024 * 1024
        assert result.stdout_truncated
    else:
        assert (result.status, result.exit_code, result.ended_by) == (status, code, ended_by)


async def test_processor_time_is_limited_apart_from_the_clock(workspace: int) -> None:
    async with running() as runner:
        result = await runner.run(
            request_for("while True: pass", workspace, wall_seconds=10.0, cpu_seconds=1)
        )
    assert (result.status, result.ended_by) == (ExecStatus.TIMEOUT, EndedBy.CPU_LIMIT)


async def test_what_was_printed_before_the_deadline_is_not_lost(workspace: int) -> None:
    async with running() as runner:
        result = await runner.run(
            request_for("print('so far')\nwhile True: pass", workspace, wall_seconds=0.5)
        )
    assert (result.status, result.stdout) == (ExecStatus.TIMEOUT, b"so far\n")


async def test_standard_input_is_what_was_sent(workspace: int) -> None:
    async with running() as runner:
        request = request_for("import sys\nprint(sys.stdin.read()[::-1])", workspace)
        given = ExecRequest(
            engine=request.engine,
            program=request.program,
            tenant_hex=TENANT,
            run_hex=RUN,
            workspace_fd=workspace,
            stdin="äb".encode(),
        )
        result = await runner.run(given)
    assert result.stdout.decode() == "bä\n"


async def test_nothing_is_kept_between_calls_but_files(workspace: int, place: Path) -> None:
    async with running() as runner:
        await runner.run(
            request_for(
                "x = 1\nimport json, os, builtins\njson.planted = builtins.planted = x\n"
                "os.environ['PLANTED'] = '1'\nf = open('kept.txt', 'w')\nf.write('kept')",
                workspace,
            )
        )
        result = await runner.run(
            request_for(
                "import json, os, builtins\n"
                "print('x' in globals(), hasattr(json, 'planted'), hasattr(builtins, 'planted'))\n"
                "print(dict(os.environ), open('kept.txt').read())",
                workspace,
            )
        )
    assert result.stdout.decode().split("\n")[:2] == ["False False False", "{} kept"]
    assert _text(place / "kept.txt") == "kept"


async def test_tenants_never_share_a_zygote_and_one_tenant_does(workspace: int) -> None:
    parent = "import os\nprint(os.getppid())"
    async with running() as runner:
        seen = [
            (await runner.run(request_for(parent, workspace, tenant))).stdout
            for tenant in ("1" * 32, "2" * 32, "1" * 32)
        ]
    assert seen[0] == seen[2] != seen[1]


async def test_a_zygote_is_replaced_after_its_calls(workspace: int) -> None:
    parent = "import os\nprint(os.getppid())"
    async with running(pool=PoolLimits(calls_per_zygote=2)) as runner:
        seen = [(await runner.run(request_for(parent, workspace))).stdout for _ in range(5)]
    assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4]


async def test_idle_zygotes_of_other_tenants_make_room(workspace: int) -> None:
    before = _children()
    async with running(pool=PoolLimits(zygotes=2)) as runner:
        for number in range(6):
            result = await runner.run(request_for("1", workspace, f"{number:032x}"))
            assert result.status is ExecStatus.OK
        # The two that are kept, one that belongs to nobody yet, and what is just ending.
        assert len(zygotes_of(os.getpid())) <= 5
    assert _children() - before == set()


async def test_a_spare_zygote_serves_the_next_tenant_and_then_nobody_else(workspace: int) -> None:
    before = _children()
    async with running(keeps_spare=True) as runner:
        seen = set()
        for number in range(4):
            result = await runner.run(
                request_for("import os\nos.getppid()", workspace, f"{number:032x}")
            )
            seen.add(result.stdout)
        assert len(seen) == 4
    assert _children() - before == set()


async def test_a_killed_zygote_is_told_and_the_next_call_has_another(workspace: int) -> None:
    async with running() as runner:
        first = await runner.run(request_for("import os\nprint(os.getppid())", workspace))
        zygote = int(first.stdout)
        slow = asyncio.create_task(
            runner.run(request_for("import time\ntime.sleep(60)", workspace))
        )
        worker = await _first_below(zygote)
        os.kill(zygote, signal.SIGKILL)
        lost = await slow
        assert (lost.status, lost.ended_by) == (ExecStatus.UNAVAILABLE, EndedBy.WORKER)
        async with asyncio.timeout(30):
            while not is_gone(worker):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0)
        assert (await runner.run(request_for("6 * 7", workspace))).stdout == b"42\n"


async def test_a_cancelled_call_leaves_no_process_and_the_zygote_serves_on(workspace: int) -> None:
    async with running() as runner:
        zygote = int((await runner.run(request_for("import os\nos.getppid()", workspace))).stdout)
        task = asyncio.create_task(runner.run(request_for("while True: pass", workspace)))
        await _first_below(zygote)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert at_work(zygote) == []
        again = await runner.run(request_for("import os\nos.getppid()", workspace))
        assert int(again.stdout) == zygote


async def test_more_than_the_queue_holds_is_turned_away_and_nothing_of_it_runs(
    workspace: int, place: Path
) -> None:
    async with running(concurrency=1, queue=2) as runner:
        text = "import os\nopen(os.urandom(4).hex(), 'w').close()\nimport time\ntime.sleep(0.2)"
        calls = [asyncio.create_task(runner.run(request_for(text, workspace))) for _ in range(5)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, OverloadedError) for end in ends) == 2
    assert sum(isinstance(end, ExecResult) and end.status is ExecStatus.OK for end in ends) == 3
    assert len(_names(place)) == 3


async def test_calls_run_side_by_side(workspace: int) -> None:
    """Each waits for the other's file: in turn they would never end."""
    async with running(concurrency=2) as runner:
        text = (
            "import os, time\nopen('{mine}', 'w').close()\n"
            "while not os.path.exists('{other}'):\n    time.sleep(0.001)"
        )
        both = await asyncio.gather(
            runner.run(request_for(text.format(mine="a", other="b"), workspace)),
            runner.run(request_for(text.format(mine="b", other="a"), workspace)),
        )
    assert [result.status for result in both] == [ExecStatus.OK, ExecStatus.OK]


async def test_no_zombie_and_no_descriptor_is_left_by_many_calls(workspace: int) -> None:
    before = _children()
    async with running(pool=PoolLimits(calls_per_zygote=CALLS // 4)) as runner:
        await runner.run(request_for("1", workspace))
        texts = ("1", "1 / 0", "import os\nos._exit(3)", "import ctypes\nctypes.string_at(0)")
        level = 0
        for number in range(CALLS // 4):
            await asyncio.gather(
                *(runner.run(request_for(text, workspace)) for text in texts),
            )
            if number == 2:
                level = _descriptors()
        await _until_no_zombie()
        assert _descriptors() <= level + 2  # a zygote that is just being replaced
    assert _children() - before == set()


async def _until_no_zombie() -> None:
    """A zygote that was just replaced is waited for a moment later."""
    async with asyncio.timeout(20):
        while any(one.state == "Z" for one in beneath(os.getpid())):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


async def test_a_zygote_that_nobody_wants_any_more_while_it_starts_has_its_own_socket_and_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closed too early, the socket's number would be another's, which the zygote would inherit."""
    begun, go_on = threading.Event(), threading.Event()
    inherited: list[int] = []
    spawn = zygote_link._spawn

    def late(end: socket.socket, configuration: ZygoteConfiguration) -> "subprocess.Popen[bytes]":
        begun.set()
        assert go_on.wait(120)
        inherited.append(end.fileno())
        return spawn(end, configuration)

    monkeypatch.setattr(zygote_link, "_spawn", late)
    before = _children()
    configuration = ZygoteConfiguration(
        engine=EngineName.NATIVE, profile=SandboxProfile(), account=worker_account()
    )
    starting = asyncio.create_task(ZygoteLink.start(configuration))
    assert await asyncio.to_thread(begun.wait, 20)
    starting.cancel()
    await asyncio.sleep(0)  # it is told now, while its process is not there yet
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert inherited[0] >= 0
    assert _children() - before == set()


@pytest.fixture
def first_process() -> Iterator[None]:
    """This process inherits orphans, as the first one of a container does."""
    kernel = ctypes.CDLL(None, use_errno=True)
    child_subreaper = 36
    assert kernel.prctl(child_subreaper, 1, 0, 0, 0) == 0
    yield
    assert kernel.prctl(child_subreaper, 0, 0, 0, 0) == 0


@pytest.mark.usefixtures("first_process")
async def test_the_first_process_of_a_container_is_left_no_zombie(workspace: int) -> None:
    async with running() as runner:
        told = await runner.run(request_for("import os\nos.getppid()", workspace))
        endless = asyncio.create_task(
            runner.run(request_for("import time\ntime.sleep(60)", workspace, wall_seconds=1.0))
        )
        zygote = int(told.stdout)
        async with asyncio.timeout(20):
            while not at_work(zygote):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)
        os.kill(zygote, signal.SIGSTOP)
        assert (await endless).ended_by is EndedBy.WORKER
        await runner.run(request_for("1", workspace))
        await _until_no_zombie()


@pytest.mark.usefixtures("first_process")
async def test_it_is_left_no_zombie_of_a_call_that_the_end_of_the_server_cuts(
    workspace: int,
) -> None:
    async with running() as runner:
        told = await runner.run(request_for("import os\nos.getppid()", workspace))
        cut = asyncio.create_task(runner.run(request_for("import time\ntime.sleep(60)", workspace)))
        async with asyncio.timeout(20):
            while not at_work(int(told.stdout)):  # noqa: ASYNC110 - the kernel tells nobody
                await asyncio.sleep(0.01)
    assert (await cut).ended_by is EndedBy.WORKER
    await _until_no_zombie()


def _held_by(zygote: int) -> set[str]:
    """What it holds open beside the library it reads from and the pipes of its own."""
    if os.geteuid() != 0:
        return set()  # it is closed to its peers; what its worker says has to do
    kinds = ("socket:", "pipe:", "anon_inode:[eventpoll]")
    own = (sysconfig.get_path("stdlib"), "/dev/", "/usr/share/zoneinfo", *kinds)
    paths = {str(path.readlink()) for path in Path(f"/proc/{zygote}/fd").iterdir()}
    return {path for path in paths if not path.startswith(own)}


def _environment_of(zygote: int) -> bytes:
    return Path(f"/proc/{zygote}/environ").read_bytes() if os.geteuid() == 0 else b""


async def _first_below(pid: int) -> int:
    """The worker that runs a call of a zygote."""
    async with asyncio.timeout(30):
        while not (found := at_work(pid)):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0)
    return found[0].pid


async def test_a_worker_holds_nothing_of_the_server(workspace: int) -> None:
    """Descriptors of the server, inheritable ones too, are not in a worker; nor its environment."""
    secret = os.open(__file__, os.O_RDONLY)
    os.set_inheritable(secret, True)  # noqa: FBT003 - the library's signature
    try:
        async with running() as runner:
            result = await runner.run(
                request_for(
                    "import os\nfound = []\nfor n in range(4096):\n    try:\n        os.fstat(n)\n"
                    "        found.append(n)\n    except OSError:\n        pass\n"
                    "print(found, dict(os.environ))",
                    workspace,
                )
            )
            zygotes = [one.pid for one in zygotes_of(os.getpid())]
            told = [(_held_by(zygote), _environment_of(zygote)) for zygote in zygotes]
    finally:
        os.close(secret)
    assert result.stdout == b"[0, 1, 2] {}\n"
    assert zygotes
    assert told == [(set(), b"")] * len(zygotes)


async def test_a_worker_has_no_power(workspace: int) -> None:
    text = (
        "import os, ctypes, struct\nl = ctypes.CDLL(None)\n"
        "print(os.getresuid(), os.getresgid(), os.getgroups())\n"
        "print(l.prctl(39, 0, 0, 0, 0), l.prctl(21, 0, 0, 0, 0), l.prctl(3, 0, 0, 0, 0))"
    )
    async with running() as runner:
        result = await runner.run(request_for(text, workspace))
    account = worker_account()
    uid = os.getuid() if account is None else account.uid
    assert uid != 0
    first, second, _ = result.stdout.decode().split("\n")
    assert first.startswith(f"({uid}, {uid}, {uid})")
    if account is not None:
        assert first.endswith("[]")
    # The last: its zygote may see what it holds. No worker sees another's: the corpus tries.
    assert second == "1 2 1"


@pytest.mark.parametrize(
    "text",
    [
        "for i in range(3000):\n    open(f'f{i}', 'w').close()",
        "for i in range(9):\n    open(f'f{i}', 'wb').write(bytes(8 * 1024 ** 2))",
        "import os\nfor i in range(40):\n    os.mkdir('d')\n    os.chdir('d')",
        "for i in range(5):\n    open(f'{i}', 'wb').truncate(1 << 24)",
    ],
    ids=["entries", "bytes", "depth", "sparse"],
)
async def test_a_workspace_over_its_quota_is_emptied(
    workspace: int, place: Path, text: str
) -> None:
    place.joinpath("before.txt").touch()
    async with running() as runner:
        result = await runner.run(request_for(text, workspace))
        assert (result.status, result.ended_by) == (ExecStatus.KILLED, EndedBy.WORKSPACE_QUOTA)
        assert _names(place) == []
        assert (await runner.run(request_for("6 * 7", workspace))).stdout == b"42\n"


async def test_a_workspace_is_looked_at_while_the_program_runs(workspace: int) -> None:
    """It sits on what it made until long after it should have been ended for it."""
    async with running() as runner:
        text = (
            "for i in range(2500):\n    open(f'f{i}', 'w').close()\n"
            "import time\ntime.sleep(4)\nprint('still here')"
        )
        result = await runner.run(request_for(text, workspace))
    assert (result.ended_by, result.stdout) == (EndedBy.WORKSPACE_QUOTA, b"")


async def test_a_zygote_that_does_not_answer_is_killed_and_the_next_call_has_another(
    workspace: int,
) -> None:
    async with running() as runner:
        first = await runner.run(request_for("import os\nos.getppid()", workspace))
        os.kill(int(first.stdout), signal.SIGSTOP)
        lost = await runner.run(request_for("1", workspace, wall_seconds=0.1))
        assert (lost.status, lost.ended_by) == (ExecStatus.UNAVAILABLE, EndedBy.WORKER)
        assert (await runner.run(request_for("6 * 7", workspace))).stdout == b"42\n"


async def test_a_worker_that_dies_leaves_its_memory_nowhere(workspace: int) -> None:
    """With 0 a core would still go to a program of the host, where the kernel pipes it to one."""
    async with running() as runner:
        text = "import resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))"
        result = await runner.run(request_for(text, workspace))
    ceiling = resource.getrlimit(resource.RLIMIT_CORE)[1]
    most = 1 if ceiling == resource.RLIM_INFINITY else min(1, ceiling)
    assert result.stdout.decode() == f"({most}, {most})\n"


async def test_one_file_has_a_limit_of_its_own(workspace: int, place: Path) -> None:
    async with running() as runner:
        result = await runner.run(
            request_for("open('big', 'wb').write(bytes(20 * 1024 ** 2))", workspace)
        )
    assert result.status is ExecStatus.ERROR
    assert b"File too large" in result.stderr
    assert _size(place / "big") <= 16 * 1024**2


async def test_a_request_cannot_raise_its_limits(workspace: int) -> None:
    async with running() as runner:
        result = await runner.run(
            request_for(
                "import resource\nprint(resource.getrlimit(resource.RLIMIT_AS)[0],"
                " resource.getrlimit(resource.RLIMIT_NOFILE)[0])",
                workspace,
                memory_bytes=1 << 40,
                descriptors=4000,
            )
        )
    assert result.stdout == f"{512 * 1024**2} 64\n".encode()


async def test_a_program_that_is_too_long_is_refused(workspace: int) -> None:
    async with running() as runner:
        result = await runner.run(request_for("#" * (1024 * 1024), workspace))
    assert (result.status, result.ended_by) == (ExecStatus.REFUSED, EndedBy.FIRST_LAYER)


async def test_an_engine_that_is_missing_is_told_with_its_reason(workspace: int) -> None:
    gaps = {EngineName.NATIVE: "the kernel offers no Landlock (ENOSYS)"}
    async with running(gaps=gaps) as runner:
        assert runner.unavailable(EngineName.NATIVE) == gaps[EngineName.NATIVE]
        result = await runner.run(request_for("1", workspace))
    assert (result.status, result.reason) == (ExecStatus.UNAVAILABLE, gaps[EngineName.NATIVE])


async def test_words_instead_of_a_program_do_not_run_natively(workspace: int) -> None:
    async with running() as runner:
        result = await runner.run(
            ExecRequest(
                engine=EngineName.NATIVE,
                program=Argv(words=("true",)),
                tenant_hex=TENANT,
                run_hex=RUN,
                workspace_fd=workspace,
            )
        )
    assert result.status is ExecStatus.ERROR


async def test_every_call_without_walls_is_told_in_the_log(
    workspace: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(SandboxMode.OFF_UNSAFE) as runner:
        for _ in range(2):
            await runner.run(request_for("1", workspace))
    assert [record.getMessage() for record in caplog.records if "off-unsafe" in record.message] == [
        "a program runs unconfined: MESHFLOW_SANDBOX is off-unsafe"
    ] * 2


async def test_the_server_goes_on_while_programs_run(workspace: int) -> None:
    """The loop turns while a worker starts, floods and is ended: it never waits for any of it."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with running() as runner:
        turning = asyncio.create_task(turn())
        await runner.run(request_for("while True: print('x' * 4096)", workspace, wall_seconds=0.5))
        turning.cancel()
    assert turns > 50


async def test_a_closed_runner_starts_nothing_more(workspace: int) -> None:
    before = _children()
    runner = runner_for()
    await runner.run(request_for("1", workspace))
    await runner.close()
    await runner.close()
    result = await runner.run(request_for("1", workspace))
    assert result.status is ExecStatus.UNAVAILABLE
    await runner.close()
    assert _children() - before == set()
