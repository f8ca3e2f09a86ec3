"""A process that erases, beside a live server that makes runs: one database, one set of keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypedDict
from uuid import UUID

import asyncpg

from app.domain.erasure import ErasureReceipt
from app.domain.run import RunId, TenantId
from app.erasing.assembly import EraserAtWork, build_eraser, eraser_places
from app.ledger_assembly import LedgerParts, ledger_parts
from tests.security.tampering_scene import Run
from tests.support.databases import Roles, connect
from tests.support.live_server import LiveServer, settings_for


class Why(TypedDict):
    """Why somebody wants it gone, and who."""

    legal_basis: str
    request_ref: str
    actor: str


WHY = Why(legal_basis="gdpr.art17", request_ref="ticket 4711", actor="key:0123456789abcdef")


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasing:
    """The eraser's process."""

    parts: LedgerParts
    at_work: EraserAtWork
    tenant_id: TenantId
    roles: Roles
    directory: Path

    async def anonymize(self, run: Run, fields: list[str] | None = None) -> ErasureReceipt:
        """Ask, and have it done."""
        run_id = RunId(run.run_id)
        asked = await self.parts.replay.anonymize_run(self.tenant_id, run_id, fields=fields, **WHY)
        return await self.done(asked)

    async def delete(self, run: Run) -> ErasureReceipt:
        """Ask, and have it done."""
        asked = await self.parts.replay.delete_run(self.tenant_id, RunId(run.run_id), **WHY)
        return await self.done(asked)

    async def done(self, asked: ErasureReceipt) -> ErasureReceipt:
        """The receipt after the eraser's next look."""
        await self.at_work.eraser.execute_waiting()
        return await self.parts.desk.receipt(asked.request.tenant_id, asked.request.erasure_id)

    async def rows(self, table: str, run_id: UUID | None = None) -> list[asyncpg.Record]:
        """Rows of a table as the database has them, of one run or of the whole tenant."""
        connection = await connect(self.roles.superuser)
        try:
            where = "" if run_id is None else f" AND run_id = '{run_id}'"
            statement = f"SELECT * FROM {table} WHERE tenant_id = $1{where}"
            return list(await connection.fetch(statement, self.tenant_id))
        finally:
            await connection.close()


@asynccontextmanager
async def erasing_beside(
    live: LiveServer,
    *,
    tenant: str = "acme",
    rotate_every: timedelta = timedelta(0),
    roles: Roles | None = None,
    mode: str = "strict",
) -> AsyncIterator[Erasing]:
    """The eraser of a live server's deployment; it ends old keys at once unless told otherwise.

    `mode` is its MESHFLOW_SANDBOX.
    """
    where = roles or live.roles
    settings = settings_for(
        live.directory,
        where,
        MESHFLOW_ERASER_DATABASE_URL=where.eraser,
        MESHFLOW_SANDBOX=mode,
        MESHFLOW_LEDGER_KEY_DIR=str(live.keys),
        MESHFLOW_ERASURE_KEY_FILE=str(live.directory / "erasing" / "key"),
    )
    places = eraser_places(settings)
    assert places is not None
    parts = ledger_parts(settings)
    at_work = build_eraser(places, parts.shared, rotate_every=rotate_every)
    try:
        await parts.enrolment.enrol()
        yield Erasing(
            parts=parts,
            at_work=at_work,
            tenant_id=await parts.runs.ensure_tenant(tenant),
            roles=where,
            directory=live.directory,
        )
    finally:
        await at_work.database.close()
        await parts.database.close()
