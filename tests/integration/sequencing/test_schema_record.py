"""A change of the database's schema stands in the operator log: each once, and none that is not."""

import asyncio
import json
from pathlib import Path

import pytest

from app.domain.run import Json
from app.sequencing.schema_record import Schema, SchemaRecord
from app.storage import schema
from tests.integration.sequencing.keeper_scene import Watch, continuity_of, watch_on
from tests.integration.sequencing.log_scene import led
from tests.support.databases import DatabaseServer, Roles

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


async def _looked(watch: Watch, roles: Roles, needed: str, at: str | None) -> list[Json]:
    """What is recorded of changes after a leader of a version that needs `needed` has looked."""

    async def revision() -> str | None:
        return at

    continuity = continuity_of(watch.signing, watch.admin_log, watch.operator, watch.start)
    asked = Schema(product="1.2.3", needed=needed, revision=revision)
    record = SchemaRecord(watch.admin_log, continuity.history, asked)
    async with led(roles) as (leader, sequencer):
        await sequencer.tick()
        assert await continuity.look(leader.raw) == []
        await record.look()
        await record.look()
    chain = await watch.operator_chain()
    return [json.loads(r.fields["note"]) for r in chain.records if r.kind == "schema.change"]


async def test_each_change_is_recorded_once_by_a_leader_of_the_version_that_needs_it(
    fresh: Roles, tmp_path: Path
) -> None:
    first = {"from": None, "to": "0005", "product": "1.2.3"}
    second = {"from": "0005", "to": "0006", "product": "1.2.3"}
    back = {"from": "0006", "to": "0005", "product": "1.2.3"}
    async with watch_on(fresh, tmp_path, save_every=1) as watch:
        await watch.admin_log.append(watch.operator, "hold.set", {"reason": "begun"})
        assert await _looked(watch, fresh, "0005", None) == []
        assert await _looked(watch, fresh, "0005", "0005") == [first]
        assert await _looked(watch, fresh, "0005", "0005") == [first], "nothing has changed"
        assert await _looked(watch, fresh, "0005", "0006") == [first], "left to who needs it"
        assert await _looked(watch, fresh, "0006", "0006") == [first, second]
        assert await _looked(watch, fresh, "0005", "0005") == [first, second, back]


async def test_the_database_says_what_it_is_at_to_the_login_that_serves(fresh: Roles) -> None:
    assert await schema.current_revision(fresh.app) == schema.known_revision()
