"""Requests to erase and holds that forbid it, as the application stores and reads them."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from app.domain.erasure import (
    ErasureAction,
    ErasureId,
    ErasureReceipt,
    ErasureRequest,
    ErasureStatus,
)
from app.domain.run import RunId, TenantId
from app.storage.database import Database

_REQUEST = "SELECT erasure_request($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)"
_FIND = """
SELECT e.*, k.public_key, k.certificate FROM erasure e
LEFT JOIN writer_key k ON k.writer_id = e.writer_id
WHERE e.tenant_id = $1 AND e.erasure_id = $2
"""
_NOTE = """
SELECT r.header, r.rc, p.blob, l.idx FROM record r
JOIN payload p ON p.tenant_id = r.tenant_id AND p.run_id = r.run_id AND p.seq = r.seq
LEFT JOIN leaf l ON l.tenant_id = r.tenant_id AND l.run_id = r.run_id AND l.seq = r.seq
WHERE r.tenant_id = $1 AND r.run_id = $2 AND r.seq = $3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredErasure:
    """A request with its receipt and its signature, which nobody has checked yet."""

    receipt: ErasureReceipt
    writer: bytes
    signature: bytes
    public_key: bytes | None
    certificate: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNote:
    """An administration record and its note, sealed; `index` when it has a place in its log."""

    header: bytes | None
    rc: bytes
    blob: bytes
    index: int | None


class ErasureStore:
    """Requests and receipts of one deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def store(self, request: ErasureRequest, writer: bytes, signature: bytes) -> None:
        """Durable when this returns; a repeat of the same request is safe."""
        async with self._database.driver() as raw:
            await raw.execute(
                _REQUEST,
                request.tenant_id,
                request.erasure_id,
                request.log_id,
                request.action.value,
                request.run_id,
                None if request.fields is None else list(request.fields),
                request.legal_basis,
                request.request_ref,
                request.actor,
                request.requested_at,
                UUID(bytes=writer),
                signature,
            )

    async def find(self, tenant_id: TenantId, erasure_id: ErasureId) -> StoredErasure | None:
        """A request and what became of it."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_FIND, tenant_id, erasure_id)
        return None if row is None else _stored(row)

    async def is_held(self, tenant_id: TenantId, run_id: RunId) -> bool:
        """Whether a hold forbids to erase the run."""
        async with self._database.snapshot(tenant_id) as raw:
            found = await raw.fetchval(
                "SELECT 1 FROM run_hold WHERE tenant_id = $1 AND run_id = $2", tenant_id, run_id
            )
        return found is not None

    async def note(
        self, raw: asyncpg.Connection, tenant_id: TenantId, run_id: RunId, seq: int
    ) -> StoredNote | None:
        """The note of one record inside a tenant's snapshot."""
        row = await raw.fetchrow(_NOTE, tenant_id, run_id, seq)
        if row is None:
            return None
        return StoredNote(header=row["header"], rc=row["rc"], blob=row["blob"], index=row["idx"])

    async def checkpoint(self, raw: asyncpg.Connection, tenant_id: TenantId) -> str | None:
        """The newest signed checkpoint of a log inside a tenant's snapshot."""
        found: str | None = await raw.fetchval(
            "SELECT note FROM checkpoint WHERE tenant_id = $1 ORDER BY created_at DESC LIMIT 1",
            tenant_id,
        )
        return found

    async def log_named(self, name: str) -> TenantId | None:
        """The id of a tenant's log, which is not made when it is not there."""
        async with self._database.driver() as raw:
            found = await raw.fetchval("SELECT tenant_id FROM tenants WHERE name = $1", name)
        return None if found is None else TenantId(UUID(bytes=found.bytes))

    async def has_log(self, log_id: TenantId) -> bool:
        """Whether there is a tenant with this log."""
        async with self._database.driver() as raw:
            found = await raw.fetchval("SELECT 1 FROM tenants WHERE tenant_id = $1", log_id)
        return found is not None


def _stored(row: asyncpg.Record) -> StoredErasure:
    request = ErasureRequest(
        erasure_id=ErasureId(UUID(bytes=row["erasure_id"].bytes)),
        tenant_id=TenantId(UUID(bytes=row["tenant_id"].bytes)),
        log_id=TenantId(UUID(bytes=row["log_id"].bytes)),
        action=ErasureAction(row["action"]),
        run_id=_run_id(row["run_id"]),
        fields=None if row["fields"] is None else tuple(row["fields"]),
        legal_basis=row["legal_basis"],
        request_ref=row["request_ref"],
        actor=row["actor"],
        requested_at=row["requested_at"],
    )
    receipt = ErasureReceipt(
        request=request,
        status=ErasureStatus(row["status"]),
        executed_at=_moment(row["executed_at"]),
        due_at=_moment(row["due_at"]),
        completed_at=_moment(row["completed_at"]),
        record_run=_run_id(row["record_run"]),
        record_seq=row["record_seq"],
        reason=row["reason"],
    )
    return StoredErasure(
        receipt=receipt,
        writer=row["writer_id"].bytes,
        signature=row["sig"],
        public_key=row["public_key"],
        certificate=row["certificate"],
    )


def _run_id(value: UUID | None) -> RunId | None:
    return None if value is None else RunId(UUID(bytes=value.bytes))


def _moment(value: datetime | None) -> datetime | None:
    return value
