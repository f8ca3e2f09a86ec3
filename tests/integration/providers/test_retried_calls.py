"""A call that a provider puts off is made again by our loop, over every provider's own wire."""

from collections.abc import Sequence

import pytest

from app.agents.model_retry import MOST_ATTEMPTS, RetryParts
from app.domain.errors import ModelError
from app.domain.record import ModelRequested, ModelResponded, RunFinished
from app.domain.run import RunStatus
from app.providers.prices import MODELS
from tests.contract.test_provider_contract import cleared
from tests.support.fake_messages_api import Scenario
from tests.support.planted_rules import task_of
from tests.support.provider_wires import (
    KEY,
    WIRES,
    Wire,
    provider_of,
    reply,
    served,
    status,
    truncated,
)
from tests.unit.agents.test_loop import ListJournal, driven

pytestmark = pytest.mark.anyio


@pytest.fixture(params=WIRES, ids=lambda wire: wire.name)
def wire(request: pytest.FixtureRequest) -> Wire:
    found: Wire = request.param
    return found


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the SDK of Bedrock finds; the others are given theirs."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")


class Waits:
    """The waits that were begun; none takes any time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.seconds.append(seconds)

    @property
    def parts(self) -> RetryParts:
        return RetryParts(jitter=lambda: 0.5, pause=self.pause)


async def _driven(wire: Wire, script: Sequence[Scenario]) -> tuple[ListJournal, Waits, int]:
    journal, waits = ListJournal(), Waits()
    with served(wire, script) as api:
        async with provider_of(wire, api.base_url) as provider:
            task = task_of(model=wire.model)
            loop = driven(
                provider, journal, task, retry=waits.parts, price=MODELS[wire.model], seconds=240
            )
            await loop.run()
        return journal, waits, len(api.requests)


async def test_each_attempt_is_an_intent_of_its_own_and_the_last_one_answers(wire: Wire) -> None:
    put_off = [status(wire, 429, retry_after=7), status(wire, wire.overloaded), status(wire, 500)]
    journal, waits, requests = await _driven(wire, [*put_off, reply(wire, "At last.")])
    assert requests == 4
    assert waits.seconds == [7.0, 2.0, 4.0]
    kinds = [type(event) for event in journal.events]
    assert kinds == [ModelRequested, ModelResponded] * 4 + [RunFinished]
    told = [event.error_code for event in journal.events if isinstance(event, ModelResponded)]
    assert told == ["model.rate_limited", "model.overloaded", "model.server_error", None]
    assert journal.end.status is RunStatus.SUCCEEDED


async def test_after_so_many_attempts_the_run_fails_with_the_last_code(wire: Wire) -> None:
    journal, waits, requests = await _driven(wire, [status(wire, 500)] * 9)
    assert (requests, len(waits.seconds)) == (MOST_ATTEMPTS, MOST_ATTEMPTS - 1)
    assert (journal.end.status, journal.end.error_code) == (
        RunStatus.FAILED,
        "model.server_error",
    )


@pytest.mark.parametrize("kind", ["refused", "begun", "asked for too much"])
async def test_what_was_refused_or_had_begun_is_not_asked_again(wire: Wire, kind: str) -> None:
    scenario = {
        "refused": status(wire, 400),
        "begun": truncated(wire),
        "asked for too much": status(wire, 429, retry_after=3600),
    }[kind]
    journal, waits, requests = await _driven(wire, [scenario, reply(wire, "Too late.")])
    assert (requests, waits.seconds) == (1, [])
    assert journal.end.status is RunStatus.FAILED


async def test_an_error_in_mid_stream_is_not_taken_for_a_refusal_to_begin(wire: Wire) -> None:
    with served(wire, [wire.error_event("overloaded"), status(wire, 503, retry_after=9)]) as api:
        async with provider_of(wire, api.base_url) as provider:
            with pytest.raises(ModelError) as begun:
                await provider.complete(cleared(wire))
            with pytest.raises(ModelError) as put_off:
                await provider.complete(cleared(wire))
    assert not begun.value.is_put_off
    assert (put_off.value.is_put_off, put_off.value.retry_after_seconds) == (True, 9.0)
