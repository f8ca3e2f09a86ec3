"""Before any route: a request id, authentication, body limits, readable JSON, safe headers.

Pure ASGI: streams pass through untouched.

Threat: Unauthorised API access
"""

import json
import logging
import re
from collections.abc import Callable
from http import HTTPStatus
from time import perf_counter

from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.auth import GRANT, Doorkeeper
from app.api.problems import by_status, problem_response, unexpected
from app.keys.key_ring import KeyGrant
from app.keys.request_rates import RequestRates
from app.telemetry.trace_context import MARK, TraceMark, marked

_access = logging.getLogger("meshflow.access")
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{8,64}", re.ASCII)
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_TENANT_HEADERS = ((b"cache-control", b"no-store"),)
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """The outermost layer. What it refuses never reaches a route, and is not read further."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        doorkeeper: Doorkeeper,
        rates: RequestRates,
        max_body_bytes: int,
        new_id: Callable[[int], str],
        access_log: bool,
    ) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._rates = rates
        self._max_body_bytes = max_body_bytes
        self._new_id = new_id
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; anything but HTTP passes."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = self._request_id(scope)
        scope["meshflow.request_id"] = request_id
        guarded = scope["path"] == "/v1" or scope["path"].startswith("/v1/")
        mark = marked(
            scope["headers"],
            request_id,
            new_trace=self._new_id(16),
            new_span=self._new_id(8),
        )
        tell = _Teller(send, mark, guarded=guarded)
        began, before = perf_counter(), MARK.set(mark)
        try:
            await self._answer(scope, receive, tell, guarded=guarded)
        except Exception as error:
            if tell.has_begun:
                raise  # too late for a status: the server cuts the connection
            await unexpected(error, request_id)(scope, receive, tell)
        finally:
            if self._access_log:
                _note_access(scope, tell.status, perf_counter() - began)
            MARK.reset(before)

    async def _answer(
        self, scope: Scope, receive: Receive, tell: "_Teller", *, guarded: bool
    ) -> None:
        if guarded:
            grant = self._doorkeeper.grant(scope)
            if not isinstance(grant, KeyGrant):
                await self._refuse(HTTPStatus.UNAUTHORIZED, scope, receive, tell)
                return
            allowance = self._rates.take(grant)
            tell.add(allowance.headers)
            if not allowance.is_allowed:
                tell.add(((b"retry-after", str(allowance.reset_seconds).encode()),))
                await self._refuse(HTTPStatus.TOO_MANY_REQUESTS, scope, receive, tell)
                return
            scope[GRANT] = grant
        if scope["method"] not in _WITH_BODY:
            await self._app(scope, receive, tell)
            return
        body = await self._body(scope, receive)
        if isinstance(body, HTTPStatus):
            await self._refuse(body, scope, receive, tell)
            return
        await self._app(scope, _replay(body, receive), tell)

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _SANE_REQUEST_ID.fullmatch(value):
                return str(value.decode("ascii"))
        return self._new_id(16)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | HTTPStatus:
        """The whole body, or why it is refused."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18:  # noqa: PLR2004 - no body has a 19-digit length
            return HTTPStatus.BAD_REQUEST
        if int(length) > self._max_body_bytes:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return HTTPStatus.BAD_REQUEST
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body_bytes:
                return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            chunks.append(chunk)
            if not message.get("more_body", False):
                break
        body = b"".join(chunks)
        return body if not body else _checked(body, headers.get(b"content-type", b""))

    async def _refuse(self, status: HTTPStatus, scope: Scope, receive: Receive, send: Send) -> None:
        kind = by_status(status.value)
        response = problem_response(kind, kind.title, scope["meshflow.request_id"])
        await response(scope, receive, send)


def _checked(body: bytes, content_type: bytes) -> bytes | HTTPStatus:
    """The body if it is JSON that every reader reads alike.

    Bounded depth, no lone surrogates, no NaN, no endless digits, no name twice in one object.
    """
    media_type = content_type.split(b";")[0].strip().lower()
    if media_type != b"application/json":
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    try:
        from_json(body, allow_inf_nan=False, cache_strings="none")
        # Only after that: the depth is bounded now. Of a name sent twice, readers take different
        # ones, so what a proxy looked at would not be what runs.
        json.loads(body, object_pairs_hook=_no_name_twice)
    except ValueError:
        return HTTPStatus.BAD_REQUEST
    return body


def _no_name_twice(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name twice")


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _note_access(scope: Scope, status: int, seconds: float) -> None:
    """One line: which operation, for whom, how it went. Of the address only the route's pattern."""
    grant, route = scope.get(GRANT), scope.get("route")
    room = "/v1" if scope["path"].startswith("/v1/") else ""  # a route knows its own part alone
    _access.info(
        "answered",
        extra={
            "method": scope["method"] if route is not None else "",
            "route": "" if route is None else room + str(getattr(route, "path_format", "")),
            "status": status,
            "ms": round(seconds * 1000, 1),
            "tenant": grant.tenant if isinstance(grant, KeyGrant) else "",
        },
    )


class _Teller:
    """Sends an answer with the headers that every answer has; knows whether it has begun."""

    def __init__(self, send: Send, mark: TraceMark, *, guarded: bool) -> None:
        self._send = send
        self._ids = (
            (b"x-request-id", mark.request_id.encode("ascii")),
            (b"traceparent", mark.header()),
        )
        self._extra: tuple[tuple[bytes, bytes], ...] = (
            *_HEADERS,
            *(_TENANT_HEADERS if guarded else ()),
        )
        self.has_begun = False
        self.status = 0

    def add(self, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """Further headers of the answer."""
        self._extra += headers

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            self.status = message["status"]
            headers = [*message.get("headers", ()), *self._ids]
            present = {name.lower() for name, _ in headers}
            headers += [pair for pair in self._extra if pair[0] not in present]
            message = {**message, "headers": headers}
        await self._send(message)
