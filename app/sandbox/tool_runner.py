"""The server's door to confined execution: bounded in number, never blocking, never without walls.

Threat: Privilege escalation via tool calls
"""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final

from app.domain.errors import ConfinementError, OverloadedError
from app.domain.sandbox_mode import SandboxMode
from app.sandbox.call_ends import OVER_QUOTA, capped, judged, not_run
from app.sandbox.captured_output import CapturedOutput
from app.sandbox.execution import (
    EndedBy,
    EngineName,
    ExecLimits,
    ExecRequest,
    ExecResult,
    ExecStatus,
    SourceText,
)
from app.sandbox.flooded_workspaces import FloodedWorkspaces
from app.sandbox.memory_file import memory_file
from app.sandbox.python_engine import PythonEngine
from app.sandbox.sandbox_profile import SandboxProfile, WorkerAccount
from app.sandbox.waiting_monty import GRACE_SECONDS, WaitingRoom, may_do_without_files
from app.sandbox.worker_protocol import MAX_PROGRAM_BYTES, Done, Ended, encode_program
from app.sandbox.zygote_configuration import ZygoteConfiguration
from app.sandbox.zygote_link import CallInFlight, ZygoteLink
from app.sandbox.zygote_pool import PoolLimits, ZygotePool

_log = logging.getLogger(__name__)
_RETRY_AFTER_SECONDS: Final = 1
_LEAST_WALL_SECONDS: Final = 0.1
MAX_STDIN_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerOptions:
    """What the runner is built from. `gaps` names the engines that cannot run here, and why."""

    profile: SandboxProfile = field(default_factory=SandboxProfile)
    account: WorkerAccount | None = None
    gaps: Mapping[EngineName, str] = field(default_factory=dict)
    libraries: Mapping[EngineName, tuple[str, ...]] = field(default_factory=dict)
    concurrency: int = 2 * (os.cpu_count() or 1)
    queue: int = 32
    makes_ahead: bool = True  # a worker of `monty` for the next call, before there is one
    keeps_spare: bool = False  # once an engine is used, the next tenant need not wait for it
    pool: PoolLimits = field(default_factory=PoolLimits)
    python: PythonEngine = field(default_factory=PythonEngine)
    shell_has_files: bool = True  # the virtual shell's; never without Landlock


