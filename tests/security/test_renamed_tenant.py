"""A tenant whose name is taken away in the database keeps its runs, also in a process that is new.

Threat: Ledger tampering
"""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from app.domain.run import TenantId
from app.storage.database import Database
from app.storage.run_store import RenamedTenants, RunStore
from tests.security.tampering_scene import as_superuser, assert_whole, disarm, finished_run
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import KEYS, LiveServer, key_directory_of, live_server

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


RENAME = "UPDATE tenants SET name = 'emca' WHERE name = 'acme'"
SWAP = (
    "UPDATE tenants SET name = 'x' WHERE name = 'acme';"
    "UPDATE tenants SET name = 'acme' WHERE name = 'other';"
    "UPDATE tenants SET name = 'other' WHERE name = 'x'"
)
NOTHING_LEFT = ";".join(
    f"DELETE FROM {table}"
    for table in ("payload", "record", "batch", "run_key", "run_result", "runs")
)


def _act(roles: Roles, statements: str) -> None:
    as_superuser(roles, lambda raw: raw.execute(statements))


def _log_of(served: LiveServer, who: str = "acme") -> str:
    """The log that a new run of this key goes into, as its receipt says."""
    with served.client(who) as client:
        answer = client.post("/v1/runs", json={"task": "1+1"})
    assert answer.status_code == 202, answer.text
    found: str = answer.json()["receipt"]["log"]
    return found


@pytest.mark.parametrize("change", [RENAME, SWAP])
def test_a_process_that_starts_afterwards_goes_by_the_log_too(
    postgres: DatabaseServer, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    roles = postgres.new_database()
    with live_server(roles) as served:
        run, log, others = finished_run(served), _log_of(served), _log_of(served, "other")
    _act(roles, change)
    caplog.clear()
    with live_server(roles) as served:
        assert_whole(served, run)
        assert (_log_of(served), _log_of(served, "other")) == (log, others)
    assert "are named in the database as others" in caplog.text


def test_a_name_is_forgotten_with_the_last_record_of_its_log(postgres: DatabaseServer) -> None:
    roles = postgres.new_database()
    with live_server(roles) as served:
        log = _log_of(served)
        _log_of(served, "other")
    disarm(roles)
    _act(roles, f"{NOTHING_LEFT}; {RENAME}")
    only_other = f"other:{KEYS['other']}"
    with live_server(roles, MESHFLOW_API_KEYS=only_other):
        assert len(_remembered(roles)) == 1, "nobody has a key of the one that is gone"
        assert bytes.fromhex(log) not in _remembered(roles)
    with live_server(roles) as served:
        assert _log_of(served) != log


def _remembered(roles: Roles) -> set[bytes]:
    folder = key_directory_of(roles) / "tenants"
    return {path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("damage", [b"", b"0" * 15, b"0" * 17])
def test_what_is_damaged_or_open_to_others_is_not_believed(
    postgres: DatabaseServer, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    roles = postgres.new_database()
    with live_server(roles) as served:
        run, log = finished_run(served), _log_of(served)
    for path in (key_directory_of(roles) / "tenants").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_bytes(damage or path.read_bytes())
        path.chmod(0o600 if damage else 0o644)
    caplog.clear()
    with live_server(roles) as served:
        assert_whole(served, run)
        assert _log_of(served) == log, "the database is believed, as by the first process"
    assert "is damaged, or open to others" in caplog.text
