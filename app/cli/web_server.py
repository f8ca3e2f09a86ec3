"""Runs the application under uvicorn: one process, one socket, and a leave that always ends.

On SIGTERM: unready at once, still accepting for the drain delay, then streams are ended, requests
in flight have 20 s, runs their own time; then the process is gone.
"""

import asyncio
import importlib.util
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from types import FrameType
from typing import Protocol, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from app.cli.bounded_h11 import BoundedH11
from app.cli.invocation import OK, STOPPED

_log = logging.getLogger("meshflow")
# Above the 120 s for which the load balancer keeps an idle connection, or it meets a closed one.
KEEP_ALIVE_SECONDS = 130
GRACEFUL_SECONDS = 20
HEAD_SECONDS = 10
TICK_SECONDS = 0.1


_Message = MutableMapping[str, object]


class Leaver(Protocol):
    """An ASGI application that is told when its process leaves."""

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Handle one request."""

    def turn_unready(self) -> None:
        """The process will leave; it still accepts."""

    def end_streams(self) -> None:
        """The process leaves now: what would never end by itself has to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebServer:
    """How to serve. `on_ready` is called once, when the first request can be answered.

    `most_connections` is for a server that has no proxy in front: above it a request is answered
    with 503, a head of a request has 16 KiB, and a connection that brings none in time is cut.
    """

    listener: socket.socket
    tls: ssl.SSLContext | None
    trusted_proxies: tuple[str, ...]
    drain_seconds: float
    on_ready: Callable[[], None]
    most_connections: int | None = None

    def run(self, drain: Leaver) -> int:
        """Serve until told to leave. SystemExit when the application cannot start."""
        loop = "uvloop" if _is_installed("uvloop") else "asyncio"
        http = "httptools" if _is_installed("httptools") else "h11"
        protocol: type[asyncio.Protocol] = BoundedH11
        if self.most_connections is not None:
            http, protocol = "h11", _ImpatientProtocol
        elif http == "httptools":
            from app.cli.bounded_http import BoundedHttpTools

            protocol = BoundedHttpTools
        _log.info("serving with loop %s and http %s", loop, http)
        tls = self.tls
        config = uvicorn.Config(
            drain,
            loop=loop,
            http=protocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(self.trusted_proxies),
            forwarded_allow_ips=list(self.trusted_proxies),
            limit_concurrency=self.most_connections,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
            ssl_context_factory=None if tls is None else lambda _config, _default: tls,
            workers=1,
        )
        server = _Server(config, drain, self)
        try:
            server.run(sockets=[self.listener])
        except (SystemExit, KeyboardInterrupt):
            if server.has_left:
                return OK  # uvicorn raises the signal again when it is done with it
            raise
        return OK


class _ImpatientProtocol(H11Protocol):
    """Cuts a connection that has no request in work and brought none since the last look.

    uvicorn's own timer stops at the first byte, so a client that sends a head byte by byte would
    hold its connection for ever. The time for a body is the application's to bound.
    """

    _looked_at: object = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        self.loop.call_later(HEAD_SECONDS, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        latest = cast("RequestResponseCycle | None", self.cycle)
        if (latest is None or latest.response_complete) and latest is self._looked_at:
            self.transport.abort()
            return
        self._looked_at = latest
        self.loop.call_later(HEAD_SECONDS, self._look)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, drain: Leaver, how: WebServer) -> None:
        super().__init__(config)
        self._drain = drain
        self._how = how
        self.has_left = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._how.on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if not self.started:
            # A start that waits for something must not keep a process that was told to go.
            raise SystemExit(STOPPED)
        self._drain.turn_unready()

    async def main_loop(self) -> None:
        await super().main_loop()
        if self.config.loaded and self._how.drain_seconds:
            _log.info("leaving: unready, accepting for another %g s", self._how.drain_seconds)
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._how.drain_seconds
        while loop.time() < ends_at and not self.force_exit:  # noqa: ASYNC110 - set by a signal handler, which may not set the loop's events
            await asyncio.sleep(TICK_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._drain.end_streams()
        await super().shutdown(sockets)
        self.has_left = True


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
