"""Lets the enrolment key give way to the next one, while no process is there that rests on it.

All processes are stopped: then every record of a writer that the old key certified has its place,
and the record of the change can say up to where the old key counts. Nobody is certified anew on
the word of the database: whoever goes on starts again and asks the new key.

Source: docs/ledger-format.md section 11.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

from app.administration.admin_log import AdminLog
from app.administration.writer_enrolment import WriterEnrolment
from app.domain.errors import RotationRefusedError
from app.domain.run import TenantId
from app.keys.signing_keys import ENROLMENT, SigningKey, SigningKeys
from app.ledger.enrolment import is_certified
from app.ledger.key_statements import ROTATED, KeyChange, rotation_note
from app.ledger.writing import WriterKey
from app.sequencing.settling import Settling
from app.sequencing.writer_retirement import GONE_SECONDS
from app.storage.database import Database
from app.storage.keeper_store import certified_writers, retire_writer, silent_writers
from app.storage.run_store import RunStore
from app.storage.sequencer_store import Leader, leading

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRotation:
    """One rotation, by a process that has the key directory and the sequencer's login."""

    database: Database  # as the sequencer's role
    runs: RunStore
    admin_log: AdminLog
    writer: WriterKey  # of this process; the new key certifies it
    signing: SigningKeys
    recorded: Callable[[], Awaitable[Sequence[KeyChange]]]
    waiting: Callable[[], Awaitable[int]]  # requests to erase, which a writer of the old key signed
    settling: Settling
    gone_seconds: float = GONE_SECONDS

    async def rotate(self) -> KeyChange:
        """The change, which is durable when this returns. A rotation that was cut short goes on.

        RotationRefusedError while a process is there or an erasure waits, KeyStoreError while a
        process starts.
        """
        operator = await self.admin_log.operator_log_id()
        with self.signing.rotating_enrolment():
            async with leading(self.database, operator) as leader:
                if leader is None:
                    raise RotationRefusedError(
                        "a process of this deployment keeps the logs: stop all of them first"
                    )
                old, new = await self._keys()
                await self._require_nobody(leader, new)
                waiting = await self.waiting()
                if waiting:
                    raise RotationRefusedError(
                        f"{waiting} requests to erase wait: `meshflow eraser --once` first"
                    )
                try:
                    async with asyncio.timeout(self.settling.patience_seconds):
                        sizes = await self.settling.led(leader)
                except TimeoutError:
                    raise RotationRefusedError("a transaction is still open") from None
                return await self._change(operator, old, new, sizes)

    async def _keys(self) -> tuple[SigningKey, SigningKey | None]:
        """The key that gives way, and the next one if it was made before and not recorded."""
        keys = self.signing.every(ENROLMENT)
        known = {item.new for item in await self.recorded() if item.role == ENROLMENT}
        begun = (pair for pair in pairwise(keys) if pair[1].public_key not in known)
        return next(begun, (keys[-1], None))

    async def _require_nobody(self, leader: Leader, new: SigningKey | None) -> None:
        """Every writer is retired, but those that the next key has certified already."""
        for writer in await silent_writers(leader, self.gone_seconds):
            await retire_writer(leader, writer)
        keys = [] if new is None else [new.public_key]
        left = [
            item.writer_id.hex()
            for item in await certified_writers(leader)
            if not is_certified(keys, item.writer_id, item.public_key, item.certificate)
        ]
        if left:
            named = ", ".join(left[:_NAMED]) + (", ..." if len(left) > _NAMED else "")
            raise RotationRefusedError(
                f"{len(left)} writers hold a certificate of the present key and are not retired"
                f" ({named}): stop their processes; one that was killed is retired"
                f" {self.gone_seconds / 60:.0f} minutes after it was last seen"
            )

    async def _change(
        self, operator: TenantId, old: SigningKey, new: SigningKey | None, sizes: dict[str, int]
    ) -> KeyChange:
        made = self.signing.add(ENROLMENT) if new is None else new
        enrolment = WriterEnrolment(
            runs=self.runs,
            admin_log=self.admin_log,
            writer=self.writer,
            certifying=lambda: nullcontext(made),
        )
        await enrolment.enrol()
        try:
            change = KeyChange(role=ENROLMENT, old=old.public_key, new=made.public_key, sizes=sizes)
            note = rotation_note(change, old.sign, made.sign)
            await self.admin_log.append(operator, ROTATED, note)
        finally:
            await enrolment.leave()
        return change
