"""Answers `GET /metrics` on a port of its own, for a scraper inside the operator's network.

It takes no key and tells no content. Whoever connects gets one answer and is hung up on; one that
says nothing, or does not read, is hung up on in time, and only a few are heard at once.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

from app.telemetry import meters

_log = logging.getLogger("meshflow")
PATIENCE_SECONDS = 10.0
MOST_AT_ONCE = 16
MOST_HEAD_BYTES = 8192
_PLAIN = "text/plain; charset=utf-8"


class MetricsServer:
    """Serves what `meters` holds. `refresh` brings what is not counted where it happens."""

    def __init__(self, refresh: Callable[[], Awaitable[None]]) -> None:
        self._refresh = refresh
        self._heard = 0

    async def serve(self, listener: socket.socket) -> None:
        """Answer until cancelled. The listener is closed with it."""
        server = await asyncio.start_server(self._hear, sock=listener, limit=MOST_HEAD_BYTES)
        async with server:
            await server.serve_forever()

    async def _hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._heard >= MOST_AT_ONCE:
            writer.transport.abort()
            return
        self._heard += 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            writer.transport.abort()
        except Exception:  # noqa: BLE001 - nobody else would hear of it
            _log.exception("metrics were not told")
            writer.transport.abort()
        finally:
            self._heard -= 1

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics":
            return _response("404 Not Found", _PLAIN, b"there is only /metrics\n")
        if method != b"GET":
            return _response("405 Method Not Allowed", _PLAIN, b"GET only\n")
        await self._refresh()
        return _response("200 OK", meters.CONTENT_TYPE, meters.exposition())


def _response(status: str, media_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
