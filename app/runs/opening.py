"""Opens a run for driving, a new one or a resumed one: its recorder, its workspace, its loop."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from app.agents.loop import AgentLoop
from app.agents.loop_parts import LoopParts
from app.agents.model_retry import RetryParts
from app.agents.prompts import run_marks
from app.ledger.hashing import digest_key
from app.runs.executor import DrivenRun, RunJob
from app.runs.recorder import LedgerRecorder, RecorderParts
from app.runs.work_files import WorkFiles
from app.sandbox.workspace import Workspace, WorkspaceRoot
from app.storage.work_store import WorkStore
from app.tools.toolbox import Toolbox


class LazyFiles:
    """A run's workspace, made when a tool first needs it: most runs write no file."""

    def __init__(self, root: WorkspaceRoot, tenant_hex: str, run_hex: str, kept: WorkFiles) -> None:
        self._root = root
        self._names = (tenant_hex, run_hex)
        self._kept = kept
        self._opened: Workspace | None = None

    async def workspace(self) -> Workspace:
        """The workspace, with the files that another process left; the same one every time."""
        if self._opened is None:
            self._opened = self._root.for_run(*self._names)
            await self._kept.lay_out(self._opened)
        return self._opened

    async def keep(self) -> None:
        """Make the files durable as they are. A LedgerError: they are not known to be."""
        await self._kept.keep(await self.workspace())

    def close(self) -> None:
        """Let the directory go, if it was opened."""
        if self._opened is not None:
            self._opened.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrivingParts:
    """What every run of a process is driven with."""

    toolbox: Toolbox
    workspaces: WorkspaceRoot
    work: WorkStore
    recorder_parts: RecorderParts
    monotonic: Callable[[], float]
    model_timeout_seconds: float
    retry: RetryParts


class RunOpener:
    """Makes of a job what drives it, when its turn comes."""

    def __init__(self, parts: DrivingParts) -> None:
        self._parts = parts

    def __call__(self, job: RunJob) -> DrivenRun:
        """The run's recorder and loop; nothing is opened yet that would have to be closed."""
        return self.opened(job, LedgerRecorder(job.place, self._parts.recorder_parts))

    def opened(self, job: RunJob, recorder: LedgerRecorder) -> DrivenRun:
        """The same with the recorder of whoever let the run in."""
        parts, place = self._parts, job.place
        entropy = parts.recorder_parts.entropy
        kept = WorkFiles(parts.work, lambda: recorder.place, entropy, job.files)
        files = LazyFiles(parts.workspaces, place.tenant_id.hex, place.run_id.hex, kept)
        return DrivenRun(
            recorder=recorder,
            open_loop=partial(self._loop, job, files, recorder),
            close=files.close,
        )

    def _loop(self, job: RunJob, files: LazyFiles, recorder: LedgerRecorder) -> AgentLoop:
        parts = self._parts
        loop_parts = LoopParts(
            gate=job.gate,
            provider=job.provider,
            price=job.price,
            toolbox=parts.toolbox,
            files=files,
            journal=recorder,
            monotonic=parts.monotonic,
            model_timeout_seconds=parts.model_timeout_seconds,
            marks=run_marks(digest_key(job.place.run_key)),
            retry=parts.retry,
        )
        return AgentLoop(job.task, loop_parts, may_instruct=job.may_instruct, since=job.since)
