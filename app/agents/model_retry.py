"""When a model call that was put off is made again: few times, further apart, within the budget.

Only a refusal before the first byte of a reply counts: nothing was answered, nothing is billed, and
no call in it was made. Each attempt is decided and recorded anew.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.domain.errors import ModelError

MOST_ATTEMPTS = 4
LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryParts:
    """What waiting needs. `jitter` is random, from 0 to 1."""

    jitter: Callable[[], float]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


def wait_seconds(
    error: ModelError, attempts: int, left_seconds: float, jitter: float
) -> float | None:
    """How long to wait after so many attempts in a row; None: the failure stands.

    Never shorter than the provider asked for: where that is too long, nobody asks again.
    """
    if not error.is_put_off or attempts >= MOST_ATTEMPTS:
        return None
    planned = 2.0 ** (attempts - 1) * (0.5 + jitter)
    wait = max(planned, error.retry_after_seconds or 0.0)
    return wait if wait <= LONGEST_WAIT_SECONDS and wait < left_seconds else None
