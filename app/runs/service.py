"""RunService: lets a task in through the gate, records the decision, and starts the run.

Threat: Prompt injection via task input
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from app.agents.labelled_turns import state_at_start
from app.domain.capability import Capabilities
from app.domain.errors import InvalidSubmissionError, PolicyDeniedError, ToolsBusyError
from app.domain.idempotency import KeyClaim
from app.domain.receipt import RecordReceipt
from app.domain.record import RunFinished, RunStarted, RunSubmitted
from app.domain.run import (
    TERMINAL,
    Caller,
    RunId,
    RunKind,
    RunRow,
    RunStatus,
    Scope,
    Submission,
    TenantId,
    Usage,
    public_run_id,
)
from app.domain.verdict import AdmittedTask, Deny
from app.ledger.writing import ChainHead
from app.policy.gate_inputs import SubmitInput
from app.providers.prices import ModelPrice, Models
from app.providers.provider import ModelProvider
from app.runs.admission import SubmissionRoom
from app.runs.executor import RunExecutor, RunJob
from app.runs.opening import RunOpener
from app.runs.recorder import LedgerRecorder, RecorderParts, RunPlace
from app.runs.run_keys import RunKeys
from app.runs.run_policy import RunPolicies
from app.runs.working_copy import WorkingTask, task_bytes
from app.storage.companions import NewRun, QueuePut, TakenKey, WrappedKey
from app.storage.run_store import RunStore
from app.tools.toolbox import Toolbox

_ACCEPTED, _REFUSED = 202, 403  # what a submission that comes again is answered with
_WORKERS_SECONDS: Final = 1  # a program takes at most ten, and several run side by side
_WORKERS: Final = frozenset({"seccomp"})  # what every tool needs that runs in a worker


class DispatchDoor(Protocol):
    """What the queue's side has to know of submissions."""

    def place_for(self, tenant: str, run_id: RunId) -> UUID | None:
        """Who begins with a run of this tenant that is about to be let in; None: it waits."""

    def launch(self, job: RunJob) -> None:
        """A run was let in."""

    def disown(self, run_id: RunId) -> None:
        """Whoever submitted it was told that it did not enter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What the service is built from."""

    policies: RunPolicies
    providers: Mapping[str, ModelProvider]
    models: Models
    toolbox: Toolbox
    recorder_parts: RecorderParts
    run_keys: RunKeys
    executor: RunExecutor
    dispatch: DispatchDoor
    opener: RunOpener
    runs: RunStore
    now: Callable[[], datetime]
    new_run_id: Callable[[], RunId]
    new_command_id: Callable[[], UUID]
    bounds_of: Callable[[Caller, str | None], Capabilities]  # with an agent, by its name
    workers_are_full: Callable[[], bool]
    room: SubmissionRoom = field(default_factory=SubmissionRoom)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedRun:
    """A run that was just admitted, as recorded: its row, and its task as scrubbed JSON."""

    run: RunRow
    task: bytes
    entries: int
    receipt: RecordReceipt


