"""Runs the application under uvicorn: one process, one socket, and a leave that always ends.

On SIGTERM: unready at once, still accepting for the drain delay, then streams are ended, requests
in flight have 20 s, runs their own time; then the process is gone.
"""

import asyncio
import importlib.util
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Literal

import uvicorn

from app.cli.invocation import OK, STOPPED
from app.cli.stream_drain import StreamDrain

_log = logging.getLogger("meshflow")
# Above the 120 s for which the load balancer keeps an idle connection, or it meets a closed one.
KEEP_ALIVE_SECONDS = 130
GRACEFUL_SECONDS = 20
TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class WebServer:
    """How to serve. `on_ready` is called once, when the first request can be answered."""

    listener: socket.socket
    tls: ssl.SSLContext | None
    trusted_proxies: tuple[str, ...]
    drain_seconds: float
    on_ready: Callable[[], None]

    def run(self, drain: StreamDrain) -> int:
        """Serve until told to leave. SystemExit when the application cannot start."""
        loop = "uvloop" if _is_installed("uvloop") else "asyncio"
        http = "httptools" if _is_installed("httptools") else "h11"
        _log.info("serving with loop %s and http %s", loop, http)
        protocol: type[asyncio.Protocol] | Literal["h11"] = "h11"
        if http == "httptools":
            from app.cli.bounded_http import BoundedHttpTools

            protocol = BoundedHttpTools
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


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, drain: StreamDrain, how: WebServer) -> None:
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
