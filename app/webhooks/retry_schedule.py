"""When a delivery that failed is tried again: further and further apart, over a day. Pure."""

_DELAYS_SECONDS = (5, 30, 120, 600, 1800, 3600, 7200, 10_800, 14_400, 18_000, 21_600)
_JITTER = 0.2
MOST_RETRY_AFTER_SECONDS = 4 * 3600.0


def delay_seconds(attempts: int, unit: float, retry_after: float | None = None) -> float:
    """How long to wait after so many attempts; `unit` is random, from 0 to 1.

    What the receiver asked for lengthens the wait, within a bound, and never shortens it.
    """
    planned = _DELAYS_SECONDS[min(max(attempts, 1), len(_DELAYS_SECONDS)) - 1]
    jittered = planned * (1 - _JITTER + 2 * _JITTER * unit)
    asked = 0.0 if retry_after is None else min(retry_after, MOST_RETRY_AFTER_SECONDS)
    return max(jittered, asked)
