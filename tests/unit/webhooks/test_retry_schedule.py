"""Waits between attempts grow and spread over a day; a receiver may only lengthen them."""

from datetime import UTC, datetime

import pytest

from app.domain.retry_after import retry_after_seconds
from app.webhooks.retry_schedule import (
    MOST_RETRY_AFTER_SECONDS,
    delay_seconds,
)

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
DAY = 86_400


def test_the_attempts_of_a_dead_receiver_reach_over_a_day_and_are_few() -> None:
    for unit in (0.0, 0.5, 1.0):
        at, attempts = 0.0, 0
        while at < DAY:
            attempts += 1
            at += delay_seconds(attempts, unit)
        assert 10 <= attempts <= 14


def test_each_wait_is_longer_than_the_one_before_and_spread_by_chance() -> None:
    waits = [delay_seconds(number, 0.5) for number in range(1, 12)]
    assert waits == sorted(waits)
    for number in range(1, 12):
        low, high = delay_seconds(number, 0.0), delay_seconds(number, 1.0)
        assert low == pytest.approx(waits[number - 1] * 0.8)
        assert high == pytest.approx(waits[number - 1] * 1.2)
    assert delay_seconds(10_000, 0.5) == waits[-1]
    assert delay_seconds(0, 0.5) == waits[0]


def test_what_a_receiver_asks_for_lengthens_and_never_shortens() -> None:
    assert delay_seconds(1, 0.5, 600.0) == 600.0
    assert delay_seconds(6, 0.5, 1.0) == delay_seconds(6, 0.5)
    assert delay_seconds(1, 0.5, 1e12) == MOST_RETRY_AFTER_SECONDS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("0", 0.0),
        ("Wed, 25 Nov 2026 12:10:00 GMT", 600.0),
        ("Wednesday, 25-Nov-26 12:10:00 GMT", 600.0),
        ("Wed, 25 Nov 2026 11:00:00 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u0661\u0662", None),
        ("9" * 65, None),
        ("9" * 60, 1e60),
        ("Wed, 99 Nov 2026 12:10:00 GMT", None),
    ],
)
def test_a_retry_after_is_read_as_http_says(text: str | None, seconds: float | None) -> None:
    found = retry_after_seconds(text, NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))
