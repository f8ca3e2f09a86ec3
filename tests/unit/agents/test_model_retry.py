"""Which failures of a model call are tried again, how often and how far apart."""

import pytest

from app.agents.model_retry import LONGEST_WAIT_SECONDS, MOST_ATTEMPTS, wait_seconds
from app.domain.errors import ModelError


def _busy(retry_after: float | None = None) -> ModelError:
    return ModelError("model.overloaded", is_put_off=True, retry_after_seconds=retry_after)


def test_waits_grow_and_spread_and_end() -> None:
    waits = [wait_seconds(_busy(), attempts, 1000, 0.5) for attempts in range(1, MOST_ATTEMPTS + 1)]
    assert waits == [1.0, 2.0, 4.0, None]
    assert wait_seconds(_busy(), 1, 1000, 0.0) == 0.5
    assert wait_seconds(_busy(), 1, 1000, 1.0) == 1.5


def test_what_the_provider_asked_for_lengthens_a_wait_and_never_shortens_it() -> None:
    assert wait_seconds(_busy(30), 1, 1000, 0.5) == 30
    assert wait_seconds(_busy(0.1), 3, 1000, 0.5) == 4


@pytest.mark.parametrize(("asked", "left"), [(LONGEST_WAIT_SECONDS + 1, 1000), (30, 30), (30, 5)])
def test_a_wait_that_is_too_long_is_not_begun(asked: float, left: float) -> None:
    assert wait_seconds(_busy(asked), 1, left, 0.5) is None


def test_a_failure_after_a_reply_began_or_of_the_request_stands() -> None:
    assert wait_seconds(ModelError("model.overloaded"), 1, 1000, 0.5) is None
