"""Counting a key's requests by the minute, alone and together with other processes."""

import pytest

from app.domain.run import Scope
from app.keys.key_ring import KeyGrant
from app.keys.request_rates import RequestRates, SharedUse

ONE = KeyGrant(tenant="acme", scopes=frozenset(Scope), fingerprint="0" * 16)
TWO = KeyGrant(tenant="acme", scopes=frozenset(Scope), fingerprint="1" * 16)


class Clock:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rates(clock: Clock) -> RequestRates:
    return RequestRates(limit_of=lambda _: 3, now_seconds=clock)


def allowed(rates: RequestRates, grant: KeyGrant, times: int) -> int:
    return sum(rates.take(grant).is_allowed for _ in range(times))


def test_a_key_has_its_limit_and_no_more_and_another_key_its_own(rates: RequestRates) -> None:
    assert allowed(rates, ONE, 10) == 3
    assert allowed(rates, TWO, 10) == 3


def test_what_is_left_is_told(rates: RequestRates, clock: Clock) -> None:
    assert [rates.take(ONE).remaining for _ in range(4)] == [2, 1, 0, 0]
    clock.seconds += 20
    told = rates.take(TWO)
    assert told.headers == (
        (b"ratelimit-policy", b'"key";q=3;w=60'),
        (b"ratelimit", b'"key";r=2;t=40'),
    )


def test_a_new_minute_begins_anew(rates: RequestRates, clock: Clock) -> None:
    assert allowed(rates, ONE, 5) == 3
    clock.seconds += 59.9
    assert allowed(rates, ONE, 5) == 0
    clock.seconds += 0.1
    assert allowed(rates, ONE, 5) == 3


def test_what_others_counted_counts(rates: RequestRates) -> None:
    assert allowed(rates, ONE, 1) == 1
    assert rates.telling() == {("acme", ONE.fingerprint): 1}
    rates.learn(SharedUse(minute=7, left_seconds=30, used={ONE.fingerprint: 2}))
    assert allowed(rates, ONE, 5) == 1


def test_a_count_on_its_way_counts_already_and_is_told_once(rates: RequestRates) -> None:
    assert allowed(rates, ONE, 2) == 2
    assert rates.telling() == {("acme", ONE.fingerprint): 2}
    assert allowed(rates, ONE, 5) == 1
    rates.learn(SharedUse(minute=7, left_seconds=30, used={ONE.fingerprint: 2}))
    assert rates.telling() == {("acme", ONE.fingerprint): 1}


def test_a_telling_that_failed_is_told_again(rates: RequestRates) -> None:
    assert allowed(rates, ONE, 2) == 2
    rates.telling()
    rates.learn(None)
    assert allowed(rates, ONE, 5) == 1
    assert rates.telling() == {("acme", ONE.fingerprint): 3}


def test_a_key_that_was_silent_for_a_second_keeps_what_it_used(rates: RequestRates) -> None:
    assert allowed(rates, ONE, 3) == 3
    rates.telling()
    rates.learn(SharedUse(minute=7, left_seconds=30, used={ONE.fingerprint: 3}))
    assert allowed(rates, TWO, 1) == 1
    rates.telling()
    rates.learn(SharedUse(minute=7, left_seconds=29, used={TWO.fingerprint: 1}))
    assert allowed(rates, ONE, 1) == 0


def test_the_minute_is_the_one_of_the_database(rates: RequestRates, clock: Clock) -> None:
    assert allowed(rates, ONE, 3) == 3
    rates.telling()
    rates.learn(SharedUse(minute=7, left_seconds=5, used={ONE.fingerprint: 3}))
    assert rates.take(ONE).reset_seconds == 5
    clock.seconds += 5
    assert allowed(rates, ONE, 1) == 1
    rates.telling()
    rates.learn(SharedUse(minute=8, left_seconds=60, used={ONE.fingerprint: 1}))
    assert allowed(rates, ONE, 5) == 2


def test_the_minute_is_the_database_s(rates: RequestRates) -> None:
    rates.learn(SharedUse(minute=7, left_seconds=30, used={ONE.fingerprint: 3, TWO.fingerprint: 3}))
    assert allowed(rates, TWO, 5) == 0
    rates.learn(SharedUse(minute=8, left_seconds=60, used={ONE.fingerprint: 1}))
    assert allowed(rates, TWO, 5) == 3
