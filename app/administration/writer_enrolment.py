"""Makes the signing key of a process known, certified and recorded before its first record.

Threat: Ledger tampering
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import UUID

from app.administration.admin_log import AdminLog
from app.domain.errors import KeyStoreError, LedgerUnavailableError
from app.keys.signing_keys import SigningKey
from app.ledger.enrolment import writer_statement
from app.ledger.writing import WriterKey
from app.storage.run_store import RunStore


class WriterEnrolment:
    """The beginning and the end of a process's signing key.

    `certifying` gives the enrolment key, which stays the present one until its block ends.
    """

    def __init__(
        self,
        *,
        runs: RunStore,
        admin_log: AdminLog,
        writer: WriterKey,
        certifying: Callable[[], AbstractContextManager[SigningKey]],
    ) -> None:
        self._runs = runs
        self._admin_log = admin_log
        self._writer = writer
        self._certifying = certifying
        self._certificate: bytes | None = None
        self._is_recorded = False

    @property
    def certificate(self) -> bytes:
        """What the enrolment key says of this process's key.

        LedgerUnavailableError before the process is known, when it can have appended nothing.
        """
        if self._certificate is None:
            raise LedgerUnavailableError("this process is not known to the ledger yet")
        return self._certificate

    async def enrol(self) -> None:
        """Register the key and record it in the operator log; may be repeated until it succeeds.

        LedgerUnavailableError when the database is not there: the process must not append yet.
        KeyStoreError as for `register`.
        """
        certificate = await self.register()
        if self._is_recorded:
            return
        writer = self._writer
        await self._admin_log.append(
            await self._admin_log.operator_log_id(),
            "key.writer",
            {
                "writer_id": writer.writer_id.hex(),
                "public_key": writer.public_key.hex(),
                "certificate": certificate.hex(),
            },
        )
        self._is_recorded = True

    async def register(self) -> bytes:
        """Make the certified key known, without a record: what a halted ledger allows.

        The certificate. KeyStoreError while the enrolment key is rotated, and for good when it was
        between two tries of which nobody knows whether the first one came through.
        """
        writer = self._writer
        with self._certifying() as key:
            certificate = key.sign(writer_statement(writer.writer_id, writer.public_key))
            if certificate != (self._certificate or certificate):
                raise KeyStoreError("the enrolment key was rotated meanwhile: start again")
            self._certificate = certificate
            writer_id = UUID(bytes=writer.writer_id)
            await self._runs.register_writer(writer_id, writer.public_key, certificate)
        return certificate

    async def leave(self) -> None:
        """Say goodbye: this key signs no more."""
        await self._runs.leave(UUID(bytes=self._writer.writer_id))