class RunService:
    """Start and cancel runs. Everything it admits or refuses is recorded before it answers."""

    def __init__(self, parts: ServiceParts) -> None:
        self._parts = parts

    async def start(
        self, caller: Caller, submission: Submission, key: KeyClaim | None = None
    ) -> StartedRun:
        """Admit a task: durable when this returns, and no other run can begin with `key`.

        PolicyDeniedError after the refusal is recorded; InvalidSubmissionError for a model or
        tool that does not exist; OverloadedError and LedgerUnavailableError before anything.
        KeyBusyError and KeyTakenError: another request has the key, nothing was done.
        TenantBusyError too, when too much of the tenant is on its way, and ToolsBusyError for a
        run whose tools would only stand in a queue that is full.
        """
        price, provider = self._resolved(submission)
        if self._parts.workers_are_full() and self._uses_workers(submission):
            raise ToolsBusyError(_WORKERS_SECONDS)
        run_id = self._parts.new_run_id()
        with self._parts.room.taken(caller.tenant):
            self._parts.executor.admit(run_id)
            try:
                return await self._start(caller, submission, run_id, (price, provider), key)
            except PolicyDeniedError:
                self._parts.executor.forget(run_id)  # it is over: there is nothing to drive
                raise
            except BaseException:
                # Not let in: the room goes back. Should it be there all the same, it is ended.
                self._parts.executor.forget(run_id)
                self._parts.dispatch.disown(run_id)
                raise

    async def cancel(self, caller: Caller, run_id: RunId, status: RunStatus) -> bool:
        """Ask a run to stop; durable when this returns. False when it is over already."""
        if status in TERMINAL:
            return False
        command_id = self._parts.new_command_id()
        await self._parts.runs.request_cancel(caller.tenant_id, run_id, command_id, caller.actor)
        self._parts.executor.cancel(run_id, caller.actor)
        return True

    def _uses_workers(self, submission: Submission) -> bool:
        """Whether one of its tools runs programs, which all wait in one queue."""
        specs = self._parts.toolbox.specs
        return any(_WORKERS & spec.needs for spec in specs if spec.name in submission.tools)

    def _derived(self, submission: Submission, *, may_instruct: bool) -> tuple[str, ...]:
        """The tools that it may use by what was declared or asked for."""
        names = set(submission.tools)
        offered = [spec for spec in self._parts.toolbox.specs if spec.name in names]
        state = state_at_start(submission, offered, may_instruct=may_instruct)
        return state.derived_tools

    def _resolved(self, submission: Submission) -> tuple[ModelPrice, ModelProvider]:
        price = self._parts.models.get(submission.model)
        provider = None if price is None else self._parts.providers.get(price.provider)
        if price is None or provider is None:
            raise InvalidSubmissionError("/model", "this deployment does not offer that model")
        if not set(submission.tools) <= self._parts.toolbox.names:
            raise InvalidSubmissionError("/tools", "this deployment does not have that tool")
        return price, provider

    async def _start(
        self,
        caller: Caller,
        submission: Submission,
        run_id: RunId,
        model: tuple[ModelPrice, ModelProvider],
        key: KeyClaim | None,
    ) -> StartedRun:
        parts, now = self._parts, self._parts.now()
        gate = await parts.policies.of_submission(caller, submission.policy)
        granted = parts.bounds_of(caller, submission.agent).tools or frozenset()
        verdict = gate.run_submit(SubmitInput(submission=submission, platform_tools=granted))
        run_key, wrapped = parts.run_keys.new_run_key(caller.tenant_id, run_id, now)
        work_key, work_wrapped = parts.run_keys.new_work_key(caller.tenant_id, run_id, now)
        place = _first_place(caller.tenant_id, run_id, run_key, work_key)
        recorder = LedgerRecorder(place, parts.recorder_parts)
        new_run = _new_run(submission, model[1].name, gate.policy.digest, now, wrapped)
        recorder.open_run(new_run, _taken(key, verdict))
        # Authority is what the instructions say; a key that could have given some, and sent only
        # data, asked for no effect.
        may_instruct = Scope.INSTRUCT in caller.scopes and submission.instructions is not None
        recorder.label(parts.run_keys.labels.of(caller.tenant_id, submission.metadata))
        submitted = RunSubmitted(
            actor=caller.actor,
            submission=submission,
            provider=model[1].name,
            decision=verdict.decision,
            derived=self._derived(submission, may_instruct=may_instruct),
        )
        if isinstance(verdict, Deny):
            raise await _refused(recorder, submitted, verdict)
        task = WorkingTask(tenant=caller.tenant, may_instruct=may_instruct, submission=submission)
        recorder.open_work(work_wrapped, task_bytes(task))
        worker = parts.dispatch.place_for(caller.tenant, run_id)
        recorder.queue(QueuePut(worker=worker))
        job = RunJob(
            place=recorder.place,
            task=verdict,
            price=model[0],
            provider=model[1],
            gate=gate,
            may_instruct=may_instruct,
            opened=parts.opener,
        )
        begun = None if worker is None else await self._begun(job, recorder, submitted)
        if begun is None:
            await recorder.record(submitted, Usage())
        status = new_run.status if begun is None else RunStatus.RUNNING
        started = _started(recorder, replace(new_run, status=status))
        parts.dispatch.launch(begun or replace(job, place=recorder.place))
        return started

    async def _begun(
        self, job: RunJob, recorder: LedgerRecorder, submitted: RunSubmitted
    ) -> RunJob | None:
        """The run with its submission, its start and its first request in one durable write.

        None, and nothing is recorded, when the gate does not allow that request: then it is let in
        and ends as any run does. Under the epoch that it is opened with: nobody was its owner
        before.
        """
        driven = self._parts.opener.opened(job, recorder)
        loop = driven.open_loop()
        if not loop.may_begin():
            return None
        recorder.set_status(RunStatus.RUNNING)
        recorder.hold(submitted)
        recorder.hold(RunStarted())
        await loop.begin()
        begun = replace(driven, open_loop=lambda: loop)
        return replace(job, place=recorder.place, opened=lambda _: begun, is_begun=True)


