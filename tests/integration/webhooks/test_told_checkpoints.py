"""A checkpoint is told in the transaction that stores it: once, or not at all."""

import json
from datetime import UTC, datetime

import pytest

from app.domain.errors import StaleTermError
from app.domain.run import TenantId
from app.domain.webhook import WebhookEvent
from app.storage.keeper_store import NewCheckpoint, UnsignedHead, add_checkpoints
from tests.integration.sequencing.log_scene import led
from tests.integration.webhooks.webhook_scene import Hooks

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


def checkpoint(tenant_id: TenantId, size: int) -> NewCheckpoint:
    head = UnsignedHead(tenant_id=tenant_id, origin="test.local/log", size=size, root=b"r" * 32)
    return NewCheckpoint(head=head, note=f"test.local/log\n{size}\n", anchor=None)


async def test_each_new_checkpoint_is_told_to_its_own_tenant_once(hooks: Hooks) -> None:
    mine = await hooks.endpoint(events=[WebhookEvent.LOG_CHECKPOINT])
    deaf = await hooks.endpoint(events=[WebhookEvent.RUN_FAILED])
    other = await hooks.tenant("other")
    theirs = await hooks.endpoint(tenant_id=other)
    made = [checkpoint(mine.tenant_id, 1), checkpoint(mine.tenant_id, 2), checkpoint(other, 7)]
    async with led(hooks.roles) as (leader, _):
        await add_checkpoints(leader, made, NOW)
        await add_checkpoints(leader, made, NOW)
    rows = await hooks.fetch("SELECT endpoint_id, type, body FROM webhook_delivery")
    told = sorted(
        (str(row["endpoint_id"]), json.loads(row["body"])["data"]["size"]) for row in rows
    )
    assert told == sorted(
        [(str(mine.endpoint_id), 1), (str(mine.endpoint_id), 2), (str(theirs.endpoint_id), 7)]
    )
    assert await hooks.told(deaf) == []
    event = json.loads(rows[0]["body"])
    assert event["type"] == "log.checkpoint"
    assert event["timestamp"] == "2026-11-25T12:00:00.000000Z"
    assert event["data"]["root_hash"] == b"r".hex() * 32
    assert event["data"]["checkpoint"].startswith("test.local/log\n")


async def test_who_leads_no_more_stores_and_tells_nothing(hooks: Hooks) -> None:
    mine = await hooks.endpoint()
    async with led(hooks.roles) as (leader, _):
        await hooks.execute("UPDATE sequencer_state SET term = term + 1")
        with pytest.raises(StaleTermError):
            await add_checkpoints(leader, [checkpoint(mine.tenant_id, 1)], NOW)
    assert await hooks.fetch("SELECT 1 FROM checkpoint") == []
    assert await hooks.told(mine) == []
