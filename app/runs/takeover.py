"""Puts a run together again that lost its process: its verified ledger and its working copy.

Whatever is finished is told from the copy and never done again; what cannot be put together
exactly ends, unless another process may have what this one lacks. Whether this process may go on
is settled by its first record alone: it raises the epoch, and from then on the former owner is
refused.

Threat: Ledger tampering
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from app.agents.progress import AskedCall, Progress
from app.domain.errors import KeyStoreError, NotFoundError, PolicyRefusedError
from app.domain.run import RunId, RunStatus, TenantId, Usage
from app.domain.step import IN_FILES, ResultsMessage
from app.domain.verdict import Deny
from app.ledger.chain import Resume, VerifiedRecord
from app.ledger.run_account import PARKED_KIND, RESUMED_KIND, STARTED_KIND
from app.ledger.sealing import SealError, open_work
from app.ledger.writing import ChainHead
from app.policy.gate import DascGate
from app.policy.gate_inputs import SubmitInput
from app.providers.prices import Models
from app.providers.provider import ModelProvider
from app.runs.approval_facts import asks_of, refused_among, waited_seconds
from app.runs.dispatcher import LostRun
from app.runs.executor import RunJob
from app.runs.opening import DrivingParts, RunOpener
from app.runs.recorder import LedgerRecorder, RunPlace
from app.runs.run_keys import RunKeys
from app.runs.run_policy import RunPolicies
from app.runs.work_files import left_files
from app.runs.working_copy import WorkingCopyError, opened_task, progress_of
from app.storage.run_store import RunStore

# A model call that was begun and not answered for is made anew, and nothing of its cost is known.
MOST_VAIN_RESUMPTIONS = 5
_PROGRESS = frozenset({"llm.responded", "tool.finished", PARKED_KIND})


class UnfitProcessError(WorkingCopyError):
    """Nothing is wrong with the run: this process has not what it began with."""


class VerifiedRun(Protocol):
    """A run that verified: where its ledger ends, its key, what it used, and its records."""

    @property
    def head(self) -> Resume:
        """Behind which record it goes on."""

    @property
    def run_key(self) -> bytes:
        """The key of its ledger."""

    @property
    def spent(self) -> Usage:
        """What its records say that it used."""

    @property
    def policy_digest(self) -> str:
        """The policy that it began under."""

    @property
    def records(self) -> Sequence[VerifiedRecord]:
        """All of them, in order."""


Reopen = Callable[[TenantId, RunId], Awaitable[VerifiedRun]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeoverParts:
    """What a run is put together with."""

    reopen: Reopen
    runs: RunStore
    keys: RunKeys
    driving: DrivingParts
    policies: RunPolicies
    providers: Mapping[str, ModelProvider]
    models: Models
    tenant_tools: Callable[[str], frozenset[str]]
    has_workspace: Callable[[TenantId, RunId], bool]
    now: Callable[[], datetime]


class Takeover:
    """Makes a job of an orphan, or says that nobody here can go on with it."""

    def __init__(self, parts: TakeoverParts) -> None:
        self._parts = parts
        self.opener = RunOpener(parts.driving)

    async def restore(self, tenant_id: TenantId, run_id: RunId) -> RunJob | LostRun:
        """The run as a job, still under its epoch: its first record claims it.

        NotFoundError when it is over or is not there, another MeshFlowError when it cannot be read
        or does not verify: it stays as it is.
        """
        parts = self._parts
        # Before its records are read: whoever raises the epoch meanwhile refuses ours.
        epoch, status = await parts.runs.open_state(tenant_id, run_id)
        found = await parts.reopen(tenant_id, run_id)
        place = RunPlace(
            tenant_id=tenant_id,
            run_id=run_id,
            run_key=found.run_key,
            head=ChainHead(next_seq=found.head.next_seq, chain=found.head.chain),
            epoch=epoch,
        )
        actor = await parts.runs.cancelled_by(tenant_id, run_id)
        try:
            key, sealed = await self._copy(place)
            place = replace(place, work_key=key)
            gate = await self._gate(tenant_id, found.policy_digest)
            job = await self._with_files(self._job(place, found, sealed, gate, actor))
            return replace(job, is_parked=status is RunStatus.AWAITING_APPROVAL)
        except (WorkingCopyError, SealError, KeyStoreError) as error:
            recorder = LedgerRecorder(place, parts.driving.recorder_parts)
            elsewhere = isinstance(error, UnfitProcessError) and actor is None
            return LostRun(
                recorder=recorder, spent=found.spent, reason=str(error), elsewhere=elsewhere
            )

    async def _gate(self, tenant_id: TenantId, digest: str) -> DascGate:
        try:
            return await self._parts.policies.of_run(tenant_id, digest)
        except (NotFoundError, PolicyRefusedError):
            raise UnfitProcessError("this process has another policy") from None

    async def _copy(self, place: RunPlace) -> tuple[bytes, Sequence[tuple[int, bytes]]]:
        """The work key, and the sealed parts as far as the ledger was read."""
        stored = await self._parts.runs.working_copy(place.tenant_id, place.run_id)
        if stored is None:
            raise WorkingCopyError("there is no working copy")
        key, sealed = stored
        try:
            work_key = self._parts.keys.open(place.tenant_id, place.run_id, key)
        except KeyStoreError:
            # The day may have changed since it was read, and its KEK be gone: where is it now?
            again = await self._parts.runs.working_copy(place.tenant_id, place.run_id)
            if again is None or again[0].kek_id == key.kek_id:
                raise
            key, sealed = again
            work_key = self._parts.keys.open(place.tenant_id, place.run_id, key)
        # A former owner that was slow and not dead may have written on since the ledger was read.
        known = [(seq, blob) for seq, blob in sealed if seq < place.head.next_seq]
        return work_key, known

    async def _with_files(self, job: RunJob) -> RunJob:
        """With the files that its calls had made, as its last owner kept them."""
        parts, place = self._parts, job.place
        specs = {spec.name: spec for spec in parts.driving.toolbox.specs}
        if not any(specs[name].effect in IN_FILES for name in job.since.calls_made):
            return job
        rows = await parts.runs.work.files(place.tenant_id, place.run_id)
        left = left_files(place, rows)
        if left is None:
            # No call has ended yet that could have made some; or it was before they were kept.
            is_early = not any(specs[name].effect in IN_FILES for name in _answered(job.since))
            if is_early or parts.has_workspace(place.tenant_id, place.run_id):
                return job
            raise UnfitProcessError("the files of the run are not here")
        if left.files is None:
            raise WorkingCopyError("the files of the run could not be kept")
        return replace(job, files=left.files)

    def _job(
        self,
        place: RunPlace,
        found: VerifiedRun,
        sealed: Sequence[tuple[int, bytes]],
        gate: DascGate,
        cancelled_by: str | None,
    ) -> RunJob:
        """Under the policy it began with, with its own model and tools, on its own files."""
        parts = self._parts
        if _vain_resumptions(found.records) >= MOST_VAIN_RESUMPTIONS:
            raise WorkingCopyError("it was gone on with again and again, and does not get on")
        started_at = next((item.at for item in found.records if item.kind == STARTED_KIND), None)
        first, *later = opened_parts(place, sealed)
        asks = asks_of(found.records)
        task = opened_task(first)
        progress = progress_of(
            later,
            [(record.seq, record.kind) for record in found.records],
            spent=found.spent,
            elapsed_seconds=_elapsed(started_at, found.records, parts.now()),
            asked=_newest(asks, parts.now()),
        )
        progress = replace(progress, refused_asks=refused_among(found.records))
        said = task.submission
        price = parts.models.get(said.model)
        provider = None if price is None else parts.providers.get(price.provider)
        if price is None or provider is None:
            raise UnfitProcessError("this process has not the model")
        specs = {spec.name: spec for spec in parts.driving.toolbox.specs}
        if not set(said.tools) <= specs.keys():
            raise UnfitProcessError("this process has not the tools")
        verdict = gate.run_submit(
            SubmitInput(submission=said, platform_tools=parts.tenant_tools(task.tenant))
        )
        if isinstance(verdict, Deny):
            raise WorkingCopyError("the task is not admitted any more")
        return RunJob(
            place=place,
            task=verdict,
            price=price,
            provider=provider,
            gate=gate,
            may_instruct=task.may_instruct,
            opened=self.opener,
            since=progress,
            is_started=started_at is not None,
            cancelled_by=cancelled_by,
        )


def _answered(since: Progress) -> set[str]:
    """The names of the tools whose calls came to an end; of others a call may be under way."""
    told = [message for message in since.turns if isinstance(message, ResultsMessage)]
    results = [result for message in told for result in message.results]
    results += () if since.turn is None else since.turn.results
    return {result.name for result in results if result.name in since.calls_made}


def opened_parts(place: RunPlace, sealed: Sequence[tuple[int, bytes]]) -> list[bytes]:
    """The parts of a working copy in clear. SealError for one that was not sealed for there."""
    key = place.work_key or b""
    log, run = place.tenant_id.bytes, place.run_id.bytes
    return [open_work(key, blob, log=log, run=run, seq=seq) for seq, blob in sealed]


def _vain_resumptions(records: Sequence[VerifiedRecord]) -> int:
    """How often it was resumed since a step of it was last finished."""
    count = 0
    for record in reversed(records):
        if record.kind in _PROGRESS:
            break
        count += record.kind == RESUMED_KIND
    return count


def _elapsed(since: datetime | None, records: Sequence[VerifiedRecord], now: datetime) -> float:
    """The time that nobody drove it counts: the deadline is the caller's.

    Not while somebody was asked to decide: an approval has a deadline of its own.
    """
    if since is None:
        return 0.0
    return max(0.0, (now - since).total_seconds() - waited_seconds(records, now))


def _newest(asks: Sequence[AskedCall], now: datetime) -> AskedCall | None:
    """What was asked for last, and whether its time is over."""
    if not asks:
        return None
    return replace(asks[-1], is_late=asks[-1].expires_at <= now)
