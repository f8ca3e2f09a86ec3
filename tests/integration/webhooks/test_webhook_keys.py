"""The KEK of webhooks changes over: what it sealed opens under the next one, and it is gone."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import KeyRetiredError
from app.domain.run import RunStatus
from app.domain.webhook import DeliveryState, WebhookEvent
from app.telemetry import meters
from app.webhooks.webhook_key_turn import KEY_LIFE
from tests.integration.webhooks.webhook_scene import Hooks

pytestmark = pytest.mark.anyio
ENDS = (WebhookEvent.RUN_SUCCEEDED,)


async def _old(hooks: Hooks, path: str = "/ok") -> str:
    """An endpoint under a KEK that had its time; the KEK."""
    long_ago = datetime.now(UTC) - KEY_LIFE - timedelta(days=1)
    return (await hooks.endpoint(path, events=ENDS, sealed_at=long_ago)).kek_id


async def test_an_old_key_is_ended_and_its_endpoints_are_still_told(hooks: Hooks) -> None:
    old = await _old(hooks)
    assert await hooks.turn_keys() == 1
    (row,) = await hooks.store.endpoints(hooks.scene.tenant_id)
    assert row.kek_id > old
    assert row.version == 1
    assert not hooks.keys.has_kek(old)
    assert hooks.keys.has_kek(row.kek_id)
    (told,) = await hooks.fetch("SELECT kek_id, destroyed_at FROM kek_retirement")
    assert told["kek_id"] == old
    assert told["destroyed_at"] is not None
    await hooks.run()
    assert await hooks.courier().deliver_due() == 1
    (one,) = await hooks.told(row)
    assert one.state is DeliveryState.DELIVERED
    assert await hooks.turn_keys() == 0


async def test_a_key_that_has_time_left_stays(hooks: Hooks) -> None:
    row = await hooks.endpoint(events=ENDS)
    assert await hooks.turn_keys() == 0
    assert hooks.keys.has_kek(row.kek_id)


async def test_nothing_is_sealed_under_a_key_that_is_about_to_end(hooks: Hooks) -> None:
    old = await _old(hooks)
    await hooks.store.turn_key(hooks.scene.tenant_id, old, f"{old}.1")
    with pytest.raises(KeyRetiredError):
        await _old(hooks, "/other")


async def test_what_was_begun_by_a_process_that_died_is_ended_by_the_next(hooks: Hooks) -> None:
    old = await _old(hooks)
    await hooks.store.turn_key(hooks.scene.tenant_id, old, f"{old}.1")
    assert await hooks.turn_keys() == 1
    assert not hooks.keys.has_kek(old)


async def test_an_endpoint_that_was_changed_meanwhile_stays_as_it_was_changed(
    hooks: Hooks,
) -> None:
    row = await hooks.endpoint(events=ENDS)
    changed = await hooks.store.change(row)
    assert changed is not None
    await hooks.store.reseal(row, f"{row.kek_id}.1", b"of before")
    assert await hooks.store.endpoints(row.tenant_id) == [changed]


async def test_the_outbox_is_counted_with_its_age_its_attempts_and_its_dead_letters(
    hooks: Hooks,
) -> None:
    def attempts(outcome: str) -> float:
        name = "meshflow_webhook_attempts_total"
        return meters.REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0.0

    before = {name: attempts(name) for name in ("delivered", "retry")}
    await hooks.endpoint("/ok", events=ENDS)
    failing = await hooks.endpoint("/status/503", events=ENDS)
    assert await hooks.store.pulse() == type(await hooks.store.pulse())(
        waiting=0, oldest_seconds=0.0, dead=0
    )
    await hooks.run(RunStatus.SUCCEEDED)
    await hooks.execute(
        "UPDATE webhook_delivery SET give_up_at = give_up_at - interval '1 hour'"
        " WHERE endpoint_id = $1",
        failing.endpoint_id,
    )
    pulse = await hooks.store.pulse()
    assert (pulse.waiting, pulse.dead) == (2, 0)
    assert pulse.oldest_seconds >= 3600
    await hooks.courier().deliver_due()
    assert attempts("delivered") == before["delivered"] + 1
    assert attempts("retry") == before["retry"] + 1
    await hooks.execute("UPDATE webhook_delivery SET give_up_at = now(), due_at = now()")
    await hooks.courier().deliver_due()
    pulse = await hooks.store.pulse()
    assert (pulse.waiting, pulse.dead) == (0, 1)