class ToolRunner:
    """Runs programs in confined workers. Belongs to one event loop; `close` ends all it started."""

    def __init__(self, options: RunnerOptions) -> None:
        self._options = options
        self._pool = ZygotePool(self._start_zygote, options.pool)
        self._room = WaitingRoom()
        self._seats = asyncio.Semaphore(options.concurrency)
        self._waiting = 0
        self._flooded = FloodedWorkspaces()

    def unavailable(self, engine: EngineName) -> str | None:
        """Why this engine cannot run here, as one sentence, or None when it can."""
        return self._options.gaps.get(engine)

    @property
    def mode(self) -> SandboxMode:
        """How workers are confined; stamped into every record."""
        return self._options.profile.mode

    @property
    def python_engine(self) -> PythonEngine:
        """The interpreter of the tool `python`; `unavailable` says whether it can run."""
        return self._options.python

    @property
    def shell_has_files(self) -> bool:
        """Whether commands of the virtual shell see the files of the workspace."""
        return self._options.shell_has_files

    @property
    def is_full(self) -> bool:
        """Whether one more call would be turned away."""
        return self._seats.locked() and self._waiting >= self._options.queue

    async def run(self, request: ExecRequest) -> ExecResult:
        """Run to an end within the limits; never raises for what the program does.

        OverloadedError when too much is waiting: nothing was run. Cancelling kills the program.
        """
        gap = self.unavailable(request.engine)
        if gap is not None:
            return not_run(ExecStatus.UNAVAILABLE, EndedBy.CONFINEMENT, gap)
        program = encode_program(request.program)
        if len(program) > MAX_PROGRAM_BYTES or len(request.stdin) > MAX_STDIN_BYTES:
            return not_run(ExecStatus.REFUSED, EndedBy.FIRST_LAYER, "the program is too long")
        if self.is_full:
            raise OverloadedError(_RETRY_AFTER_SECONDS)
        self._waiting += 1
        try:
            await self._seats.acquire()
        finally:
            self._waiting -= 1
        try:
            await self._flooded.room()
            return await self._run(request, program)
        finally:
            self._seats.release()

    async def close(self) -> None:
        """End every worker. May be called again."""
        self._flooded.close()
        await self._pool.close()

    @property
    def calls_at_once(self) -> int:
        """How many calls were answered by a worker that had waited for one."""
        return self._room.calls

    async def until_one_waits(self, tenant_hex: str) -> bool:
        """Whether the tenant's next call of `monty` finds a worker that waits, as one does idle.

        It is being made when this is asked: benches and tests ask, calls never wait for it.
        """
        await asyncio.sleep(0)  # what the last call left to do is done first
        link = self._pool.link_of(tenant_hex, EngineName.MONTY)
        return link is not None and await self._room.ready(link)

    async def _start_zygote(self, engine: EngineName) -> ZygoteLink:
        link = await self._started(engine)
        self._prepare(engine, link, capped(ExecLimits(), self._options.profile.limits))
        return link

    def _prepare(self, engine: EngineName, link: ZygoteLink, limits: ExecLimits) -> None:
        if engine is EngineName.MONTY and self._options.makes_ahead:
            self._room.prepare(link, limits)

    async def _started(self, engine: EngineName) -> ZygoteLink:
        python, is_monty = self._options.python, engine is EngineName.MONTY
        has_files = self._options.shell_has_files or engine is not EngineName.VIRTUAL_SHELL
        return await ZygoteLink.start(
            ZygoteConfiguration(
                engine=engine,
                profile=self._options.profile.for_engine(engine),
                account=self._options.account,
                libraries=self._options.libraries.get(engine, ()),
                interpreter=python.interpreter if is_monty else "",
                has_files=python.has_files if is_monty else has_files,
            )
        )

    async def _run(self, request: ExecRequest, program: bytes) -> ExecResult:
        if self.mode is SandboxMode.OFF_UNSAFE:
            _log.warning("a program runs unconfined: MESHFLOW_SANDBOX is off-unsafe")
        limits = capped(request.limits, self._options.profile.limits)
        try:
            lease = await self._pool.take(request.tenant_hex, request.engine)
        except ConfinementError as refused:
            _log.error("no worker: %s", refused)
            return not_run(ExecStatus.UNAVAILABLE, EndedBy.CONFINEMENT, str(refused))
        if self._options.keeps_spare:
            self._pool.warm(request.engine)
        try:
            began = time.monotonic()
            result = await self._at_once(lease.link, request, limits)
            if result is None:
                left = _left_of(limits, time.monotonic() - began)
                result = await self._in_workspace(lease.link, request, left, program)
            return result
        finally:
            self._pool.give_back(lease)
            # After the answer, which does not wait for it.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._prepare, request.engine, lease.link, limits)

    async def _at_once(
        self, link: ZygoteLink, request: ExecRequest, limits: ExecLimits
    ) -> ExecResult | None:
        """The result of a worker that waited, or None: one that sees the workspace has to run."""
        match request.engine, request.program:
            case EngineName.MONTY, SourceText(text=text) if may_do_without_files(text):
                waiting = self._room.take(link, limits)
            case _:
                return None
        if waiting is None:
            return None
        result = await waiting.run(text)
        self._room.calls += result is not None
        return result

    async def _in_workspace(
        self, link: ZygoteLink, request: ExecRequest, limits: ExecLimits, program: bytes
    ) -> ExecResult:
        try:
            result = await _Attempt(link, request, limits).run(program)
        finally:
            # Also after a cancelled call, and after a zygote that could not look.
            # With a descriptor of its own: a cancelled caller closes theirs at once.
            own = os.dup(request.workspace_fd)
            looked = self._flooded.emptied_when_over(own, request.workspace, limits)
            over = await asyncio.shield(asyncio.ensure_future(looked))
        if over:
            return replace(
                result,
                status=ExecStatus.KILLED,
                ended_by=EndedBy.WORKSPACE_QUOTA,
                reason=OVER_QUOTA,
            )
        return result


