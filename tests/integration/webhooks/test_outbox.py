"""What is told is what was committed: the outbox row and the record are one transaction."""

import asyncio
import json
from base64 import b64encode
from dataclasses import replace
from uuid import uuid4

import pytest
from standardwebhooks.webhooks import Webhook

from app.domain.errors import InvalidSubmissionError, LedgerError
from app.domain.run import RunStatus, Usage
from app.domain.webhook import DeliveryState, EndpointId, WebhookEvent, public_delivery_id
from app.storage.companions import Change, QueuePut
from tests.integration.storage.append_scene import ending, scene_on, step
from tests.integration.webhooks.webhook_scene import Hooks

pytestmark = pytest.mark.anyio


async def test_each_state_of_a_run_is_told_once_and_verifies_elsewhere(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint()
    author = await hooks.run()
    assert await hooks.courier().deliver_due() == 3
    told = [
        Webhook(b64encode(b"k" * 32).decode()).verify(one.body, dict(one.headers))
        for one in hooks.receiver.received
    ]
    by_type = {event["type"]: event for event in told}
    assert set(by_type) == {"run.queued", "run.running", "run.succeeded"}
    last = by_type["run.succeeded"]["data"]
    assert last["run_id"] == f"run_{author.run_id.hex}"
    assert last["status"] == "succeeded"
    assert last["seq"] == 2
    assert last["chain_hash"] == author.head.chain.hex()
    assert last["finished_at"] == "2026-11-24T12:00:00.123456Z"
    log = await hooks.told(endpoint)
    assert {one.state for one in log} == {DeliveryState.DELIVERED}
    assert {public_delivery_id(one.delivery_id) for one in log} == {
        one.headers["webhook-id"] for one in hooks.receiver.received
    }
    assert await hooks.courier().deliver_due() == 0


async def test_a_run_that_begins_with_its_submission_is_told_of_as_queued_and_running(
    hooks: Hooks,
) -> None:
    endpoint = await hooks.endpoint()
    author = hooks.scene.author()
    put, running = QueuePut(worker=None), Change(status=RunStatus.RUNNING, usage=Usage())
    await hooks.scene.write(author, author.seal(step(), step()), author.new_run(), put, running)
    assert sorted(one.type for one in await hooks.told(endpoint)) == ["run.queued", "run.running"]
    refused = hooks.scene.author()
    blocked = ending(refused, refused.seal(), RunStatus.BLOCKED)
    await hooks.scene.write(refused, refused.seal(), refused.new_run(), blocked)
    assert [one.type for one in await hooks.told(endpoint)][2:] == ["run.blocked"]


async def test_an_endpoint_hears_only_what_it_asked_for(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint(events=[WebhookEvent.RUN_FAILED])
    await hooks.run()
    await hooks.run(RunStatus.FAILED)
    assert [one.type for one in await hooks.told(endpoint)] == ["run.failed"]


async def test_two_endpoints_hear_the_same_and_another_tenants_hears_nothing(hooks: Hooks) -> None:
    one, two = await hooks.endpoint(), await hooks.endpoint()
    theirs = await hooks.endpoint(tenant_id=await hooks.tenant("other"))
    await hooks.run()
    assert [item.type for item in await hooks.told(one)] == [
        item.type for item in await hooks.told(two)
    ]
    assert await hooks.told(theirs) == []


async def test_a_record_that_is_refused_is_not_told(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint()
    author = await hooks.run()
    before = await hooks.told(endpoint)
    again = Change(status=RunStatus.RUNNING, usage=Usage())
    with pytest.raises(LedgerError):
        await hooks.scene.write(author, author.seal(), again)
    assert await hooks.told(endpoint) == before


async def test_the_outbox_takes_no_event_without_its_records(hooks: Hooks) -> None:
    """The application calls the function itself, with a batch that it did not write now."""
    endpoint = await hooks.endpoint()
    author = await hooks.scene.begun()
    (row,) = await hooks.fetch("SELECT batch_id FROM batch")
    before = len(await hooks.told(endpoint))
    companion = [{"op": "run.change", "run_id": str(author.run_id), "status": "failed"}]
    async with hooks.database.driver() as raw:
        with pytest.raises(Exception, match="the records are not there"):
            await raw.execute(
                "SELECT webhook_tell($1, $2, $3)",
                author.tenant_id,
                row["batch_id"],
                json.dumps(companion),
            )
    assert len(await hooks.told(endpoint)) == before


async def test_an_endpoint_counts_from_its_commit_on_in_every_process(hooks: Hooks) -> None:
    """Nothing remembers that there was none: a process that appended all along tells at once."""
    async with scene_on(hooks.roles) as other:
        await other.begun()
        endpoint = await hooks.endpoint()
        await other.begun()
    assert [one.type for one in await hooks.told(endpoint)] == ["run.queued"]


async def test_a_disabled_and_a_removed_endpoint_are_told_nothing(hooks: Hooks) -> None:
    removed, disabled = await hooks.endpoint("/one"), await hooks.endpoint("/two")
    await hooks.execute(
        "UPDATE webhook_endpoint SET enabled = false WHERE endpoint_id = $1", disabled.endpoint_id
    )
    assert await hooks.store.remove(removed.tenant_id, removed.endpoint_id, removed.version)
    heard = await hooks.endpoint("/three")
    await hooks.run()
    assert await hooks.told(disabled) == await hooks.told(removed) == []
    assert len(await hooks.told(heard)) == 3
    (row,) = await hooks.fetch(
        "SELECT kek_id, sealed FROM webhook_endpoint WHERE endpoint_id = $1", removed.endpoint_id
    )
    assert (row["kek_id"], row["sealed"]) == (None, None)


async def test_an_append_waits_for_no_change_of_an_endpoint(hooks: Hooks) -> None:
    """Somebody changes and removes endpoints in a transaction that does not end."""
    changed = await hooks.endpoint()
    async with hooks.database.driver() as raw, raw.transaction():
        await raw.execute(
            "SELECT webhook_change($1, $2, 1, $3, $4, $5, true)",
            changed.tenant_id,
            changed.endpoint_id,
            changed.kek_id,
            changed.sealed,
            ["run.queued"],
        )
        await raw.execute(
            "SELECT webhook_remove($1, $2, 2)", changed.tenant_id, changed.endpoint_id
        )
        await hooks.scene.begun()
        assert [one.type for one in await hooks.told(changed)] == ["run.queued"]


async def test_two_registrations_at_once_do_not_pass_the_bound_together(hooks: Hooks) -> None:
    first = await hooks.endpoint()
    made = [replace(first, endpoint_id=EndpointId(uuid4())) for _ in range(8)]
    done = await asyncio.gather(
        *(hooks.store.register(one, 4) for one in made), return_exceptions=True
    )
    assert sum(isinstance(one, InvalidSubmissionError) for one in done) == 5
    assert len(await hooks.store.endpoints(first.tenant_id)) == 4
