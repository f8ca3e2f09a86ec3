"""Makes the signing key of a process known, certified and recorded before its first record.

Threat: Ledger tampering
"""

from collections.abc import Callable
from uuid import UUID

from app.administration.admin_log import AdminLog
from app.ledger.enrolment import writer_statement
from app.ledger.writing import WriterKey
from app.storage.run_store import RunStore


class WriterEnrolment:
    """The beginning and the end of a process's signing key."""

    def __init__(
        self,
        *,
        runs: RunStore,
        admin_log: AdminLog,
        writer: WriterKey,
        certify: Callable[[bytes], bytes],
    ) -> None:
        self._runs = runs
        self._admin_log = admin_log
        self._writer = writer
        self._certificate = certify(writer_statement(writer.writer_id, writer.public_key))
        self._is_recorded = False

    @property
    def certificate(self) -> bytes:
        """What the enrolment key says of this process's key."""
        return self._certificate

    async def enrol(self) -> None:
        """Register the key and record it in the operator log; may be repeated until it succeeds.

        LedgerUnavailableError when the database is not there: the process must not append yet.
        """
        await self.register()
        if self._is_recorded:
            return
        writer = self._writer
        await self._admin_log.append(
            await self._admin_log.operator_log_id(),
            "key.writer",
            {
                "writer_id": writer.writer_id.hex(),
                "public_key": writer.public_key.hex(),
                "certificate": self._certificate.hex(),
            },
        )
        self._is_recorded = True

    async def register(self) -> None:
        """Make the certified key known, without a record: what a halted ledger allows."""
        writer = self._writer
        writer_id = UUID(bytes=writer.writer_id)
        await self._runs.register_writer(writer_id, writer.public_key, self._certificate)

    async def leave(self) -> None:
        """Say goodbye: this key signs no more."""
        await self._runs.leave(UUID(bytes=self._writer.writer_id))