class _Attempt:
    """One call in one zygote."""

    def __init__(self, link: ZygoteLink, request: ExecRequest, limits: ExecLimits) -> None:
        self._link = link
        self._request = request
        self._limits = limits
        self._overflowed = asyncio.Event()

    async def run(self, program: bytes) -> ExecResult:
        """Send the call and see it end; nothing of it is left when this returns or is cancelled."""
        with ExitStack() as held:
            stdout = CapturedOutput(self._limits.stdout_bytes, self._overflowed.set)
            held.callback(stdout.close)
            stderr = CapturedOutput(self._limits.stderr_bytes, self._overflowed.set)
            held.callback(stderr.close)
            inputs = []
            for data in (program, _standard_input(self._request)):
                inputs.append(memory_file(data))
                held.callback(os.close, inputs[-1])
            call = self._link.begin(
                self._limits, [self._request.workspace_fd, *inputs, stdout.writer, stderr.writer]
            )
            stdout.sent()
            stderr.sent()
            try:
                await self._until_over(call)
            finally:
                await self._make_sure(call)
            return self._result(call.answer.result(), stdout, stderr)

    async def _until_over(self, call: CallInFlight) -> None:
        """Until the call was answered, wrote too much, or should long have been ended."""
        overflow = asyncio.ensure_future(self._overflowed.wait())
        try:
            await asyncio.wait(
                (call.answer, overflow),
                timeout=self._limits.wall_seconds + GRACE_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            overflow.cancel()

    @staticmethod
    async def _make_sure(call: CallInFlight) -> None:
        """Stop what still runs; a zygote that does not obey is killed, and its workers with it."""
        if call.answer.done():
            return
        call.stop()
        await asyncio.wait((call.answer,), timeout=GRACE_SECONDS)
        if not call.answer.done():
            call.link.abandon()
            await asyncio.wait((call.answer,))

    def _result(
        self, done: Done | None, stdout: CapturedOutput, stderr: CapturedOutput
    ) -> ExecResult:
        if done is None:
            return not_run(ExecStatus.UNAVAILABLE, EndedBy.WORKER, "the worker was lost")
        out, err = stdout.finish(), stderr.finish()
        status, ended_by, reason = judged(done, overflowed=self._overflowed.is_set())
        return ExecResult(
            status=status,
            exit_code=done.exit_code if done.ended is Ended.EXITED else None,
            stdout=out,
            stderr=err,
            stdout_truncated=stdout.is_truncated,
            stderr_truncated=stderr.is_truncated,
            cpu_seconds=done.cpu_seconds,
            wall_seconds=done.wall_seconds,
            peak_memory_bytes=done.peak_memory_bytes,
            ended_by=ended_by,
            reason=reason,
        )


def _left_of(limits: ExecLimits, spent_seconds: float) -> ExecLimits:
    """What a call may still use after its first attempt."""
    return replace(
        limits,
        wall_seconds=max(limits.wall_seconds - spent_seconds, _LEAST_WALL_SECONDS),
        cpu_seconds=max(limits.cpu_seconds - int(spent_seconds), 1),
    )


def _standard_input(request: ExecRequest) -> bytes:
    """What descriptor 0 holds: for an interpreter that asks for no input, the program itself."""
    match request.engine, request.program:
        case EngineName.MONTY, SourceText(text=text):
            return text.encode(errors="replace")
        case _:
            return request.stdin
