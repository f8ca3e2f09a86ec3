"""A log with the name of a recovery that never was is named, and one that was recovered is read."""

import asyncio
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from app.domain.erasure import ErasureStatus
from app.ledger_assembly import ledger_parts
from app.log_keeping import recovery_desk
from tests.integration.erasing.erasing_scene import erasing_beside
from tests.security.tampering_scene import (
    Run,
    as_superuser,
    assert_broken,
    assert_whole,
    finished_run,
    verification,
)
from tests.support.databases import DatabaseServer, Roles, execute
from tests.support.live_server import LiveServer, live_server, settings_for
from tests.support.witnessed_server import DEPLOYMENT, witnessed_server

RENAME = (
    "UPDATE log_head SET recovery = recovery + 1, origin = origin || '/r1'"
    " WHERE tenant_id = (SELECT tenant_id FROM runs WHERE run_id = $1)"
)
BACK = RENAME.replace("+ 1", "- 1").replace("origin || '/r1'", "replace(origin, '/r1', '')")


@pytest.fixture
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


def _witnessed_run(roles: Roles) -> Run:
    """All of it is signed and witnessed; nobody sequences any more."""
    with witnessed_server(roles) as served:
        made = finished_run(served.live)
        served.when(made.public, lambda found: found["state"] == "anchored")
    return made


def _done(roles: Roles, statement: str, run: Run) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        await raw.execute("ALTER TABLE log_head DISABLE TRIGGER ALL")
        assert await raw.execute(statement, run.run_id) == "UPDATE 1"

    as_superuser(roles, act)


def test_a_name_that_no_recovery_gave_is_a_break_and_not_a_log_without_signatures(
    roles: Roles,
) -> None:
    run = _witnessed_run(roles)
    with live_server(roles, MESHFLOW_DEPLOYMENT=DEPLOYMENT) as live:
        assert_whole(live, run)
        deleted = finished_run(live)
        asyncio.run(_deleted(live, deleted))
        _done(roles, RENAME, run)
        assert_broken(live, run, 0, "a name that no recovery gave it")
        assert verification(live, deleted).reason is not None
        _done(roles, BACK, run)
        assert_whole(live, run)
        assert verification(live, deleted).verdict == "valid"


async def _deleted(live: LiveServer, run: Run) -> None:
    async with erasing_beside(live) as erasing:
        assert (await erasing.delete(run)).status is ErasureStatus.COMPLETE


def test_a_log_that_a_recovery_has_just_renamed_is_read(roles: Roles) -> None:
    run = _witnessed_run(roles)
    with live_server(roles, MESHFLOW_DEPLOYMENT=DEPLOYMENT) as live:
        asyncio.run(_recovered(roles, live.directory))

        async def name(raw: asyncpg.Connection) -> tuple[str, int, UUID]:
            row = await raw.fetchrow(
                "SELECT h.origin, h.recovery, h.tenant_id FROM log_head h JOIN runs r"
                " USING (tenant_id) WHERE r.run_id = $1",
                run.run_id,
            )
            return tuple(row)

        origin, recovery, log = as_superuser(roles, name)
        assert (origin, recovery) == (f"{DEPLOYMENT}/ledger/{log.hex}/r1", 1)
        assert_whole(live, run)
        assert verification(live, run).verdict == "valid"


async def _recovered(roles: Roles, directory: Path) -> None:
    await execute(roles.superuser, "UPDATE tenants SET halted = 'said a test'")
    settings = settings_for(
        directory,
        roles,
        MESHFLOW_OWNER_DATABASE_URL=roles.owner,
        MESHFLOW_DEPLOYMENT=DEPLOYMENT,
    )
    parts = ledger_parts(settings)
    try:
        async with recovery_desk(settings, parts) as desk:
            await parts.enrolment.register()
            await desk.open(None)
    finally:
        await parts.database.close()
