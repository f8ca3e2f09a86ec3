"""Wakes a parked run: who decided is recorded, and in the same transaction the run is due.

Threat: Ledger tampering
"""

from app.domain.errors import IllegalTransitionError
from app.domain.record import RunWoken
from app.domain.run import RunId, RunStatus, TenantId, Usage
from app.ledger.writing import ChainHead
from app.runs.recorder import LedgerRecorder, RecorderParts, RunPlace
from app.runs.takeover import Reopen, VerifiedRun
from app.storage.companions import QueueWake
from app.storage.run_store import RunStore


class RunWaker:
    """Lets parked runs go on. Whoever drives them next finds the decision in their records."""

    def __init__(self, *, reopen: Reopen, runs: RunStore, parts: RecorderParts) -> None:
        self._reopen = reopen
        self._runs = runs
        self._parts = parts

    async def wake(self, tenant_id: TenantId, run_id: RunId, actor: str) -> int:
        """The seq of the record; durable, and the run is due, when this returns.

        NotFoundError when the run is over; IllegalTransitionError when it is not parked;
        StaleEpochError when somebody else was faster, and nothing was done.
        """
        recorder, _ = await self.opened(tenant_id, run_id)
        recorder.queue(QueueWake())
        return await recorder.record(RunWoken(actor=actor), Usage())

    async def opened(
        self, tenant_id: TenantId, run_id: RunId
    ) -> tuple[LedgerRecorder, VerifiedRun]:
        """A parked run, verified, and its ledger, which the next record claims.

        Raises as `wake` does; StaleEpochError comes with the record.
        """
        epoch, status = await self._runs.open_state(tenant_id, run_id)
        if status is not RunStatus.AWAITING_APPROVAL:
            raise IllegalTransitionError("the run waits for nobody")
        found = await self._reopen(tenant_id, run_id)
        place = RunPlace(
            tenant_id=tenant_id,
            run_id=run_id,
            run_key=found.run_key,
            head=ChainHead(next_seq=found.head.next_seq, chain=found.head.chain),
            epoch=epoch,
        )
        recorder = LedgerRecorder(place, self._parts)
        recorder.claim()
        return recorder, found