def _new_run(
    submission: Submission, provider: str, policy_digest: str, now: datetime, key: WrappedKey
) -> NewRun:
    return NewRun(
        kind=RunKind.AGENT,
        status=RunStatus.QUEUED,
        provider=provider,
        model=submission.model,
        agent=submission.agent,
        policy_digest=policy_digest,
        created_at=now,
        key=key,
    )


async def _refused(
    recorder: LedgerRecorder, submitted: RunSubmitted, verdict: Deny
) -> PolicyDeniedError:
    """The refusal, recorded."""
    recorder.hold(submitted)
    denial, code = verdict.decision, verdict.decision.code
    final = RunFinished(status=RunStatus.BLOCKED, error_code=code, decision=denial)
    await recorder.record(final, Usage())
    run_id = public_run_id(recorder.place.run_id)
    return PolicyDeniedError(run_id, denial.rules, code, recorder.take_receipt())


def _started(recorder: LedgerRecorder, new_run: NewRun) -> StartedRun:
    """What the write that let a run in has recorded."""
    place = recorder.place
    return StartedRun(
        run=_row(place.tenant_id, place.run_id, new_run),
        task=recorder.take_recorded()[0].fields["task"].value,
        entries=place.head.next_seq,
        receipt=recorder.take_receipt(),
    )


def _taken(key: KeyClaim | None, verdict: AdmittedTask | Deny) -> TakenKey | None:
    if key is None:
        return None
    return TakenKey(claim=key, status=_REFUSED if isinstance(verdict, Deny) else _ACCEPTED)


def _first_place(tenant_id: TenantId, run_id: RunId, run_key: bytes, work_key: bytes) -> RunPlace:
    return RunPlace(
        tenant_id=tenant_id,
        run_id=run_id,
        run_key=run_key,
        head=ChainHead.empty(tenant_id.bytes, run_id.bytes),
        epoch=1,
        work_key=work_key,
    )


def _row(tenant_id: TenantId, run_id: RunId, new_run: NewRun) -> RunRow:
    """The row that the first record brought with it."""
    return RunRow(
        tenant_id=tenant_id,
        run_id=run_id,
        kind=new_run.kind,
        status=new_run.status,
        epoch=1,
        provider=new_run.provider,
        model=new_run.model,
        agent=new_run.agent,
        usage=Usage(),
        entries=None,
        error_code=None,
        policy_digest=new_run.policy_digest,
        created_at=new_run.created_at,
        finished_at=None,
    )
