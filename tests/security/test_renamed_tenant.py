"""A tenant whose name is taken away in the database keeps its runs where they are known.

Threat: Ledger tampering
"""

import asyncio
from uuid import UUID

import asyncpg

from app.domain.run import TenantId
from app.storage.database import Database
from app.storage.run_store import RenamedTenants, RunStore
from tests.security.tampering_scene import as_superuser, assert_whole, disarm, finished_run
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import live_server

NOBODY: frozenset[str] = frozenset()
ACME = frozenset({"acme"})


async def _renamed(roles: Roles, tenant_id: TenantId) -> RenamedTenants:
    database = Database(roles.app, pool_size=1)
    try:
        return await RunStore(database).renamed_tenants({"acme": tenant_id})
    finally:
        await database.close()


def test_a_name_means_another_log_only_when_its_own_is_gone(postgres: DatabaseServer) -> None:
    roles = postgres.new_database()
    with live_server(roles) as served:
        run = finished_run(served)
        disarm(roles)

        async def id_of(raw: asyncpg.Connection) -> TenantId:
            found = await raw.fetchval("SELECT tenant_id FROM tenants WHERE name = 'acme'")
            return TenantId(UUID(bytes=found.bytes))

        async def rename(raw: asyncpg.Connection) -> None:
            await raw.execute("UPDATE tenants SET name = 'emca' WHERE name = 'acme'")

        async def delete(raw: asyncpg.Connection) -> None:
            await raw.execute("DELETE FROM payload")
            await raw.execute("DELETE FROM record")

        tenant_id = as_superuser(roles, id_of)
        found = asyncio.run(_renamed(roles, tenant_id))
        assert (found.gone, found.taken) == (NOBODY, NOBODY)
        as_superuser(roles, rename)
        found = asyncio.run(_renamed(roles, tenant_id))
        assert (found.gone, found.taken) == (NOBODY, ACME)
        assert_whole(served, run)
        as_superuser(roles, delete)
        found = asyncio.run(_renamed(roles, tenant_id))
        assert (found.gone, found.taken) == (ACME, NOBODY)
