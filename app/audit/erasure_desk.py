"""Takes requests to erase, gives receipts, sets and releases holds; it erases nothing itself.

A request is stored with the signature of this process's writer key, so that the eraser can tell it
from a row that somebody wrote into the database.

Threat: PHI leakage in audit logs
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from uuid import UUID

from app.administration.admin_log import AdminLog
from app.domain.erasure import (
    LEGAL_BASIS,
    ErasureAction,
    ErasureId,
    ErasureReceipt,
    ErasureRequest,
    ErasureStatus,
)
from app.domain.errors import InvalidSubmissionError, NotFoundError
from app.domain.run import RunId, TenantId
from app.ledger.erasure_statement import request_message
from app.ledger.header import FIELD_NUMBERS
from app.ledger.writing import WriterKey
from app.storage.erasure_store import ErasureStore
from app.storage.holds import ReleaseHold, SetHold

_LOOK_AGAIN_SECONDS = 0.05


class ErasureDesk:
    """Requests, receipts and holds of one deployment."""

    def __init__(
        self,
        *,
        store: ErasureStore,
        admin_log: AdminLog,
        writer: WriterKey,
        now: Callable[[], datetime],
        entropy: Callable[[int], bytes],
        new_id: Callable[[], UUID],
    ) -> None:
        self._store = store
        self._admin_log = admin_log
        self._writer = writer
        self._now = now
        self._entropy = entropy
        self._new_id = new_id

    async def request(
        self,
        log_id: TenantId,
        action: ErasureAction,
        run_id: RunId | None,
        *,
        legal_basis: str,
        request_ref: str,
        actor: str,
        fields: Sequence[str] | None = None,
    ) -> ErasureReceipt:
        """Store a signed request; durable when this returns. InvalidSubmissionError.

        `request_ref` is kept as a hash under a salt that nobody keeps.
        """
        if LEGAL_BASIS.fullmatch(legal_basis) is None:
            raise InvalidSubmissionError("/legal_basis", "a legal basis is a code")
        wanted = None if fields is None else tuple(sorted(set(fields)))
        if wanted is not None and (
            action is not ErasureAction.ANONYMIZE_RUN
            or not wanted
            or not FIELD_NUMBERS.keys() >= set(wanted)
        ):
            raise InvalidSubmissionError("/fields", "only anonymize_run takes names of fields")
        is_tenant = action is ErasureAction.DELETE_TENANT
        told_in = await self._admin_log.operator_log_id() if is_tenant else log_id
        request = ErasureRequest(
            erasure_id=ErasureId(self._new_id()),
            tenant_id=told_in,
            log_id=log_id,
            action=action,
            run_id=run_id,
            fields=wanted,
            legal_basis=legal_basis,
            request_ref=sha256(self._entropy(32) + request_ref.encode()).digest(),
            actor=actor,
            requested_at=self._now(),
        )
        signature = self._writer.sign(request_message(request))
        await self._store.store(request, self._writer.writer_id, signature)
        return await self.receipt(told_in, request.erasure_id)

    async def receipt(self, tenant_id: TenantId, erasure_id: ErasureId) -> ErasureReceipt:
        """What became of a request. NotFoundError."""
        found = await self._store.find(tenant_id, erasure_id)
        if found is None:
            raise NotFoundError("no such erasure")
        return found.receipt

    async def executed(self, receipt: ErasureReceipt, within_seconds: float) -> ErasureReceipt:
        """The receipt once it was looked at, or as it is when the time is over."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_seconds
        while receipt.status is ErasureStatus.REQUESTED and loop.time() < until:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            receipt = await self.receipt(receipt.request.tenant_id, receipt.request.erasure_id)
        return receipt

    async def set_hold(self, tenant_id: TenantId, run_id: RunId, reason: str, actor: str) -> None:
        """Forbid to erase the run; recorded. Setting it again changes nothing."""
        if LEGAL_BASIS.fullmatch(reason) is None:
            raise InvalidSubmissionError("/reason", "a reason is a code")
        if await self._store.is_held(tenant_id, run_id):
            return
        hold = SetHold(held_run=run_id, reason=reason, actor=actor, at=self._now())
        note = {"run": run_id.hex, "reason": reason}
        await self._admin_log.append(tenant_id, "hold.set", {**note}, [hold], actor=actor)

    async def release_hold(
        self, tenant_id: TenantId, run_id: RunId, reason: str, actor: str
    ) -> None:
        """Allow to erase the run again; recorded. NotFoundError when there is no hold."""
        if not await self._store.is_held(tenant_id, run_id):
            raise NotFoundError("no such hold")
        note = {"run": run_id.hex, "reason": reason}
        release = ReleaseHold(held_run=run_id)
        await self._admin_log.append(tenant_id, "hold.released", {**note}, [release], actor=actor)
