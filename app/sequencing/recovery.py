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
from app.sequencing.continuity import Continuity, Discontinuity
from app.sequencing.log_names import next_origin
from app.sequencing.verified_start import VerifiedStart
from app.storage.database import Database
from app.storage.keeper_store import is_halted
from app.storage.recovery_store import LogToRename, end_halt, logs_to_rename
from app.transparency.checkpoint import format_checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What was opened: how many logs have new names, and the operator's."""

    origin: str
    logs: int
    given_up: tuple[Discontinuity, ...]  # what was signed and is not there any more


class RecoveryDesk:
    """Finds out what was lost, and opens the recovery. `owner` has the owner's login."""

    def __init__(
        self,
        *,
        owner: Database,
        admin_log: AdminLog,
        anchoring: Anchoring,
        continuity: Continuity,
        operator: TenantId,
        start: VerifiedStart | None = None,
    ) -> None:
        self._owner = owner
        self._admin_log = admin_log
        self._anchoring = anchoring
        self._continuity = continuity
        self._operator = operator
        self._start = start

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
        `lost` is not what the anchors say, or when the operator log's own records do not hold.

        Checkpoints of the old names bind nobody any more. One that a log does not continue is named
        in that log's record as the old one, and in the answer: what it covered is given up.
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
        given_up = await self._given_up()
        signed = {item.log: item.note for item in given_up if item.note is not None}
        notes = [self._note(log, loss, signed.get(log.log)) for log in logs]
        there = {log.log for log in logs}
        notes += [_of_lost(note) for log, note in signed.items() if log not in there]
        await self._admin_log.append_all(self._operator, "log.recovery", notes)
        if self._start is not None:
            await self._start.forget()  # the operator log may be shorter than what was verified
        async with self._owner.driver() as raw:
            await end_halt(raw, [(UUID(bytes=log.log), next_origin(log.origin)) for log in logs])
        own = next(log for log in logs if log.log == self._operator.bytes)
        return Recovery(origin=next_origin(own.origin), logs=len(logs), given_up=tuple(given_up))

    async def _given_up(self) -> list[Discontinuity]:
        async with self._owner.driver() as raw:
            found = await self._continuity.look(raw)
        for item in found:
            if item.log == self._operator.bytes:
                raise ConfigurationError(f"{item.reason}: restore it from a backup first")
        return found

    def _note(self, log: LogToRename, loss: Loss | None, signed: str | None) -> JsonObject:
        is_operator = log.log == self._operator.bytes
        old = signed or log.checkpoint
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


def _of_lost(note: str) -> JsonObject:
    """The record of a log that is gone altogether: nothing of it binds a new one."""
    old = note.partition("\n")[0]
    return {"origin": next_origin(old), "old_origin": old, "old_checkpoint": note, "lost": None}


def _words(count: int | None) -> str:
    return "an unknown number of records" if count is None else f"{count} records"
