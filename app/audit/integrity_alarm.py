"""Writes down in the operator log that a run was found broken, without keeping its reader waiting.

Once for each run and reason in a process; what could not be written is written at the next finding.

Threat: Ledger tampering
"""

import asyncio
import logging

from app.administration.admin_log import AdminLog
from app.domain.errors import ChainBreak, MeshFlowError
from app.domain.run import RunId, TenantId

_log = logging.getLogger("meshflow.audit")
_REMEMBERED = 4096
_MOST_AT_ONCE = 64

Finding = tuple[TenantId, RunId, str]


class IntegrityAlarm:
    """Takes findings from any number of readers."""

    def __init__(self, admin_log: AdminLog) -> None:
        self._admin_log = admin_log
        self._told: dict[Finding, None] = {}
        self._writing: set[asyncio.Task[None]] = set()

    def sound(self, tenant_id: TenantId, run_id: RunId, found: ChainBreak) -> None:
        """Record the finding soon. Never raises, never waits."""
        finding = (tenant_id, run_id, found.reason)
        if finding in self._told or len(self._writing) >= _MOST_AT_ONCE:
            return
        _log.error("the ledger of a run is broken at seq %d: %s", found.seq, found.reason)
        while len(self._told) >= _REMEMBERED:
            self._told.pop(next(iter(self._told)))
        self._told[finding] = None
        task = asyncio.get_running_loop().create_task(self._record(finding, found.seq))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def settled(self) -> None:
        """Returns when nothing is being written."""
        while self._writing:
            await asyncio.wait(set(self._writing))

    async def _record(self, finding: Finding, seq: int) -> None:
        tenant_id, run_id, reason = finding
        try:
            await self._admin_log.append(
                await self._admin_log.operator_log_id(),
                "integrity.alarm",
                {"log": tenant_id.hex, "run": run_id.hex, "seq": seq, "reason": reason},
            )
        except MeshFlowError as error:
            self._told.pop(finding, None)
            _log.warning("an alarm is not recorded: %s", error)
        except Exception:  # noqa: BLE001 - nobody waits for this task: what it raises is lost
            self._told.pop(finding, None)
            _log.exception("an alarm is not recorded")
