"""The requests to erase that the ledger takes: the names that the security policy promises.

Threat: PHI leakage in audit logs
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from app.audit.erasure_book import ErasureBook
from app.audit.erasure_desk import ErasureDesk
from app.domain.erasure import ErasureAction, ErasureReceipt
from app.domain.run import RunId, RunRow, TenantId


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureParts:
    """What knows of erasures that were made, and what takes requests for more."""

    book: ErasureBook
    desk: ErasureDesk


class _What(NamedTuple):
    action: ErasureAction
    run_id: RunId | None
    fields: list[str] | None = None


class _Why(NamedTuple):
    legal_basis: str
    request_ref: str
    actor: str


class ErasureCalls(ABC):
    """Asks for erasures; the eraser executes them, elsewhere."""

    def __init__(self, desk: ErasureDesk) -> None:
        self._desk = desk

    @abstractmethod
    async def row(self, tenant_id: TenantId, run_id: RunId) -> RunRow:
        """The row of a run. NotFoundError."""

    async def anonymize_run(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        *,
        legal_basis: str,
        request_ref: str,
        actor: str,
        fields: Collection[str] | None = None,
        wait_seconds: float = 0,
    ) -> ErasureReceipt:
        """Ask that fields of a run be erased: all of its content, or the named fields.

        The receipt says what became of it; NotFoundError, InvalidSubmissionError.
        """
        await self.row(tenant_id, run_id)
        what = _What(
            ErasureAction.ANONYMIZE_RUN, run_id, None if fields is None else sorted(fields)
        )
        why = _Why(legal_basis=legal_basis, request_ref=request_ref, actor=actor)
        return await self._asked(tenant_id, what, why, wait_seconds)

    async def delete_run(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        *,
        legal_basis: str,
        request_ref: str,
        actor: str,
        wait_seconds: float = 0,
    ) -> ErasureReceipt:
        """Ask that nothing but the hashes of a run's records stay. NotFoundError."""
        await self.row(tenant_id, run_id)
        what = _What(ErasureAction.DELETE_RUN, run_id)
        why = _Why(legal_basis=legal_basis, request_ref=request_ref, actor=actor)
        return await self._asked(tenant_id, what, why, wait_seconds)

    async def delete_tenant(
        self,
        tenant_id: TenantId,
        *,
        legal_basis: str,
        request_ref: str,
        actor: str,
        wait_seconds: float = 0,
    ) -> ErasureReceipt:
        """Ask that nothing of a tenant stay but the operator log's record of the erasure."""
        what = _What(ErasureAction.DELETE_TENANT, None)
        why = _Why(legal_basis=legal_basis, request_ref=request_ref, actor=actor)
        return await self._asked(tenant_id, what, why, wait_seconds)

    async def _asked(
        self, tenant_id: TenantId, what: _What, why: _Why, wait_seconds: float
    ) -> ErasureReceipt:
        receipt = await self._desk.request(
            tenant_id,
            what.action,
            what.run_id,
            legal_basis=why.legal_basis,
            request_ref=why.request_ref,
            actor=why.actor,
            fields=what.fields,
        )
        return await self._desk.executed(receipt, wait_seconds)
