"""Clients of a rolling restart, in processes of their own: one sends requests, one follows runs.

They speak plain HTTP over kept connections and never try anything twice.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

# Of every ten requests four submit a task; none of the others changes anything.
TURNS = ("post", "run", "post", "tools", "post", "run", "whoami", "post", "runs", "run")
BODY = json.dumps({"task": "What is 6*7?", "model": "offline"})
MOST_SECONDS = 60.0
PAUSE_SECONDS = 0.02  # of each connection: the restarts take longer than the requests otherwise


@dataclass(slots=True)
class Load:
    """What was sent and what failed."""

    port: int
    key: str
    least: int
    sent: int = 0
    posts: int = 0
    failed: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    ends: asyncio.Event = field(default_factory=asyncio.Event)

    def head(self, method: str, path: str, rest: str = "") -> str:
        """A request's head."""
        return (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}\r\n"
            f"{rest}\r\n"
        )

    def request(self, turn: str) -> bytes:
        """The next request of this kind."""
        if turn == "post":
            told = f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
            return (self.head("POST", "/v1/runs", told) + BODY).encode()
        paths = {"tools": "/v1/tools", "whoami": "/v1/whoami", "runs": "/v1/runs?limit=2"}
        known = f"/v1/runs/{self.runs[-1]}" if self.runs else "/v1/whoami"
        return self.head("GET", paths.get(turn, known)).encode()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection may be used again."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    lines = head.split(b"\r\n")
    fields = dict(line.split(b": ", 1) for line in lines[1:] if b": " in line)
    length = int(fields.get(b"content-length", b"0"))
    body = await reader.readexactly(length)
    return int(head.split(b" ", 2)[1]), body, fields.get(b"connection") != b"close"


async def _send_for_ever(load: Load, first: int) -> None:
    turn = first
    writer: asyncio.StreamWriter | None = None
    while not load.ends.is_set() or load.sent < load.least:
        kind = TURNS[turn % len(TURNS)]
        turn += 1
        load.sent += 1
        load.posts += kind == "post"
        try:
            async with asyncio.timeout(MOST_SECONDS):
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
                writer.write(load.request(kind))
                status, body, is_kept = await _answer(reader)
            if status != (202 if kind == "post" else 200):
                load.failed.append(f"{kind}: {status} {body[:200]!r}")
            elif kind == "post":
                load.runs.append(json.loads(body)["id"])
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            load.failed.append(f"{kind}: {type(error).__name__}")
            is_kept = False
        if not is_kept and writer is not None:
            writer.close()
            writer = None
        await asyncio.sleep(PAUSE_SECONDS)


@dataclass(slots=True)
class Stream:
    """One reader of a run, which goes on where it is told to."""

    port: int
    key: str
    run: str
    last: int = -1
    reconnects: int = 0
    ended_at: float = 0.0
    faults: list[str] = field(default_factory=list)

    async def follow(self) -> None:
        """To the end of the run."""
        while not self.ended_at and not self.faults:
            try:
                await self._once()
            except (OSError, EOFError) as error:
                self.faults.append(f"cut after {self.last}: {type(error).__name__}")

    async def _once(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        resume = "" if self.last < 0 else f"Last-Event-ID: {self.last}\r\n"
        writer.write(
            f"GET /v1/runs/{self.run}/events HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.key}\r\n{resume}\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            self.faults.append(f"not let in after {self.last}: {head[:40]!r}")
            return
        goes_on = True
        while goes_on:
            block = await self._block(reader)
            goes_on = block is not None and self._heard(block)
        writer.close()

    async def _block(self, reader: asyncio.StreamReader) -> dict[str, str] | None:
        """The next event; a comment is an empty one. Chunk sizes are lines between events."""
        fields: dict[str, str] = {}
        while True:
            line = (await reader.readuntil(b"\n")).decode().rstrip("\r\n")
            name, mark, value = line.partition(": ")
            if mark and name:
                fields[name] = value
            elif line == "0":
                return None
            elif not line and fields:
                return fields

    def _heard(self, fields: dict[str, str]) -> bool:
        kind = fields.get("event")
        if kind == "reconnect":
            after = json.loads(fields["data"])["after_seq"]
            if after != self.last:
                self.faults.append(f"told to go on after {after}, has {self.last}")
            self.reconnects += 1
            return False
        if kind is not None:
            seq = int(fields["id"])
            if seq != self.last + 1:
                self.faults.append(f"{seq} after {self.last}")
            self.last = seq
        if kind == "run.finished":
            self.ended_at = time.time()
            return False
        return True


async def _stdin_ends() -> None:
    await asyncio.to_thread(sys.stdin.read)


async def send(job: dict[str, str]) -> dict[str, object]:
    """Requests until standard input ends, and no fewer than `least`."""
    load = Load(port=int(job["port"]), key=job["key"], least=int(job["least"]))
    workers = [
        asyncio.create_task(_send_for_ever(load, first)) for first in range(int(job["connections"]))
    ]
    print("sending", flush=True)
    await _stdin_ends()
    load.ends.set()
    await asyncio.gather(*workers)
    return {"sent": load.sent, "posts": load.posts, "failed": load.failed, "runs": load.runs}


async def follow(job: dict[str, str]) -> dict[str, object]:
    """Streams of the runs until each has seen its end."""
    streams = [
        Stream(port=int(job["port"]), key=job["key"], run=run)
        for run in job["runs"].split(",")
        for _ in range(int(job["streams"]))
    ]
    following = [asyncio.create_task(stream.follow()) for stream in streams]
    print("following", flush=True)
    await asyncio.gather(*following)
    return {
        "faults": [fault for stream in streams for fault in stream.faults],
        "reconnects": [stream.reconnects for stream in streams],
        "ended_at": [stream.ended_at for stream in streams],
        "last": [stream.last for stream in streams],
    }


def main() -> None:
    """One role, told on standard input's first line; the figures are the last line of output."""
    job: dict[str, str] = json.loads(sys.stdin.readline())
    print(json.dumps(asyncio.run(send(job) if job["role"] == "send" else follow(job))), flush=True)


if __name__ == "__main__":
    main()
