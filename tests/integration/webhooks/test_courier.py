"""How deliveries are tried, again and again, given up, and shared between processes."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from app.domain.run import RunStatus
from app.domain.webhook import DeliveryState, DisabledReason, LiveSecret, WebhookEvent
from app.storage import webhook_store
from app.storage.webhook_store import Outcome, Settlement
from app.webhooks import courier as courier_module
from app.webhooks.courier import TRIM_SECONDS
from app.webhooks.fair_turns import TurnLimits
from tests.integration.webhooks.webhook_scene import Hooks

pytestmark = pytest.mark.anyio
ENDS = (WebhookEvent.RUN_SUCCEEDED,)
LEASE = 3600


async def test_what_failed_is_tried_again_under_the_same_id(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/flaky", events=ENDS)
    hooks.receiver.statuses["/flaky"] = 500
    await hooks.run()
    assert await hooks.courier().deliver_due() == 1
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.attempts, one.status) == (DeliveryState.PENDING, 1, 500)
    assert await hooks.courier().deliver_due() == 0, "not before its time"
    await hooks.all_due()
    hooks.receiver.statuses["/flaky"] = 204
    assert await hooks.courier().deliver_due() == 1
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.attempts, one.status) == (DeliveryState.DELIVERED, 2, 204)
    first, second = hooks.receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/status/404", "status"),
        ("/moved", "status"),
        ("/heads", "protocol"),
        ("https://ip-7f000001.allowed.example/", "private"),
        ("https://nowhere.allowed.example/", "unknown"),
    ],
)
async def test_a_failure_is_named_and_no_word_of_the_answer_kept(
    hooks: Hooks, path: str, error: str
) -> None:
    endpoint = await hooks.endpoint(path, events=ENDS)
    await hooks.run()
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.attempts) == (DeliveryState.PENDING, 1)
    assert one.error in (error, "too_much") if path == "/heads" else one.error == error
    await hooks.net.settle()
    assert hooks.net.inside.accepted == []


async def test_a_success_is_one_whatever_body_is_promised(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/unread", events=ENDS)
    await hooks.run()
    await hooks.courier().deliver_due()
    assert [one.state for one in await hooks.told(endpoint)] == [DeliveryState.DELIVERED]


async def test_a_receiver_that_asks_for_time_gets_it(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/later/900", events=ENDS)
    await hooks.run()
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(endpoint)
    assert one.attempted_at is not None
    assert one.due_at - one.attempted_at >= timedelta(seconds=900)


async def test_a_receiver_does_not_ask_for_ever(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/later/999999999", events=ENDS)
    await hooks.run()
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(endpoint)
    assert one.attempted_at is not None
    assert one.state is DeliveryState.PENDING
    assert one.due_at - one.attempted_at <= timedelta(hours=5)


@pytest.mark.parametrize(("minutes", "signatures"), [(5, 2), (-5, 1)])
async def test_an_old_secret_signs_until_its_time_is_over(
    hooks: Hooks, minutes: int, signatures: int
) -> None:
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    await hooks.endpoint(events=ENDS, older=[LiveSecret(key=b"old" * 10, until=until)])
    await hooks.run()
    await hooks.courier().deliver_due()
    (one,) = hooks.receiver.received
    assert len(one.headers["webhook-signature"].split(" ")) == signatures


async def test_gone_disables_the_endpoint(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/status/410", events=ENDS)
    await hooks.run()
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(endpoint)
    assert one.state is DeliveryState.DEAD
    found = await hooks.store.endpoint(endpoint.tenant_id, endpoint.endpoint_id)
    assert found is not None
    assert (found.enabled, found.reason) == (False, DisabledReason.GONE)
    assert found.version == endpoint.version + 1
    await hooks.run()
    assert len(await hooks.told(endpoint)) == 1


async def test_after_a_day_it_is_given_up_and_can_be_sent_by_hand(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/flaky", events=ENDS)
    hooks.receiver.statuses["/flaky"] = 500
    await hooks.run()
    await hooks.execute("UPDATE webhook_delivery SET give_up_at = now() + interval '1 second'")
    await hooks.courier().deliver_due()
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.attempts) == (DeliveryState.DEAD, 1)
    assert one.ended_at is not None
    await hooks.all_due()
    assert await hooks.courier().deliver_due() == 0
    hooks.receiver.statuses["/flaky"] = 200
    ids = (endpoint.tenant_id, endpoint.endpoint_id, one.delivery_id)
    again = await hooks.store.redeliver(*ids)
    assert again is not None
    assert again.state is DeliveryState.PENDING
    assert await hooks.courier().deliver_due() == 1
    assert [item.state for item in await hooks.told(endpoint)] == [DeliveryState.DELIVERED]
    ids_sent = {received.headers["webhook-id"] for received in hooks.receiver.received}
    assert len(ids_sent) == 1


async def test_what_was_never_tried_is_given_up_too(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint(events=ENDS)
    await hooks.run()
    await hooks.execute("UPDATE webhook_delivery SET give_up_at = now() - interval '1 second'")
    assert await hooks.courier().deliver_due() == 0
    assert [one.state for one in await hooks.told(endpoint)] == [DeliveryState.DEAD]


async def test_what_ended_is_kept_for_its_time_and_not_longer(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint(events=ENDS)
    await hooks.run()
    await hooks.courier().deliver_due()
    await hooks.run()
    await hooks.courier().deliver_due()
    old, young = await hooks.told(endpoint)
    await hooks.execute(
        "UPDATE webhook_delivery SET ended_at = now() - interval '8 days' WHERE delivery_id = $1",
        old.delivery_id,
    )
    await hooks.courier().deliver_due()
    assert await hooks.told(endpoint) == [young]


async def test_much_that_ended_is_removed_look_by_look(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_store, "_TRIMMED_AT_ONCE", 2)
    endpoint = await hooks.endpoint(events=ENDS)
    for _ in range(5):
        await hooks.store.test(endpoint.tenant_id, endpoint.endpoint_id)
    courier = hooks.courier()
    while await courier.deliver_due():
        pass
    await hooks.execute("UPDATE webhook_delivery SET ended_at = now() - interval '8 days'")
    hooks.clock.at += TRIM_SECONDS
    for left in (3, 1, 0):
        await courier.deliver_due()
        assert len(await hooks.told(endpoint)) == left


async def test_what_a_removed_endpoint_was_to_be_told_is_removed_and_then_itself(
    hooks: Hooks,
) -> None:
    endpoint = await hooks.endpoint("/silent", events=ENDS)
    await hooks.run()
    await hooks.store.remove(endpoint.tenant_id, endpoint.endpoint_id, endpoint.version)
    await hooks.courier().deliver_due()
    assert await hooks.fetch("SELECT * FROM webhook_delivery") == []
    assert len(await hooks.fetch("SELECT * FROM webhook_endpoint")) == 1
    await hooks.execute("UPDATE webhook_endpoint SET removed_at = now() - interval '1 hour'")
    await hooks.courier().deliver_due()
    assert await hooks.fetch("SELECT * FROM webhook_endpoint") == []


async def test_processes_at_once_send_each_delivery_once(hooks: Hooks) -> None:
    await hooks.endpoint(events=ENDS)
    for _ in range(12):
        await hooks.run()
    couriers = [hooks.courier() for _ in range(4)]
    while sum(await asyncio.gather(*(one.deliver_due() for one in couriers))):
        pass
    ids = [received.headers["webhook-id"] for received in hooks.receiver.received]
    assert len(ids) == len(set(ids)) == 12


async def test_a_turn_is_nobody_elses_until_its_lease_ends_and_then_settles_no_more(
    hooks: Hooks,
) -> None:
    endpoint = await hooks.endpoint(events=ENDS)
    await hooks.run()
    rooms, tenant = {endpoint.endpoint_id: 4}, endpoint.tenant_id
    (mine,) = await hooks.store.claim(tenant, rooms, endpoint.endpoint_id, LEASE)
    assert await hooks.courier().deliver_due() == 0
    await hooks.all_due()  # the process that had it stood still
    assert await hooks.courier().deliver_due() == 1
    late = Settlement(outcome=Outcome.RETRY, error="deadline", delay_seconds=1.0)
    assert not await hooks.store.settle(mine, late)
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.attempts) == (DeliveryState.DELIVERED, 2)


async def test_whoever_lost_its_turn_does_not_settle_that_of_the_next(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint(events=ENDS)
    await hooks.run()
    rooms, tenant = {endpoint.endpoint_id: 4}, endpoint.tenant_id
    (first,) = await hooks.store.claim(tenant, rooms, uuid4(), LEASE)
    await hooks.all_due()
    (second,) = await hooks.store.claim(tenant, rooms, uuid4(), LEASE)
    done = Settlement(outcome=Outcome.DELIVERED, status=200)
    assert not await hooks.store.settle(first, done)
    assert [one.state for one in await hooks.told(endpoint)] == [DeliveryState.PENDING]
    assert await hooks.store.settle(second, done)


async def test_a_process_that_stood_still_sends_nothing_with_its_old_turn(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint(events=ENDS)
    await hooks.run()
    courier = hooks.courier()

    class Still(type(hooks.store)):  # type: ignore[misc]  # the store, and a pause after a claim
        async def claim(self, *arguments: object) -> object:
            found = await super().claim(*arguments)
            hooks.clock.at += courier_module.LEASE_SECONDS
            return found

    object.__setattr__(courier._parts, "store", Still(hooks.database))
    assert await courier.deliver_due() == 1
    assert hooks.receiver.received == []
    (one,) = await hooks.told(endpoint)
    assert one.state is DeliveryState.PENDING


async def test_a_courier_that_leaves_lets_go_at_once(hooks: Hooks) -> None:
    endpoint = await hooks.endpoint("/silent", events=ENDS)
    await hooks.run()
    task = asyncio.create_task(hooks.courier().deliver_forever())
    await hooks.receiver.has(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (one,) = await hooks.told(endpoint)
    assert (one.state, one.attempts) == (DeliveryState.PENDING, 0)
    hooks.receiver.statuses["/silent"] = 200
    assert await hooks.courier().deliver_due() == 1
    first, second = hooks.receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]


async def test_nothing_of_the_database_is_held_while_something_is_sent(hooks: Hooks) -> None:
    await hooks.endpoint("/silent", events=ENDS)
    await hooks.run()
    task = asyncio.create_task(hooks.courier().deliver_forever())
    await hooks.receiver.has(1)
    held = await hooks.fetch(
        "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'meshflow' AND state LIKE 'idle in transaction%'"
    )
    assert held == []
    task.cancel()
    await asyncio.wait([task])


async def test_a_thousand_dead_endpoints_delay_no_other_tenant(hooks: Hooks) -> None:
    """All that is sent for the one tenant hangs while the other is told."""
    for _ in range(1000):
        dead = await hooks.endpoint("/silent", events=ENDS)
    await hooks.run()
    task = asyncio.create_task(hooks.courier().deliver_forever())
    await hooks.receiver.has(TurnLimits().of_a_tenant)
    other = await hooks.tenant("other")
    theirs = await hooks.endpoint("/theirs", tenant_id=other, events=ENDS)
    await hooks.store.test(other, theirs.endpoint_id)
    await hooks.receiver.has(1, "/theirs")
    assert hooks.receiver.most_held <= TurnLimits().of_a_tenant
    (waiting,) = await hooks.fetch(
        "SELECT count(*) FROM webhook_delivery WHERE tenant_id = $1 AND state = 'pending'",
        dead.tenant_id,
    )
    assert waiting["count"] == 1000
    task.cancel()
    await asyncio.wait([task])


async def test_silent_receivers_of_one_tenant_hold_only_its_own_turns(hooks: Hooks) -> None:
    """All attempts hang; another tenant, and a healthy endpoint of the same, are told meanwhile."""
    for number in range(20):
        await hooks.endpoint(f"/silent/{number}", events=ENDS)
    await hooks.run()
    task = asyncio.create_task(hooks.courier().deliver_forever())
    await hooks.receiver.has(TurnLimits().of_a_tenant)
    other = await hooks.tenant("other")
    theirs = await hooks.endpoint("/theirs", tenant_id=other, events=ENDS)
    for _ in range(10):
        await hooks.store.test(other, theirs.endpoint_id)
    await hooks.receiver.has(10, "/theirs")
    assert hooks.receiver.most_held <= TurnLimits().of_a_tenant
    task.cancel()
    await asyncio.wait([task])


async def test_the_courier_goes_on_when_the_database_was_away(
    hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await hooks.endpoint(events=ENDS)
    monkeypatch.setattr(courier_module, "POLL_SECONDS", 0.01)
    task = asyncio.create_task(hooks.courier().deliver_forever())
    await hooks.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'meshflow'"
    )
    await hooks.run(RunStatus.SUCCEEDED)
    await hooks.receiver.has(1)
    task.cancel()
    await asyncio.wait([task])
    assert len(await hooks.told(endpoint)) == 1
