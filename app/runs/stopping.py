"""The kill switch: every run of a tenant, or of one of its agents, is told to stop; recorded.

The record is durable before the first run is told. A run stops where it is driven, within a
second, and its own ledger says who asked.
"""

from dataclasses import dataclass

from app.administration.admin_log import AdminLog
from app.domain.run import Caller
from app.storage.run_store import RunStore

STOP_REQUESTED = "stop.requested"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What a stop reached: so many runs were under way, and where the stop itself is recorded."""

    runs: int
    seq: int


class StopSwitch:
    """Stops all runs of a tenant or of an agent."""

    def __init__(self, *, runs: RunStore, admin_log: AdminLog) -> None:
        self._runs = runs
        self._admin_log = admin_log

    async def stop(self, caller: Caller, agent: str | None) -> Stopped:
        """Tell every open run of the caller's tenant; all of it is durable on return.

        LedgerUnavailableError: some may have been told; to ask again is safe. A run that is let in
        meanwhile is not stopped.
        """
        receipt = await self._admin_log.append(
            caller.tenant_id, STOP_REQUESTED, {"agent": agent}, actor=caller.actor
        )
        told = await self._runs.request_stop(caller.tenant_id, agent, caller.actor)
        return Stopped(runs=told, seq=receipt.seq)
