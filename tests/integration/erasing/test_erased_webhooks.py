"""Erasing a run takes what webhooks were to tell of it; a deleted tenant leaves no endpoint."""

import json
from collections.abc import Iterator

import pytest

from app.domain.erasure import ErasureStatus
from app.wiring import Overrides
from tests.integration.erasing.erasing_scene import WHY, erasing_beside
from tests.security.tampering_scene import finished_run
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server
from tests.support.webhook_receiver import HookField, hook_field_beside

pytestmark = pytest.mark.anyio
TABLES = ("webhook_endpoint", "webhook_delivery")


@pytest.fixture
def net() -> Iterator[HookField]:
    with hook_field_beside() as made:
        yield made


@pytest.fixture
def live(postgres: DatabaseServer, net: HookField) -> Iterator[LiveServer]:
    with live_server(postgres.new_database(), Overrides(egress=net.net.parts)) as served:
        yield served


def _listening(live: LiveServer, path: str) -> None:
    with live.client() as client:
        body = {
            "url": f"https://www.allowed.example{path}",
            "events": ["run.queued", "run.succeeded"],
        }
        client.post("/v1/webhook-endpoints", json=body).raise_for_status()


async def test_deliveries_of_a_deleted_run_go_sent_or_not_and_others_stay(
    live: LiveServer, net: HookField
) -> None:
    _listening(live, "/ok")
    _listening(live, "/status/500")
    mine, other = finished_run(live), finished_run(live)
    net.received(8)
    async with erasing_beside(live) as erasing:
        assert len(await erasing.rows("webhook_delivery", mine.run_id)) == 4
        receipt = await erasing.delete(mine)
        assert receipt.status is ErasureStatus.COMPLETE
        assert await erasing.rows("webhook_delivery", mine.run_id) == []
        assert len(await erasing.rows("webhook_delivery", other.run_id)) == 4


async def test_what_is_told_of_a_run_holds_nothing_that_anonymizing_takes(
    live: LiveServer, net: HookField
) -> None:
    _listening(live, "/ok")
    run = finished_run(live)
    net.received(2)
    async with erasing_beside(live) as erasing:
        await erasing.anonymize(run)
        kept = await erasing.rows("webhook_delivery", run.run_id)
    told = [json.loads(row["body"]) for row in kept]
    assert {item["type"] for item in told} == {"run.queued", "run.succeeded"}
    for item in told:
        assert set(item) == {"type", "timestamp", "data"}
        assert set(item["data"]) == {
            *("run_id", "status", "error", "seq", "chain_hash", "created_at", "finished_at")
        }


async def test_of_a_deleted_tenant_no_endpoint_no_delivery_and_no_key_is_left(
    live: LiveServer, net: HookField
) -> None:
    _listening(live, "/ok")
    _listening(live, "/status/500")
    finished_run(live)
    net.received(4)
    async with erasing_beside(live) as erasing:
        prefix = f"webhook/{erasing.tenant_id.hex}/"
        assert erasing.parts.keys.kek_ids(prefix)
        for table in TABLES:
            assert await erasing.rows(table)
        asked = await erasing.parts.replay.delete_tenant(erasing.tenant_id, **WHY)
        assert (await erasing.done(asked)).status is ErasureStatus.COMPLETE
        for table in TABLES:
            assert await erasing.rows(table) == []
        assert erasing.parts.keys.kek_ids(prefix) == ()
