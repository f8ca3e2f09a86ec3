"""A client of its own that writes down what a server acknowledged, while that server is killed.

Arguments: a file that holds the server's present URL, the key, the log to append to. A line is
written after the byte that acknowledges it has arrived, so whatever stands in the log was promised:
`run <run id>` for a 202, `event <run id> <seq> <record hash>` for an SSE event. `lost <run id>`
means that an acknowledged run was not found. Ends with its standard input.
"""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import httpx2

POSTERS = 4
TASK = (
    "Calculate 6*7 and write the result to answer.txt. Then read answer.txt."
    " Then calculate 12345*6789 and write the result to other.txt. Then read other.txt."
    " Then calculate 1+2+3+4."
)
PAUSE_SECONDS = 0.05
FINAL_EVENT = "run.finished"


@dataclass(slots=True, kw_only=True)
class Client:
    """Posts runs and follows them until it is told to stop."""

    url_file: Path
    key: str
    log: TextIO
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    def note(self, *words: object) -> None:
        """One whole line, out of this process before anything else happens."""
        self.log.write(" ".join(map(str, words)) + "\n")
        self.log.flush()

    def connection(self) -> httpx2.AsyncClient:
        """A client for wherever the server is now."""
        headers = {"Authorization": f"Bearer {self.key}"}
        url = self.url_file.read_text(encoding="utf-8")
        return httpx2.AsyncClient(base_url=url, headers=headers, timeout=10, trust_env=False)

    async def post_forever(self) -> None:
        """Start a run, follow it to its end, again."""
        while not self.stopped.is_set():
            run_id = await self.posted()
            if run_id is not None:
                await self.follow(run_id)
            await asyncio.sleep(PAUSE_SECONDS)

    async def posted(self) -> str | None:
        """The id of an acknowledged run, or None when the server did not acknowledge one."""
        try:
            async with self.connection() as http:
                answer = await http.post("/v1/runs", json={"task": TASK})
                if answer.status_code != httpx2.codes.ACCEPTED:
                    self.note("refused", answer.status_code)
                    return None
                run_id: str = answer.json()["id"]
        except (httpx2.HTTPError, ValueError):
            return None
        self.note("run", run_id)
        return run_id

    async def follow(self, run_id: str) -> None:
        """Read events, through any number of broken streams, until the last one."""
        last: str | None = None
        while not self.stopped.is_set():
            headers = {} if last is None else {"Last-Event-ID": last}
            try:
                async with (
                    self.connection() as http,
                    http.stream("GET", f"/v1/runs/{run_id}/events", headers=headers) as stream,
                ):
                    if stream.status_code == httpx2.codes.NOT_FOUND:
                        self.note("lost", run_id)
                        return
                    if stream.status_code == httpx2.codes.OK:
                        async for line in stream.aiter_lines():
                            name, _, value = line.partition(": ")
                            if name == "data" and "record_hash" in value:
                                last, kind = self.heard(run_id, value)
                                if kind == FINAL_EVENT:
                                    return
            except httpx2.HTTPError:
                pass
            await asyncio.sleep(PAUSE_SECONDS)

    def heard(self, run_id: str, data: str) -> tuple[str, str]:
        """Write a received event down; its id and kind."""
        entry = json.loads(data)
        self.note("event", run_id, entry["seq"], entry["record_hash"])
        return str(entry["seq"]), str(entry["kind"])

    async def run(self) -> None:
        """Work until standard input ends."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(POSTERS):
                tasks.create_task(self.post_forever())
            await asyncio.to_thread(sys.stdin.read)
            self.stopped.set()


def main() -> int:
    """Run the client."""
    url_file, key, log = sys.argv[1:]
    with Path(log).open("a", encoding="utf-8") as opened:
        asyncio.run(Client(url_file=Path(url_file), key=key, log=opened).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
