"""Who may erase: the eraser's login by three functions that record it, and nobody else at all."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from app.domain.erasure import ErasureAction, ErasureRequest
from app.domain.errors import ErasureRefusedError, KeyRetiredError, LedgerBrokenError
from app.domain.run import RunId
from app.erasing.erasure_plan import Plan
from app.runs.run_keys import next_version
from app.storage.companions import WrappedKey
from app.storage.erasing_store import DeleteRun, RunSnapshot
from tests.integration.erasing.erasing_scene import WHY, Erasing, erasing_beside
from tests.integration.storage.test_rights import acting_as, logged_in
from tests.security.tampering_scene import Run, attack, disarm, finished_run
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio

CALLS = (
    (
        "SELECT erase_anonymize_run($1,$1,$1,$1,0,'{}','{}','{}','{}','{}','{}','{}','{}','k','',"
        "now(),now(),NULL)"
    ),
    "SELECT erase_delete_run($1,$1,$1,$1,0,'{}','{}','{}','{}','{}',now(),now(),NULL)",
    "SELECT erase_delete_tenant($1,$1,$1,$1,0,'{}',now(),now(),NULL)",
    "SELECT erasure_refuse($1,$1,'no')",
    "SELECT erasure_complete($1,now())",
    "SELECT erasure_waiting() WHERE $1::uuid IS NOT NULL",
    "SELECT kek_waiting() WHERE $1::uuid IS NOT NULL",
    "SELECT kek_wraps($1,'k')",
    "SELECT kek_retire($1,'k','l',now())",
    "SELECT kek_rewrap($1,'run',$1,'k','l','')",
    "SELECT kek_destroyed($1,'k',now(),NULL)",
)


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with live_server(roles) as served:
        yield served


@pytest.fixture
def run(live: LiveServer) -> Run:
    return finished_run(live)


@pytest.mark.parametrize("role", ["mf_app", "mf_audit", "mf_sequencer", "mf_writer", "mf_owner"])
async def test_no_other_role_may_call_what_erases(roles: Roles, run: Run, role: str) -> None:
    async with acting_as(roles, role) as raw:
        for call in CALLS:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await raw.execute(call, run.run_id)


@pytest.mark.parametrize(
    "attempt",
    [
        "DELETE FROM payload",
        "UPDATE record SET header = NULL",
        "SELECT * FROM payload",
        "SELECT * FROM erasure",
        "UPDATE erasure SET status = 'complete'",
        "DELETE FROM run_hold",
        "SET ROLE mf_erase_owner",
        "SELECT erase_recorded(gen_random_uuid(), 'delete_run', gen_random_uuid(), 0)",
        "SELECT erase_receipt($1, $1, '{}', $1, 0, now(), now(), '')".replace("$1", "NULL"),
    ],
)
async def test_the_erasers_login_touches_no_row_itself(
    roles: Roles, run: Run, attempt: str
) -> None:
    assert run.public
    async with logged_in(roles.eraser) as raw:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await raw.execute(attempt)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE record SET rc = chain",
        "UPDATE record SET chain = rc",
        "UPDATE record SET batch_id = gen_random_uuid()",
        "UPDATE record SET seq = seq + 100",
        "UPDATE payload SET seq = seq + 100",
        "UPDATE batch SET sig = sig",
        "UPDATE runs SET entries = 1",
        "INSERT INTO payload SELECT * FROM payload",
        "INSERT INTO record SELECT * FROM record",
        "UPDATE tenants SET name = 'other'",
        "UPDATE writer_key SET public_key = public_key",
    ],
)
async def test_the_owner_of_erasing_can_only_take_away(roles: Roles, run: Run, change: str) -> None:
    assert run.public
    async with acting_as(roles, "mf_erase_owner") as raw:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await raw.execute(change)


@pytest.mark.parametrize("record", ["none", "of an earlier erasure"])
async def test_nothing_is_erased_without_its_record(
    live: LiveServer, run: Run, record: str
) -> None:
    other = finished_run(live)
    async with erasing_beside(live) as erasing, logged_in(live.roles.eraser) as raw:
        place: tuple[object, object] = (run.run_id, 0)
        if record != "none":
            earlier = await erasing.delete(other)
            place = (earlier.record_run, earlier.record_seq)
        rows = await erasing.rows("record", run.run_id)
        fields = await erasing.rows("payload", run.run_id)
        with pytest.raises(asyncpg.PostgresError, match="not recorded"):
            await raw.execute(
                "SELECT erase_delete_run($1,$2,$3,$9,$10,$4,$5,$6,$7,$8,now(),now(),NULL)",
                erasing.tenant_id,
                run.run_id,
                run.run_id,
                [row["seq"] for row in rows],
                [row["rc"] for row in rows],
                [row["chain"] for row in rows],
                [row["seq"] for row in fields],
                [row["field"] for row in fields],
                *place,
            )
        assert len(await erasing.rows("payload", run.run_id)) == 17


async def _planned(erasing: Erasing, run: Run) -> tuple[ErasureRequest, Plan, RunSnapshot]:
    asked = await erasing.parts.replay.delete_run(erasing.tenant_id, RunId(run.run_id), **WHY)
    planner = erasing.at_work.eraser._parts.planner
    plan = await planner.of_run(
        asked.request, RunId(run.run_id), datetime.now(UTC), is_forced=False
    )
    assert isinstance(plan.removal, DeleteRun)
    assert asked.request.action is ErasureAction.DELETE_RUN
    return asked.request, plan, plan.removal.snapshot


async def test_what_is_not_as_the_statement_says_is_not_erased(live: LiveServer, run: Run) -> None:
    """The rows change between the plan and the act: field by field, hash by hash."""
    async with erasing_beside(live) as erasing:
        request, plan, snapshot = await _planned(erasing, run)
        before = len(await erasing.rows("record"))
        seq, rc, chain = snapshot.hashes[3]
        wrong = (
            RunSnapshot(run_id=snapshot.run_id, hashes=snapshot.hashes[:-1], gone=snapshot.gone),
            RunSnapshot(
                run_id=snapshot.run_id,
                hashes=[*snapshot.hashes[:3], (seq, chain, rc), *snapshot.hashes[4:]],
                gone=snapshot.gone,
            ),
            RunSnapshot(
                run_id=snapshot.run_id, hashes=snapshot.hashes, gone=list(snapshot.gone)[1:]
            ),
            RunSnapshot(
                run_id=snapshot.run_id, hashes=snapshot.hashes, gone=[*snapshot.gone, (0, 8)]
            ),
        )
        for changed in wrong:
            forged = Plan(statement=plan.statement, removal=DeleteRun(snapshot=changed))
            with pytest.raises(ErasureRefusedError, match="changed_meanwhile"):
                await erasing.at_work.eraser._carry_out(request, forged, None)
        assert len(await erasing.rows("payload", run.run_id)) == 17
        assert len(await erasing.rows("record")) == before


async def test_nothing_is_wrapped_under_a_key_that_is_retired(live: LiveServer, run: Run) -> None:
    async with erasing_beside(live, rotate_every=timedelta(hours=1)) as erasing:
        (row,) = await erasing.rows("run_key", run.run_id)
        store = erasing.at_work.eraser._parts.store
        now = datetime.now(UTC)
        await store.retire(erasing.tenant_id, row["kek_id"], next_version(row["kek_id"]), now)
        with pytest.raises(KeyRetiredError):
            await erasing.at_work.eraser._parts.store.rewrap(
                erasing.tenant_id,
                (await store.wraps(erasing.tenant_id, row["kek_id"]))[0],
                next_version(row["kek_id"]),
                WrappedKey(kek_id=row["kek_id"], wrapped=b"w"),
            )
        erasing.parts.keys.create_kek(next_version(row["kek_id"]))
    # The server finds out when it is refused, takes the newest one, and nobody is told.
    again = finished_run(live)
    async with erasing_beside(live) as erasing:
        (new,) = await erasing.rows("run_key", again.run_id)
        assert new["kek_id"] == next_version(row["kek_id"])


@pytest.mark.parametrize("trick", ["replica", "disabled"])
async def test_a_superusers_tricks_are_not_prevented_but_seen(live: LiveServer, trick: str) -> None:
    run = await asyncio.to_thread(finished_run, live)
    statement = "DELETE FROM payload WHERE run_id = $1 AND field = 6"
    if trick == "replica":
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await asyncio.to_thread(attack, live.roles, statement, run.run_id)
    await asyncio.to_thread(disarm, live.roles)
    await asyncio.to_thread(attack, live.roles, statement, run.run_id)
    async with erasing_beside(live) as erasing:
        with pytest.raises(LedgerBrokenError, match="gone without a recorded erasure"):
            await erasing.parts.replay.read_run(erasing.tenant_id, RunId(run.run_id))
