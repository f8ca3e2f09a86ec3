"""The server's door to confined execution: bounded in number, never blocking, never without walls.

Threat: Privilege escalation via tool calls
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from typing import Final, assert_never

from app.domain.errors import ConfinementError, OverloadedError
from app.domain.sandbox_mode import SandboxMode
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
from app.sandbox.python_engine import PythonEngine
from app.sandbox.sandbox_profile import SandboxProfile, WorkerAccount
from app.sandbox.worker_protocol import MAX_PROGRAM_BYTES, Done, Ended, encode_program
from app.sandbox.zygote_configuration import ZygoteConfiguration
from app.sandbox.zygote_link import CallInFlight, ZygoteLink
from app.sandbox.zygote_pool import PoolLimits, ZygotePool

_log = logging.getLogger(__name__)
_GRACE_SECONDS: Final = 2.0  # beyond its own deadline a zygote is taken for lost
_RETRY_AFTER_SECONDS: Final = 1
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
    keeps_spare: bool = False  # once an engine is used, the next tenant need not wait for it
    pool: PoolLimits = field(default_factory=PoolLimits)
    python: PythonEngine = field(default_factory=PythonEngine)
    shell_has_files: bool = True  # the virtual shell's; never without Landlock


_OVER_QUOTA: Final = "the workspace held more than its quota and was emptied"


class ToolRunner:
    """Runs programs in confined workers. Belongs to one event loop; `close` ends all it started."""

    def __init__(self, options: RunnerOptions) -> None:
        self._options = options
        self._pool = ZygotePool(self._start_zygote, options.pool)
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
            return _not_run(ExecStatus.UNAVAILABLE, EndedBy.CONFINEMENT, gap)
        program = encode_program(request.program)
        if len(program) > MAX_PROGRAM_BYTES or len(request.stdin) > MAX_STDIN_BYTES:
            return _not_run(ExecStatus.REFUSED, EndedBy.FIRST_LAYER, "the program is too long")
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

    async def _start_zygote(self, engine: EngineName) -> ZygoteLink:
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
        limits = _capped(request.limits, self._options.profile.limits)
        try:
            lease = await self._pool.take(request.tenant_hex, request.engine)
        except ConfinementError as refused:
            _log.error("no worker: %s", refused)
            return _not_run(ExecStatus.UNAVAILABLE, EndedBy.CONFINEMENT, str(refused))
        if self._options.keeps_spare:
            self._pool.warm(request.engine)
        try:
            result = await _Attempt(lease.link, request, limits).run(program)
        finally:
            self._pool.give_back(lease)
            # Also after a cancelled call, and after a zygote that could not look.
            # With a descriptor of its own: a cancelled caller closes theirs at once.
            own = os.dup(request.workspace_fd)
            looked = self._flooded.emptied_when_over(own, request.workspace, limits)
            over = await asyncio.shield(asyncio.ensure_future(looked))
        if over and result.ended_by is not EndedBy.WORKSPACE_QUOTA:
            return replace(
                result,
                status=ExecStatus.KILLED,
                ended_by=EndedBy.WORKSPACE_QUOTA,
                reason=_OVER_QUOTA,
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
                inputs.append(_memory_file(data))
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
                timeout=self._limits.wall_seconds + _GRACE_SECONDS,
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
        await asyncio.wait((call.answer,), timeout=_GRACE_SECONDS)
        if not call.answer.done():
            call.link.abandon()
            await asyncio.wait((call.answer,))

    def _result(
        self, done: Done | None, stdout: CapturedOutput, stderr: CapturedOutput
    ) -> ExecResult:
        if done is None:
            return _not_run(ExecStatus.UNAVAILABLE, EndedBy.WORKER, "the worker was lost")
        out, err = stdout.finish(), stderr.finish()
        status, ended_by, reason = _judged(done, overflowed=self._overflowed.is_set())
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


def _judged(done: Done, *, overflowed: bool) -> tuple[ExecStatus, EndedBy | None, str]:
    """What the end of a worker means, and the sentence that says it."""
    if overflowed:
        return ExecStatus.KILLED, EndedBy.OUTPUT_LIMIT, "the program wrote more than it may"
    match done.ended:
        case Ended.EXITED:
            return (ExecStatus.ERROR if done.exit_code else ExecStatus.OK), None, ""
        case Ended.SIGNALLED:
            return ExecStatus.KILLED, EndedBy.SIGNAL, f"the program died of signal {done.signal}"
        case Ended.DEADLINE:
            return ExecStatus.TIMEOUT, EndedBy.DEADLINE, "the program ran out of time"
        case Ended.CPU_LIMIT:
            return ExecStatus.TIMEOUT, EndedBy.CPU_LIMIT, "the program ran out of processor time"
        case Ended.QUOTA:
            return ExecStatus.KILLED, EndedBy.WORKSPACE_QUOTA, _OVER_QUOTA
        case Ended.ASKED:
            return ExecStatus.TIMEOUT, EndedBy.WORKER, "the program was stopped"
        case Ended.NOT_CONFINED:
            return ExecStatus.UNAVAILABLE, EndedBy.CONFINEMENT, done.problem
        case _:
            assert_never(done.ended)


def _not_run(status: ExecStatus, ended_by: EndedBy, reason: str) -> ExecResult:
    return ExecResult(status=status, ended_by=ended_by, reason=reason)


def _capped(asked: ExecLimits, most: ExecLimits) -> ExecLimits:
    """What was asked for, and never more than the profile gives."""
    return ExecLimits(
        **{
            limit.name: min(getattr(asked, limit.name), getattr(most, limit.name))
            for limit in fields(ExecLimits)
        }
    )


def _standard_input(request: ExecRequest) -> bytes:
    """What descriptor 0 holds: for an interpreter that asks for no input, the program itself."""
    match request.engine, request.program:
        case EngineName.MONTY, SourceText(text=text):
            return text.encode(errors="replace")
        case _:
            return request.stdin


def _memory_file(data: bytes) -> int:
    """A descriptor that holds `data` and that nobody can change any more; at its beginning."""
    descriptor = os.memfd_create("call", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor
