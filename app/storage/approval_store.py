"""Reads the rows of approvals; they are written with records of their runs, in the same statement.

A row says that there is something to decide. What it is, and what was decided, the run's verified
ledger says: a row that tells otherwise is not believed.

Threat: Privilege escalation via tool calls
"""

from uuid import UUID

import asyncpg

from app.domain.approval import ApprovalFilter, ApprovalId, ApprovalRow, ApprovalState
from app.domain.errors import NotFoundError
from app.domain.run import RunId, TenantId
from app.storage.database import Database

_COLUMNS = """
SELECT a.tenant_id, a.approval_id, a.run_id, r.agent, a.state, a.digest, a.seq, a.created_at,
  a.expires_at, a.decided_at
FROM approval a JOIN runs r ON r.tenant_id = a.tenant_id AND r.run_id = a.run_id
"""
_ONE = _COLUMNS + "WHERE a.tenant_id = $1 AND a.approval_id = $2"
_PAGE = (
    _COLUMNS
    + """WHERE a.tenant_id = $1 AND ($2::uuid IS NULL OR a.approval_id < $2)
  AND ($3::text IS NULL OR a.state = $3) AND ($4::text IS NULL OR r.agent = $4)
  AND ($5::uuid IS NULL OR a.run_id = $5) AND ($6::timestamptz IS NULL OR a.expires_at < $6)
ORDER BY a.approval_id DESC LIMIT $7"""
)


class ApprovalStore:
    """Approvals of one deployment."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, tenant_id: TenantId, approval_id: ApprovalId) -> ApprovalRow:
        """One approval. NotFoundError."""
        async with self._database.snapshot(tenant_id) as raw:
            row = await raw.fetchrow(_ONE, tenant_id, approval_id)
        if row is None:
            raise NotFoundError("no such approval")
        return _approval(row)

    async def page(
        self,
        tenant_id: TenantId,
        *,
        before: ApprovalId | None,
        wanted: ApprovalFilter,
        limit: int,
    ) -> list[ApprovalRow]:
        """Approvals of a tenant, newest first, older than `before`."""
        async with self._database.snapshot(tenant_id) as raw:
            rows = await raw.fetch(
                _PAGE,
                tenant_id,
                before,
                None if wanted.state is None else wanted.state.value,
                wanted.agent,
                wanted.run_id,
                wanted.expires_before,
                limit,
            )
        return [_approval(row) for row in rows]


def _approval(row: asyncpg.Record) -> ApprovalRow:
    return ApprovalRow(
        tenant_id=TenantId(UUID(bytes=row["tenant_id"].bytes)),
        approval_id=ApprovalId(UUID(bytes=row["approval_id"].bytes)),
        run_id=RunId(UUID(bytes=row["run_id"].bytes)),
        agent=row["agent"],
        state=ApprovalState(row["state"]),
        digest=row["digest"],
        seq=row["seq"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        decided_at=row["decided_at"],
    )
