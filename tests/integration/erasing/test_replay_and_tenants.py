"""A restored backup is erased again from the journal; of a deleted tenant nothing is left."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from secrets import token_hex
from urllib.parse import urlsplit

import pytest

from app.domain.erasure import ErasureStatus
from app.domain.errors import KeyStoreError, LedgerBrokenError, NotFoundError
from app.domain.run import RunId
from app.erasing.erasure_journal import ErasureJournal
from tests.integration.erasing.erasing_scene import WHY, erasing_beside
from tests.security.tampering_scene import finished_run
from tests.support.api_matrix import patiently
from tests.support.databases import DatabaseServer, Roles, connect, execute
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio


@contextmanager
def _snapshot(roles: Roles) -> Iterator[Roles]:
    """A copy of the database as it is now: a backup that is restored under another name."""
    source = urlsplit(roles.app).path.strip("/")
    name = f"mf_backup_{token_hex(4)}"
    make = f'CREATE DATABASE "{name}" TEMPLATE "{source}" OWNER mf_owner STRATEGY FILE_COPY'
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        f" WHERE datname = '{source}' AND pid <> pg_backend_pid()"
    )
    admin = roles.named("postgres").superuser
    for _ in range(50):  # the server's pool connects again at once: a race that is soon won
        try:
            asyncio.run(execute(admin, end, make))
            break
        except Exception as error:  # noqa: BLE001 - tried again
            last = error
    else:
        raise last
    yield roles.named(name)
    asyncio.run(execute(admin, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture
def live(postgres: DatabaseServer) -> Iterator[LiveServer]:
    with live_server(postgres.new_database()) as served:
        yield served


def test_a_restored_backup_is_erased_again(live: LiveServer) -> None:
    deleted, thinned, kept = (finished_run(live) for _ in range(3))

    async def erase() -> None:
        async with erasing_beside(live) as erasing:
            assert (await erasing.delete(deleted)).status is ErasureStatus.COMPLETE
            thin = await erasing.anonymize(thinned, ["output"])
            assert thin.status is ErasureStatus.COMPLETE

    async def restored(backup: Roles) -> None:
        async with erasing_beside(live, roles=backup) as erasing:
            assert len(await erasing.rows("payload", deleted.run_id)) == 17
            for came_back in (RunId(deleted.run_id), RunId(thinned.run_id)):
                with pytest.raises(LedgerBrokenError, match="does not open"):
                    await erasing.parts.replay.read_run(erasing.tenant_id, came_back)
            assert await erasing.at_work.eraser.replay() == 2
            read, tenant = erasing.parts.replay, erasing.tenant_id
            left = await read.remains(tenant, RunId(deleted.run_id))
            assert left.records == 9
            with pytest.raises(NotFoundError):
                await read.read_run(tenant, RunId(deleted.run_id))
            # Its old key is gone with the KEK: what can be opened no more is named as erased too.
            thin = await read.read_run(tenant, RunId(thinned.run_id))
            assert thin.chain.is_erased
            assert await erasing.rows("payload", thinned.run_id) == []
            assert await erasing.at_work.eraser.replay() == 0

    with _snapshot(live.roles) as backup:
        asyncio.run(erase())
        asyncio.run(restored(backup))
    assert kept.public


async def test_a_journal_that_was_cut_or_changed_is_not_believed(live: LiveServer) -> None:
    run = await asyncio.to_thread(finished_run, live)
    async with erasing_beside(live) as erasing:
        await erasing.anonymize(run, ["output"])
        path = live.directory / "erasing" / "erasures.jsonl"
        keys = erasing.at_work.eraser._parts.erasure_keys()
        journal, whole = ErasureJournal(path), path.read_bytes()
        assert len(journal.entries(keys)) == 1
        path.write_bytes(whole + whole[:40])  # the line of a crash
        assert len(journal.entries(keys)) == 1
        journal.void(journal.entries(keys)[0].erasure_id)
        assert journal.entries(keys) == ()
        path.write_bytes(whole.replace(b"gdpr", b"gdqr"))
        with pytest.raises(KeyStoreError):
            journal.entries(keys)
        path.write_bytes(whole[40:])
        with pytest.raises(KeyStoreError):
            journal.entries(keys)


def _stopped_with_a_key(live: LiveServer) -> None:
    """Something of the tenant's that is about no run."""
    with live.client() as client:
        key = {"Idempotency-Key": '"of a tenant"'}
        assert client.post("/v1/stops", json={}, headers=key).status_code == 202


async def test_of_a_deleted_tenant_nothing_is_left_but_the_record_of_it(
    live: LiveServer,
) -> None:
    mine = await asyncio.to_thread(finished_run, live)
    theirs = await asyncio.to_thread(finished_run, live, "other")
    await asyncio.to_thread(_stopped_with_a_key, live)
    async with erasing_beside(live) as erasing:
        old = erasing.tenant_id
        for kind in ("ledger", "digest"):
            assert erasing.parts.keys.kek_ids(f"{kind}/{old.hex}/")
        assert await erasing.rows("idempotency")
        await erasing.parts.desk.set_hold(old, RunId(mine.run_id), "court_order", "operator")
        held = await erasing.done(await erasing.parts.replay.delete_tenant(old, **WHY))
        assert (held.status, held.reason) == (ErasureStatus.REFUSED, "hold")
        await erasing.parts.desk.release_hold(old, RunId(mine.run_id), "released", "operator")
        receipt = await erasing.done(await erasing.parts.replay.delete_tenant(old, **WHY))
        assert receipt.status is ErasureStatus.COMPLETE
        operator = await erasing.parts.admin_log.operator_log_id()
        assert receipt.request.tenant_id == operator
        assert await _tables_with(erasing.roles, old) == {}
        assert erasing.parts.keys.kek_ids(f"ledger/{old.hex}/") == ()
        assert erasing.parts.keys.kek_ids(f"work/{old.hex}/") == ()
        assert erasing.parts.keys.kek_ids(f"digest/{old.hex}/") == ()
        assert await erasing.parts.runs.ensure_tenant("acme") != old
        others = await erasing.parts.runs.ensure_tenant("other")
        assert (await erasing.parts.replay.read_run(others, RunId(theirs.run_id))).output is None
    again = await asyncio.to_thread(_eventually_served, live)
    assert again != mine.public


async def _tables_with(roles: Roles, tenant: object) -> dict[str, int]:
    """Every column of every table that still holds the id, whatever its name."""
    connection = await connect(roles.superuser)
    try:
        columns = await connection.fetch(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type = 'uuid'"
        )
        found = {}
        for table, column in columns:
            if (table, column) == ("erasure", "log_id"):
                continue  # the receipt itself, in the operator's log, says whose log it was
            count = await connection.fetchval(
                f'SELECT count(*) FROM "{table}" WHERE "{column}" = $1', tenant
            )
            if count:
                found[f"{table}.{column}"] = count
        return found
    finally:
        await connection.close()


def _eventually_served(live: LiveServer) -> str:
    """The server learns within seconds that the name is another tenant now."""
    with live.client() as client:
        for _ in patiently():
            answer = client.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": "wait=20"})
            if answer.status_code == 200:
                return str(answer.json()["id"])
            assert answer.status_code in (404, 503), answer.text
    raise AssertionError("the server did not learn it")
