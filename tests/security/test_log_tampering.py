"""Whoever owns the database changes the log itself: each change is named, and nothing is shown."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import asyncpg
import pytest

from app.storage.sequencer_store import _LEADER_LOCK
from tests.security.tampering_scene import (
    Run,
    as_superuser,
    assert_broken,
    assert_nothing_is_shown,
    changes,
    columns_of,
    disarm,
    finished_run,
    tenant_of,
    unguarded,
    verification,
)
from tests.support.databases import DatabaseServer, Roles, connect
from tests.support.witnessed_server import WitnessedServer, witnessed_server

LOG_TABLES = ("leaf", "tile", "log_head", "checkpoint", "cosignature")
_PARTS = ("leaf_default", "tile_default", "left_out")
# Which rows are changed. $1 is the tenant, $2 its run.
ROWS = {
    "leaf": "tenant_id = $1 AND run_id = $2 AND seq = 4",
    "tile": "tenant_id = $1 AND level = 0 AND $2::uuid IS NOT NULL",
    "log_head": "tenant_id = $1 AND $2::uuid IS NOT NULL",
    "checkpoint": "tenant_id = $1 AND $2::uuid IS NOT NULL AND size ="
    " (SELECT max(size) FROM checkpoint WHERE tenant_id = $1)",
    "cosignature": "tenant_id <> $1 AND $2::uuid IS NOT NULL",
}
# What is said of each change. None: nothing that is signed rests on the column.
NAMED = {
    "leaf.tenant_id": "has no place in the log",
    "leaf.idx": "",
    "leaf.run_id": "has no place in the log",
    "leaf.seq": "",
    "tile.tenant_id": "is missing",
    "tile.level": "is missing",
    "tile.n": "is missing",
    "tile.data": "",
    "log_head.tenant_id": "the head of the log is gone",
    "log_head.origin": "the head of the log has another name",
    "log_head.size": "",
    "log_head.root": "the root of the log is not the signed one",
    "log_head.recovery": "the head of the log has another name",
    "log_head.integrated_at": None,
    "checkpoint.tenant_id": None,
    "checkpoint.origin": "the head of the log has another name",
    "checkpoint.size": "is stored as another one",
    "checkpoint.root": "is stored as another one",
    "checkpoint.note": "a checkpoint of the log does not hold",
    "checkpoint.created_at": None,
    "checkpoint.anchor_run": "",
    "checkpoint.anchor_seq": "operator log",
    "cosignature.tenant_id": None,
    "cosignature.origin": None,
    "cosignature.size": None,
    "cosignature.witness": None,
    "cosignature.line": "",
    "cosignature.cosigned_at": None,
}
OUST = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE usename = 'mf_sequencer' AND datname = current_database()"
)
SAME = ("log_head.recovery", "0")
CHANGES = [change for change in changes(*LOG_TABLES) if change != SAME]
REFUSED = (asyncpg.CheckViolationError, asyncpg.UniqueViolationError, asyncpg.DataError)


@pytest.fixture(scope="module")
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


@pytest.fixture(scope="module")
def served(roles: Roles) -> Iterator[WitnessedServer]:
    with witnessed_server(roles) as server:
        disarm(roles)
        unguarded(roles, *LOG_TABLES, *_PARTS)
        yield server


@pytest.fixture(scope="module")
def run(served: WitnessedServer) -> Run:
    """A witnessed run; no test leaves a trace of what it did to it."""
    made = finished_run(served.live)
    served.when(made.public, lambda found: found["state"] == "anchored")
    return made


@pytest.fixture(scope="module")
def tenant(roles: Roles, run: Run) -> UUID:
    return tenant_of(roles, run)


@contextmanager
def nobody_leads(roles: Roles) -> Iterator[None]:
    """Whoever leads is thrown out, so that it does not look at what is put back in a moment.

    It would halt the ledger for the tests that follow: tests/integration/sequencing has that.
    """
    with asyncio.Runner() as runner:
        raw = runner.run(connect(roles.superuser))
        try:
            runner.run(raw.execute(OUST))
            runner.run(raw.execute(f"SELECT pg_advisory_lock({_LEADER_LOCK})"))
            yield
        finally:
            runner.run(raw.close())


@contextmanager
def tampered(
    roles: Roles, table: str, where: str, ids: tuple[UUID, UUID], change: str | None
) -> Iterator[bool]:
    """Rows changed (or gone, without a change) and put back; False when the database refuses."""
    with nobody_leads(roles), changed_rows(roles, table, where, ids, change) as is_changed:
        yield is_changed


@contextmanager
def changed_rows(
    roles: Roles, table: str, where: str, ids: tuple[UUID, UUID], change: str | None
) -> Iterator[bool]:
    """The same for who sees to it that nobody leads."""
    kept: list[asyncpg.Record] = []
    left: list[object] = []

    async def act(raw: asyncpg.Connection) -> None:
        kept.extend(await raw.fetch(f"SELECT * FROM {table} WHERE {where}", *ids))
        assert kept, "the attack missed"
        do = f"DELETE FROM {table}" if change is None else f"UPDATE {table} SET {change}"
        rows = await raw.fetch(f"{do} WHERE {where} RETURNING ctid", *ids)
        left.extend(row["ctid"] for row in rows if change is not None)

    async def undo(raw: asyncpg.Connection) -> None:
        await raw.execute(f"DELETE FROM {table} WHERE ctid = ANY ($1::tid[])", left)
        for row in kept:
            places = ", ".join(f"${n + 1}" for n in range(len(row)))
            # The sequencer may have written its own in the meantime.
            put = f"INSERT INTO {table} VALUES ({places}) ON CONFLICT DO NOTHING"
            await raw.execute(put, *row.values())

    try:
        as_superuser(roles, act)
    except REFUSED:
        yield False
        return
    try:
        yield True
    finally:
        as_superuser(roles, undo)


def test_a_witnessed_run_says_so_and_since_when(served: WitnessedServer, run: Run) -> None:
    found = served.when(run.public, lambda _: True)
    assert (found["state"], found["size"], found["unwitnessed"]) == ("anchored", 9, 0)
    assert found["witnessed_at"] is not None
    assert verification(served.live, run).verdict == "valid"


def test_every_column_of_the_log_is_looked_at(roles: Roles) -> None:
    assert set(NAMED) == columns_of(roles, *LOG_TABLES)


@pytest.mark.parametrize(("place", "way"), CHANGES)
def test_a_changed_row_of_the_log_is_named(
    served: WitnessedServer, roles: Roles, run: Run, tenant: UUID, place: str, way: str
) -> None:
    table, column = place.split(".")
    reason = NAMED[place]
    with tampered(roles, table, ROWS[table], (tenant, run.run_id), f"{column} = {way}") as is_done:
        found = verification(served.live, run)
        if not is_done or reason is None:
            assert found.verdict == "valid", found
        else:
            assert found.verdict == "broken", found
            assert reason in (found.reason or ""), found
            if table in {"leaf", "tile", "log_head"}:
                assert_nothing_is_shown(served.live, run)
    assert verification(served.live, run).verdict == "valid"


def test_a_log_under_the_name_of_another_deployment_is_named(
    served: WitnessedServer, roles: Roles, run: Run, tenant: UUID
) -> None:
    """Under its new name it would have no checkpoint, and all of it would be merely pending."""
    change = "origin = 'other.test/ledger/' || replace(tenant_id::text, '-', '')"
    ids = (tenant, run.run_id)
    with tampered(roles, "log_head", ROWS["log_head"], ids, change) as is_done:
        assert is_done
        assert "another name" in (verification(served.live, run).reason or "")
        assert_nothing_is_shown(served.live, run)
    assert verification(served.live, run).verdict == "valid"


@pytest.mark.parametrize(
    "table", ["leaf", "tile", "log_head", "record", "payload", "checkpoint", "run_key"]
)
def test_what_is_gone_from_the_operator_log_is_named_or_not_counted_as_witnessed(
    served: WitnessedServer, roles: Roles, run: Run, tenant: UUID, table: str
) -> None:
    where = "tenant_id <> $1 AND $2::uuid IS NOT NULL"
    with tampered(roles, table, where, (tenant, run.run_id), None):
        with served.live.client() as client:
            told = client.get(f"/v1/runs/{run.public}/verification").json()
        assert told["integrity"]["state"] != "anchored", told
    assert verification(served.live, run).verdict == "valid"


@pytest.mark.parametrize(
    ("table", "where", "reason"),
    [
        ("leaf", "tenant_id = $1 AND run_id = $2 AND seq = 0", "has no place in the log, but"),
        ("leaf", "tenant_id = $1 AND run_id = $2 AND seq = 8", "no place in the log any more"),
        ("leaf", "tenant_id = $1 AND run_id = $2", "no place in the log any more"),
        ("tile", ROWS["tile"], "is missing"),
        ("log_head", ROWS["log_head"], "the head of the log is gone"),
    ],
)
def test_rows_that_are_gone_from_the_log_are_named(
    served: WitnessedServer,
    roles: Roles,
    run: Run,
    tenant: UUID,
    table: str,
    where: str,
    reason: str,
) -> None:
    with tampered(roles, table, where, (tenant, run.run_id), None):
        found = verification(served.live, run)
        while "any more" in reason and found.verdict == "valid":  # until the deadline is over
            found = verification(served.live, run)
        assert found.verdict == "broken"
        assert reason in (found.reason or ""), found
        assert_nothing_is_shown(served.live, run)
    assert verification(served.live, run).verdict == "valid"


def alarms(roles: Roles) -> int:
    """How many alarms the operator log holds; what they say is sealed."""

    async def act(raw: asyncpg.Connection) -> int:
        found: int = await raw.fetchval(
            "SELECT count(*) FROM record WHERE kind = 'integrity.alarm'"
        )
        return found

    return as_superuser(roles, act)


def fresh_run(served: WitnessedServer, state: str = "anchored") -> Run:
    made = finished_run(served.live)
    served.when(made.public, lambda found: found["state"] == state)
    return made


async def _gone(raw: asyncpg.Connection, run: Run, from_seq: int) -> None:
    for table in ("payload", "record"):
        await raw.execute(
            f"DELETE FROM {table} WHERE run_id = $1 AND seq >= $2", run.run_id, from_seq
        )


def test_a_tail_that_was_cut_is_named_though_the_row_says_that_it_never_was(
    served: WitnessedServer, roles: Roles
) -> None:
    run = fresh_run(served)

    async def act(raw: asyncpg.Connection) -> None:
        await _gone(raw, run, 7)
        await raw.execute(
            "UPDATE runs SET status = 'running', entries = NULL, finished_at = NULL,"
            " error_code = NULL WHERE run_id = $1",
            run.run_id,
        )

    as_superuser(roles, act)
    assert_broken(served.live, run, 7, "a record is gone that the log holds")


def test_a_run_that_is_gone_as_a_whole_is_named_while_the_log_holds_it(
    served: WitnessedServer, roles: Roles
) -> None:
    run = fresh_run(served)

    async def act(raw: asyncpg.Connection) -> None:
        await _gone(raw, run, 0)
        for table in ("run_key", "run_result", "runs"):
            await raw.execute(f"DELETE FROM {table} WHERE run_id = $1", run.run_id)

    as_superuser(roles, act)
    found = verification(served.live, run)
    assert (found.verdict, found.seq) == ("broken", 0)
    assert found.reason == "the run is gone that the log holds"
    with served.live.client() as client:
        assert client.get(f"/v1/runs/{run.public}").status_code == 409
        never = "run_" + "1" * 32
        assert client.get(f"/v1/runs/{never}").status_code == 404


def test_a_broken_run_raises_one_alarm_in_the_operator_log_however_often_it_is_read(
    served: WitnessedServer, roles: Roles
) -> None:
    run = fresh_run(served, "anchored")
    before = alarms(roles)
    with tampered(
        roles,
        "leaf",
        "tenant_id IS DISTINCT FROM $1 AND run_id = $2 AND seq = 0",
        (run.run_id, run.run_id),
        None,
    ):
        for _ in range(3):
            assert verification(served.live, run).verdict == "broken"
            assert_nothing_is_shown(served.live, run)
        while (count := alarms(roles)) == before:
            assert verification(served.live, run).verdict == "broken"
        assert count == before + 1
    assert verification(served.live, run).verdict == "valid"
    assert alarms(roles) == before + 1


def test_a_record_that_claims_the_place_of_another_run_is_named(
    served: WitnessedServer, roles: Roles
) -> None:
    """In order, gapless and within the log: what stands there is what gives it away."""
    early, late = fresh_run(served), fresh_run(served)
    place = "SELECT idx FROM leaf WHERE run_id = $1 AND seq = 8"
    move = "UPDATE leaf SET idx = $2 WHERE run_id = $1 AND seq = 8"

    async def act(raw: asyncpg.Connection) -> None:
        first = await raw.fetchval(place, early.run_id)
        second = await raw.fetchval(place, late.run_id)
        await raw.execute(move, late.run_id, 1 << 40)
        await raw.execute(move, early.run_id, second)
        await raw.execute(move, late.run_id, first)

    as_superuser(roles, act)
    assert_broken(served.live, early, 8, "not the one at its place in the log")


def test_a_checkpoint_that_names_another_record_of_the_operator_log_is_named(
    served: WitnessedServer, roles: Roles, run: Run, tenant: UUID
) -> None:
    where = "tenant_id = $1 AND $2::uuid IS NOT NULL"
    with tampered(roles, "checkpoint", where, (tenant, run.run_id), "anchor_seq = 1"):
        reason = verification(served.live, run).reason
    assert reason == "the operator log's record of a checkpoint is of another one"
