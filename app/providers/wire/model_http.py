"""How requests to providers travel: no redirect, no compression, a bound on what comes back.

It imports the HTTP client, so only sessions import it, late.

Threat: Exfiltration via web/shell tools
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from urllib.request import getproxies

import httpx2

from app.providers.provider import ModelFailure
from app.providers.wire.provider_sockets import ProviderTransport

_CONNECT_SECONDS = 5.0
# Events repeat what they tell, so the wire of a reply is longer than the reply may be.
MOST_WIRE_BYTES = 32 * 1024 * 1024
TIMEOUT = httpx2.Timeout(None, connect=_CONNECT_SECONDS)  # the rest is the request's own deadline's
_LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
_PLAIN = "identity"

_STATUS_FAILURES: Mapping[int, ModelFailure] = {
    401: ModelFailure.AUTHENTICATION,
    402: ModelFailure.AUTHENTICATION,
    403: ModelFailure.AUTHENTICATION,
    408: ModelFailure.TIMEOUT,
    429: ModelFailure.RATE_LIMITED,
}

# The answers that the exchange in this task has open.
_OPEN: ContextVar[list[httpx2.Response] | None] = ContextVar("open_answers", default=None)


def model_client(base_url: str = "") -> httpx2.AsyncClient:
    """A client for one provider. It opens nothing until it is asked to.

    A redirect is not followed: it would carry the prompt to another host. What is compressed is
    not read, so that the bound on an answer's bytes is one on what they unfold to.
    """
    return httpx2.AsyncClient(
        base_url=base_url,
        follow_redirects=False,
        timeout=TIMEOUT,
        limits=_LIMITS,
        # A proxy of the environment is the library's to find; then the connections are its own.
        transport=None if getproxies() else ProviderTransport(_LIMITS),
        event_hooks={"request": [_ask_for_plain], "response": [_bound]},
    )


@asynccontextmanager
async def answers_closed() -> AsyncIterator[Sequence[httpx2.Response]]:
    """Inside, every answer that this task gets is closed on the way out, whoever still holds it.

    Gives the answers, as far as they came.

    A library that reads through generators of generators closes the connection only when the
    collector comes by.
    """
    opened: list[httpx2.Response] = []
    token = _OPEN.set(opened)
    try:
        yield opened
    finally:
        _OPEN.reset(token)
        for answer in opened:
            await answer.aclose()


def quieten(loggers: Iterable[str]) -> None:
    """At DEBUG these loggers write whole prompts."""
    for name in (*loggers, "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def status_failure(status: int, *, busy: int = 503) -> ModelFailure:
    """Which failure an answer's status is. `busy` is the API's own for a model under load."""
    if status == busy:
        return ModelFailure.OVERLOADED
    if status in _STATUS_FAILURES:
        return _STATUS_FAILURES[status]
    if status >= 500:  # noqa: PLR2004  # HTTP's own boundary
        return ModelFailure.SERVER_ERROR
    if status >= 400:  # noqa: PLR2004  # as above
        return ModelFailure.INVALID_REQUEST
    return ModelFailure.MALFORMED_REPLY  # a redirect, or a status the API does not have


def transport_failure(error: BaseException | None) -> ModelFailure:
    """Which failure an error of the connection is."""
    match error:
        case (
            httpx2.ConnectError()
            | httpx2.ConnectTimeout()
            | httpx2.PoolTimeout()
            | httpx2.ProxyError()
            | httpx2.UnsupportedProtocol()
        ):
            return ModelFailure.UNREACHABLE
        case httpx2.TimeoutException():
            return ModelFailure.TIMEOUT
        case httpx2.DecodingError():
            return ModelFailure.MALFORMED_REPLY
        case _:
            return ModelFailure.STREAM_BROKEN


async def _ask_for_plain(request: httpx2.Request) -> None:
    request.headers["accept-encoding"] = _PLAIN


async def _bound(response: httpx2.Response) -> None:
    opened = _OPEN.get()
    if opened is not None:
        opened.append(response)
    if response.headers.get("content-encoding", _PLAIN).strip().lower() != _PLAIN:
        raise httpx2.DecodingError("the answer is compressed", request=response.request)
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _BoundedBytes(response.stream, response.request)


class _BoundedBytes(httpx2.AsyncByteStream):
    """An answer's bytes up to the bound, then an error."""

    def __init__(self, inner: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._inner = inner
        self._request = request
        self._left = MOST_WIRE_BYTES

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._left -= len(piece)
            if self._left < 0:
                raise httpx2.DecodingError("the answer is too long", request=self._request)
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
