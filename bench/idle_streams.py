"""Opens many event streams, from several loopback addresses, and waits on all of them."""

import asyncio
import json
import sys
import time

OPENING_AT_ONCE = 8
MOST_TRIES = 10  # a server that is busy says so
_WANTED = b"event: run.finished"


class _Stream(asyncio.Protocol):
    """One reader that keeps nothing but whether it was let in and when its run ended."""

    __slots__ = ("ended_at", "is_let_in", "opened", "request", "tail")

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_let_in = False
        self.ended_at = 0.0
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]  # a stream's transport

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self.is_let_in = data.startswith(b"HTTP/1.1 200")
            self.opened.set_result(None)
        seen = self.tail + data
        self.tail = seen[-len(_WANTED) :]
        if _WANTED in seen:
            self.ended_at = time.time()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_result(None)


async def _open(job: dict[str, str], number: int, gate: asyncio.Semaphore) -> _Stream:
    runs = job["runs"].split(",")
    path = f"/v1/runs/{runs[number % len(runs)]}/events"
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {job['key']}\r\n\r\n"
    async with gate:
        for _ in range(MOST_TRIES):
            _, stream = await asyncio.get_running_loop().create_connection(
                lambda: _Stream(request.encode()),
                "127.0.0.1",
                int(job["port"]),
                local_addr=(f"127.0.0.{2 + number % 8}", 0),
            )
            await stream.opened
            if stream.is_let_in:
                break
            await asyncio.sleep(1)
    return stream


async def main() -> None:
    """Say `open` when all are; on the next line of input tell who has seen the end of its run."""
    job: dict[str, str] = json.loads(sys.stdin.readline())
    gate = asyncio.Semaphore(OPENING_AT_ONCE)
    streams = await asyncio.gather(*(_open(job, n, gate) for n in range(int(job["streams"]))))
    print(sum(stream.is_let_in for stream in streams), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ended = [stream.ended_at for stream in streams if stream.ended_at]
    print(json.dumps({"ended": len(ended), "last": max(ended, default=0.0)}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
