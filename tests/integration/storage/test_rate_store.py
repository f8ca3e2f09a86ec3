"""What processes tell each other of how often keys asked: sums, minutes, and no more rights."""

import asyncio
from uuid import UUID

import asyncpg
import pytest

from app.domain.run import TenantId
from app.storage.database import Database
from app.storage.rate_store import RateStore
from tests.support.databases import Roles, connect

pytestmark = pytest.mark.anyio

ACME, GONE = TenantId(UUID(int=1)), TenantId(UUID(int=2))
KEY, OTHER = "0" * 16, "1" * 16


@pytest.fixture(autouse=True)
async def acme(roles: Roles) -> None:
    superuser = await connect(roles.superuser)
    await superuser.execute(
        "INSERT INTO tenants (tenant_id, name) VALUES ($1, 'acme') ON CONFLICT DO NOTHING", ACME
    )
    await superuser.close()


async def test_what_two_processes_count_is_summed(roles: Roles) -> None:
    database = Database(roles.app)
    store = RateStore(database)
    assert await store.exchange({}) is None
    counted = {(ACME, KEY): 3, (ACME, OTHER): 1}
    answers = await asyncio.gather(*(store.exchange(counted) for _ in range(16)))
    await database.close()
    told = [answer for answer in answers if answer is not None]
    assert len(told) == 16
    assert all(1 <= answer.left_seconds <= 60 for answer in told)
    by_minute = {answer.minute: 0 for answer in told}
    for answer in told:
        by_minute[answer.minute] = max(by_minute[answer.minute], answer.used[KEY])
    assert sum(by_minute.values()) == 48


async def test_minutes_that_are_over_are_forgotten(roles: Roles) -> None:
    superuser = await connect(roles.superuser)
    await superuser.execute(
        "INSERT INTO rate_use SELECT $1, $2, floor(extract(epoch FROM now()) / 60)::bigint - n, 5"
        " FROM generate_series(2, 9) AS n",
        ACME,
        KEY,
    )
    database = Database(roles.app)
    await RateStore(database).exchange({(ACME, OTHER): 1})
    await database.close()
    rows = await superuser.fetch("SELECT 1 FROM rate_use WHERE used = 5")
    await superuser.close()
    assert rows == []


async def test_a_key_is_never_stored_whatever_is_told(roles: Roles) -> None:
    database = Database(roles.app)
    with pytest.raises(asyncpg.CheckViolationError):
        await RateStore(database).exchange({(ACME, "mf_a-whole-key"): 1})
    await database.close()


async def test_nothing_is_kept_of_a_tenant_that_is_gone(roles: Roles) -> None:
    database = Database(roles.app)
    store = RateStore(database)
    assert await store.exchange({(GONE, KEY): 1}) is None
    beside = await store.exchange({(GONE, KEY): 1, (ACME, KEY): 2})
    assert beside is not None
    assert beside.used[KEY] >= 2
    await database.close()
    superuser = await connect(roles.superuser)
    assert await superuser.fetchval("SELECT count(*) FROM rate_use WHERE tenant_id = $1", GONE) == 0
    assert await superuser.fetchval("SELECT count(*) FROM rate_use") > 0
    await superuser.execute("DELETE FROM tenants WHERE tenant_id = $1", ACME)
    assert await superuser.fetchval("SELECT count(*) FROM rate_use") == 0
    await superuser.close()
