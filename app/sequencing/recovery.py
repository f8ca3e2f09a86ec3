"""Opens a recovery: after a loss that somebody owns up to, logs go on under new names.

A log that lost its end cannot go on under its name: what it would sign next contradicts what is
out there. Each gets a new origin, and the operator log says from which old one and what was lost.

Source: docs/ledger-format.md sections 9 and 10.

Threat: Ledger tampering
"""

from dataclasses import dataclass
from uuid import UUID

from app.administration.admin_log import AdminLog
from app.domain.errors import ConfigurationError
from app.domain.run import JsonObject, TenantId
from app.sequencing.anchoring import Anchoring, Loss
from app.sequencing.log_names import next_origin
from app.storage.database import Database
from app.storage.keeper_store import is_halted
from app.storage.recovery_store import LogToRename, end_halt, logs_to_rename
from app.transparency.checkpoint import format_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What was opened: how many logs have new names, and the operator's."""

    origin: str
    logs: int


class RecoveryDesk:
    """Finds out what was lost, and opens the recovery. `owner` has the owner's login."""

    def __init__(
        self, *, owner: Database, admin_log: AdminLog, anchoring: Anchoring, operator: TenantId
    ) -> None:
        self._owner = owner
        self._admin_log = admin_log
        self._anchoring = anchoring
        self._operator = operator

    async def known_loss(self) -> Loss | None:
        """What an anchor has seen of the operator log and the database does not have."""
        for origin in await self._operator_origins():
            loss = await self._anchoring.loss(origin)
            if loss is not None:
                return loss
        return None

    async def open(self, lost: int | None) -> Recovery:
        """Record the recovery of every log, rename them, and let the ledger be written again.

        The records come first: they are the only ones that a halted ledger takes. A repeat after a
        crash in between records them once more, which says nothing new. ConfigurationError when
        `lost` is not what the anchors say.
        """
        async with self._owner.driver() as raw:
            if not await is_halted(raw):
                raise ConfigurationError("the ledger is not halted: there is nothing to recover")
        loss = await self.known_loss()
        told = None if loss is None else max(loss.seen.size - loss.held, 0)
        if lost != told:
            raise ConfigurationError(
                f"the anchors say that {_words(told)} of the operator log are lost, "
                f"not {_words(lost)}: name what is lost"
            )
        logs = await self._logs()
        notes = [self._note(log, loss) for log in logs]
        await self._admin_log.append_all(self._operator, "log.recovery", notes)
        async with self._owner.driver() as raw:
            await end_halt(raw, [(UUID(bytes=log.log), next_origin(log.origin)) for log in logs])
        own = next(log for log in logs if log.log == self._operator.bytes)
        return Recovery(origin=next_origin(own.origin), logs=len(logs))

    def _note(self, log: LogToRename, loss: Loss | None) -> JsonObject:
        is_operator = log.log == self._operator.bytes
        old = log.checkpoint
        if is_operator and loss is not None:
            old = format_checkpoint(loss.seen)
        lost = None if loss is None else max(loss.seen.size - loss.held, 0)
        return {
            "origin": next_origin(log.origin),
            "old_origin": log.origin,
            "old_checkpoint": old,
            "lost": lost if is_operator else None,
        }

    async def _logs(self) -> list[LogToRename]:
        """The logs, the operator's first. ConfigurationError when that one has not begun."""
        async with self._owner.driver() as raw:
            logs = await logs_to_rename(raw)
        logs.sort(key=lambda log: log.log != self._operator.bytes)
        if not logs or logs[0].log != self._operator.bytes:
            raise ConfigurationError("the operator log has not begun: there is nothing to recover")
        return logs

    async def _operator_origins(self) -> tuple[str, str]:
        origin = (await self._logs())[0].origin
        return origin, next_origin(origin)


def _words(count: int | None) -> str:
    return "an unknown number of records" if count is None else f"{count} records"
