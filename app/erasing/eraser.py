"""Carries erasures out: checks the request, plans, records and removes in one transaction.

A receipt is pending from then on, until every key is gone that could open an old copy.

Threat: PHI leakage in audit logs
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from app.administration.admin_log import AdminLog, AdminParts
from app.domain.erasure import (
    ErasureAction,
    ErasureId,
    ErasureReceipt,
    ErasureRequest,
    ErasureStatus,
)
from app.domain.errors import (
    ErasureRefusedError,
    KeyRetiredError,
    LedgerBrokenError,
    MeshFlowError,
    NotFoundError,
)
from app.domain.run import JsonObject, RunId, TenantId
from app.erasing.erasure_journal import ErasureJournal, JournalEntry
from app.erasing.erasure_plan import ErasurePlanner, Plan
from app.erasing.kek_rotation import KekRotation
from app.keys.key_store import KeyStore
from app.keys.signing_keys import SigningKey
from app.ledger.enrolment import is_certified
from app.ledger.erasure_statement import request_message, signature_holds, signed_note
from app.ledger.writing import Entropy, WriterKey
from app.runs.run_keys import RunKeys
from app.storage.database import Database
from app.storage.erasing_store import EraserStore, ErasingLedger, Occasion
from app.storage.erasure_store import ErasureStore, StoredErasure
from app.storage.run_store import RunStore

_log = logging.getLogger("meshflow.erasing")
POLL_SECONDS = 1.0
# All that wraps something of a tenant, or has digests under it.
_KEK_KINDS = ("ledger", "work", "digest", "webhook", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class EraserParts:
    """What an eraser is built from."""

    reading: Database
    erasing: Database
    runs: RunStore
    requests: ErasureStore
    store: EraserStore
    planner: ErasurePlanner
    rotation: KekRotation
    keys: KeyStore
    run_keys: RunKeys
    writer: WriterKey
    enrolment: Callable[[], Awaitable[Collection[bytes]]]  # what counts for requests of now
    signing: Callable[[], AbstractContextManager[SigningKey]]  # the erasure key, for one record
    erasure_keys: Callable[[], Collection[bytes]]
    journal: ErasureJournal
    remove_files: Callable[[TenantId, RunId | None], None]
    now: Callable[[], datetime]
    entropy: Entropy
    new_id: Callable[[], UUID]
    rotate_every: timedelta  # zero: after each erasure
    sandbox: str | None = None  # how this process confines tools, stamped into each record


class Eraser:
    """Executes stored requests. Any number of processes may: a request is executed once."""

    def __init__(self, parts: EraserParts) -> None:
        self._parts = parts

    async def serve_forever(self) -> None:
        """Look for requests every second, and end keys every `rotate_every`.

        At the start what a restored backup brought back is erased again.
        """
        rotate_at, is_replayed = self._parts.now(), False
        while True:
            try:
                await self.execute_waiting()
                if self._parts.now() >= rotate_at:
                    await self._parts.rotation.rotate()
                    rotate_at = self._parts.now() + self._parts.rotate_every
                if not is_replayed:
                    await self.replay()
                    is_replayed = True
            except Exception as error:  # noqa: BLE001 - an eraser that stops breaks a promise by law
                _log.warning("erasing: %s", type(error).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def execute_waiting(self) -> int:
        """How many requests were looked at. One that fails is looked at again next time."""
        waiting = await self._parts.store.waiting()
        for tenant_id, erasure_id in waiting:
            try:
                await self.execute(tenant_id, erasure_id)
            except MeshFlowError as error:
                _log.warning("an erasure waits: %s", type(error).__name__)
        return len(waiting)

    async def execute(
        self, tenant_id: TenantId, erasure_id: ErasureId, *, forced: str | None = None
    ) -> ErasureReceipt:
        """The receipt, also of a refusal. `forced` says why the run is not verified first."""
        parts = self._parts
        stored = await self._found(tenant_id, erasure_id)
        enrolment = await parts.enrolment()
        try:
            self._require_signed(stored, enrolment)
            await self._erase(stored.receipt.request, forced)
        except (ErasureRefusedError, LedgerBrokenError) as error:
            code = error.code if isinstance(error, ErasureRefusedError) else "broken"
            await parts.store.refuse(tenant_id, erasure_id, code)
            receipt = (await self._found(tenant_id, erasure_id)).receipt
            if receipt.status is ErasureStatus.REFUSED:
                # An eraser may have died between the journal and the commit. A backup that comes
                # back knows nothing of this refusal, and the entry would be carried out on it.
                await asyncio.to_thread(parts.journal.void, erasure_id)
            return receipt
        else:
            if not parts.rotate_every:
                await parts.rotation.rotate()
            await parts.store.complete(tenant_id, parts.now())
        return (await self._found(tenant_id, erasure_id)).receipt

    async def replay(self) -> int:
        """Erase again what a restored backup brought back; how many erasures that were.

        KeyStoreError when the journal is damaged: nobody knows then what is missing. Any other
        error of one entry is raised when all the others have had their turn.
        """
        parts, again = self._parts, 0
        failed: MeshFlowError | None = None
        for entry in parts.journal.entries(parts.erasure_keys()):
            try:
                if await self._was_refused(entry):
                    await asyncio.to_thread(parts.journal.void, entry.erasure_id)
                elif await parts.planner.is_undone(entry.statement):
                    await self._again(entry)
                    again += 1
            except MeshFlowError as error:
                failed = error
        if failed is not None:
            raise failed
        return again

    async def _was_refused(self, entry: JournalEntry) -> bool:
        """Whether its eraser died before the commit, and the request was refused afterwards."""
        found = await self._parts.requests.find(entry.tenant_id, entry.erasure_id)
        return found is not None and found.receipt.status is ErasureStatus.REFUSED

    async def _again(self, entry: JournalEntry) -> None:
        parts, told = self._parts, entry.statement
        names = {name for item in told.items or () for name in item.fields}
        is_partial = told.action is ErasureAction.ANONYMIZE_RUN
        request = ErasureRequest(
            erasure_id=ErasureId(parts.new_id()),
            tenant_id=entry.tenant_id,
            log_id=TenantId(UUID(bytes=told.log)),
            action=told.action,
            run_id=None if told.run is None else RunId(UUID(bytes=told.run)),
            fields=tuple(sorted(names)) if is_partial else None,
            legal_basis=told.legal_basis,
            request_ref=told.request_ref,
            actor=told.actor,
            requested_at=parts.now(),
        )
        signature = parts.writer.sign(request_message(request))
        await parts.requests.store(request, parts.writer.writer_id, signature)
        receipt = await self.execute(request.tenant_id, request.erasure_id, forced="replay")
        if receipt.executed_at is None:
            raise ErasureRefusedError(receipt.reason or "replay")
        await asyncio.to_thread(parts.journal.void, entry.erasure_id)

    async def _found(self, tenant_id: TenantId, erasure_id: ErasureId) -> StoredErasure:
        found = await self._parts.requests.find(tenant_id, erasure_id)
        if found is None:
            raise NotFoundError("no such erasure")
        return found

    @staticmethod
    def _require_signed(stored: StoredErasure, enrolment: Collection[bytes]) -> None:
        """A row that no writer of this deployment signed is nobody's wish.

        Nor is one of a writer whose enrolment key has given way: it has no place in a log that
        could show that it is older than that.
        """
        key = stored.public_key
        message = request_message(stored.receipt.request)
        if (
            key is None
            or not is_certified(enrolment, stored.writer, key, stored.certificate)
            or not signature_holds(key, stored.signature, message)
        ):
            raise ErasureRefusedError("not_signed")

    async def _erase(self, request: ErasureRequest, forced: str | None) -> None:
        try:
            await self._carry_out(request, await self._plan(request, forced), forced)
        except KeyRetiredError:
            self._parts.run_keys.look_again()
            await self._carry_out(request, await self._plan(request, forced), forced)
        await asyncio.to_thread(self._parts.remove_files, request.log_id, request.run_id)

    async def _plan(self, request: ErasureRequest, forced: str | None) -> Plan:
        parts, now = self._parts, self._parts.now()
        is_forced = forced is not None
        if request.run_id is not None:
            return await parts.planner.of_run(request, request.run_id, now, is_forced=is_forced)
        keks = await asyncio.to_thread(self._keks_of, request.log_id)
        return await parts.planner.of_tenant(request, now, keks, is_forced=is_forced)

    def _keks_of(self, log_id: TenantId) -> tuple[str, ...]:
        found = [self._parts.keys.kek_ids(f"{kind}/{log_id.hex}/") for kind in _KEK_KINDS]
        return tuple(kek_id for some in found for kek_id in some)

    async def _carry_out(self, request: ErasureRequest, plan: Plan, forced: str | None) -> None:
        """Signs and commits before anybody can rotate the key that it signs with."""
        with self._parts.signing() as key:
            encoded = plan.statement.encode()
            note = signed_note(encoded, public_key=key.public_key, sign=key.sign)
            await self._commit(request, plan, note, forced)

    async def _commit(
        self, request: ErasureRequest, plan: Plan, note: JsonObject, forced: str | None
    ) -> None:
        parts = self._parts

        async def keep_statement() -> None:
            erasure_id, tenant_id = request.erasure_id, request.tenant_id
            await asyncio.to_thread(parts.journal.append, erasure_id, tenant_id, note)

        occasion = Occasion(
            erasure_id=request.erasure_id,
            at=plan.statement.at,
            due_at=plan.statement.at + parts.rotate_every,
            reason=forced,
        )
        ledger = ErasingLedger(
            reading=parts.reading,
            erasing=parts.erasing,
            removal=plan.removal,
            occasion=occasion,
            before_commit=keep_statement,
        )
        log = AdminLog(
            AdminParts(
                ledger=ledger,
                runs=parts.runs,
                keys=parts.run_keys,
                writer=parts.writer,
                now=parts.now,
                entropy=parts.entropy,
                sandbox=parts.sandbox,
            )
        )
        kind = f"erasure.{request.action.value}"
        await log.append(request.tenant_id, kind, note, actor=request.actor)
