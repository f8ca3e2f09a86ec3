"""One exchange with a provider: its deadline, its failures by name, and whether it may be repeated.

Nothing that the provider says about a failure leaves here but its status and for how long it asks
to be left alone: its words may quote the request or the key.

Threat: Supply chain attacks
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import httpx2

from app.domain.errors import ModelError
from app.domain.retry_after import retry_after_seconds
from app.domain.step import ModelReply
from app.providers.provider import ModelFailure
from app.providers.wire.model_http import answers_closed, transport_failure

# An error of a library as one of ours; None: it is not the library's, and nobody's fault but ours.
Named = Callable[[Exception], ModelFailure | None]


async def exchanged(
    sending: Callable[[], Awaitable[ModelReply]], named: Named, seconds: float
) -> ModelReply:
    """What `sending` brings within so many seconds; else `ModelError`. Its answers are closed."""
    answers: Sequence[httpx2.Response] = ()
    try:
        async with asyncio.timeout(seconds), answers_closed() as answers:
            return await sending()
    except ModelError as error:
        failure = ModelFailure(error.code)
    except TimeoutError:
        failure = ModelFailure.TIMEOUT
    except httpx2.HTTPError as error:  # while streaming these are not wrapped by the SDKs
        failure = transport_failure(error)
    except UnicodeDecodeError:
        failure = ModelFailure.MALFORMED_REPLY
    except Exception as error:
        known = named(error)
        if known is None:
            raise
        failure = known
    # Raised here and not inside an `except`: the provider's error, which may hold the request,
    # would otherwise travel along as the context of ours.
    raise _told(failure, answers)


def _told(failure: ModelFailure, answers: Sequence[httpx2.Response]) -> ModelError:
    """The failure, and what the last answer's status and `Retry-After` say of it."""
    last = answers[-1] if answers else None
    if last is None or not _puts_off(last.status_code):
        return ModelError(failure.value)
    asked = retry_after_seconds(last.headers.get("retry-after"), datetime.now(UTC))
    return ModelError(failure.value, is_put_off=True, retry_after_seconds=asked)


def _puts_off(status: int) -> bool:
    return status == httpx2.codes.TOO_MANY_REQUESTS or status >= httpx2.codes.INTERNAL_SERVER_ERROR
