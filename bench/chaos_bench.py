"""Kills and stops processes, and crashes Postgres, under load: nothing lost, nothing done twice.

Three servers share one database and one model. Tools count their executions in a file, outside of
any database. SIGKILL, SIGSTOP for longer than two leases, and crashes of all backends come at
random; afterwards every run must have ended as without them, but for calls that were under way.
"""

import argparse
import asyncio
import itertools
import json
import os
import random  # noqa: TID251 - seeded, so that an order of kills can be had again
import re
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx2

from app.embedded.postgres_server import EmbeddedPostgres, start_embedded_postgres
from app.storage import schema
from bench.paired import report
from tests.e2e.server_process import ServerProcess, serving, surroundings
from tests.support.counted_tools import NAMES, PLACE, executions, installed_counters
from tests.support.databases import connect, state_directory
from tests.support.fake_messages_api import (
    Call,
    Scenario,
    SeenRequest,
    fake_messages_api,
    text,
    tool_use,
)

KEY = "chaos-key-0000000000000000000001"
WORKERS = 3
LEASE_SECONDS = 3
OPEN_RUNS = 12
STEPS = ("count_once", "count_pure", "count_once", "count_again", "count_once")
TOOL_SECONDS = 0.1
MOST_SECONDS_TO_SETTLE = 120
# Every record with who wrote it, when that one was last seen, and the record before it.
RECORDS = """
SELECT c.run_id, c.seq, c.kind, c.ts, b.writer_id, k.seen_at
FROM record c JOIN batch b USING (tenant_id, batch_id) JOIN writer_key k USING (writer_id)
JOIN runs r USING (tenant_id, run_id) WHERE r.kind <> 'admin' ORDER BY c.run_id, c.seq
"""
OPEN = """
SELECT count(*) FROM runs WHERE kind <> 'admin' AND finished_at IS NULL
"""


@dataclass(kw_only=True)
class Arena:
    """The processes, and what was done to them."""

    start: Callable[[], ServerProcess]
    servers: list[ServerProcess | None]
    stopped: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    kills: int = 0
    stops: int = 0
    crashes: int = 0
    in_flight: int = 0  # the most calls with an effect that can have been under way at a fault

    def awake(self) -> list[int]:
        """Those that run now."""
        with self.lock:
            found = enumerate(self.servers)
            return [at for at, one in found if one is not None and at not in self.stopped]

    def kill(self, at: int) -> None:
        """SIGKILL, and another process in its place as soon as it is up."""
        with self.lock:
            victim, self.servers[at] = self.servers[at], None
        if victim is None:
            return
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        self.kills += 1
        self.in_flight += OPEN_RUNS
        threading.Thread(target=self._replace, args=(at,)).start()

    def _replace(self, at: int) -> None:
        started = self.start()
        with self.lock:
            self.servers[at] = started

    def stop(self, at: int) -> None:
        """SIGSTOP for two and a half leases."""
        with self.lock:
            victim = self.servers[at]
            self.stopped.add(at)
        if victim is None:
            return
        victim.process.send_signal(signal.SIGSTOP)
        self.stops += 1
        self.in_flight += OPEN_RUNS

        def wake() -> None:
            victim.process.send_signal(signal.SIGCONT)
            with self.lock:
                self.stopped.discard(at)

        threading.Timer(LEASE_SECONDS * 2.5, wake).start()


class Submitter:
    """Keeps so many runs open, by way of whoever is awake; remembers what was acknowledged."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._submit_all)
        self.acknowledged: set[str] = set()
        self._number = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _submit_all(self) -> None:
        while not self._ending.is_set():
            awake = self._arena.awake()
            if awake:
                server = self._arena.servers[random.choice(awake)]
                if server is not None:
                    with suppress(httpx2.HTTPError, OSError):
                        self._submit(server)
            self._ending.wait(0.1)

    def _submit(self, server: ServerProcess) -> None:
        self._number += 1
        with server.client(KEY) as client:
            client.timeout = httpx2.Timeout(3.0)
            running = client.get("/v1/runs", params={"status": "running", "limit": 100})
            if len(running.raise_for_status().json()["data"]) >= OPEN_RUNS:
                return
            task = {"instructions": f"Count run {self._number}.", "tools": list(NAMES)}
            answer = client.post("/v1/runs", json=task)
            if answer.status_code == 202:
                self.acknowledged.add(answer.json()["id"])


def script(seen: SeenRequest) -> Scenario:
    """The next call of the run that the request is about, or its answer."""
    messages = seen.body["messages"]
    found = re.search(r"Count run (\d+)\.", json.dumps(messages[0]))
    if found is None:
        raise AssertionError("a request about no run")
    given = [block for said in messages for block in said["content"]]
    step = len([1 for block in given if block["type"] == "tool_result"])
    if step == len(STEPS):
        return text("All counted.")
    word = f"r{found.group(1)}s{step}"
    return tool_use(Call(name=STEPS[step], arguments={"word": word}, call_id=f"toolu_{word}"))


@contextmanager
def arena_on(database: EmbeddedPostgres, directory: Path) -> Iterator[Arena]:
    with fake_messages_api(script) as api, ExitStack() as processes:
        environ = surroundings(
            directory / "data",
            MESHFLOW_DATABASE_URL=database.app_url,
            MESHFLOW_LEDGER_KEY_DIR=str(directory / "keys"),
            MESHFLOW_API_KEYS=KEY,
            MESHFLOW_LEASE_SECONDS=str(LEASE_SECONDS),
            MESHFLOW_TOOLS=",".join(NAMES),
            MESHFLOW_LOG_LEVEL="warning",
            ANTHROPIC_API_KEY="sk-made-up-for-this-bench",
            MESHFLOW_ANTHROPIC_BASE_URL=api.base_url,
            PYTHONPATH=str(installed_counters(directory / "installed")),
            COUNTED_TOOLS_SECONDS=str(TOOL_SECONDS),
            **{PLACE: str(directory)},
        )
        numbers = iter(range(1_000_000))

        def start() -> ServerProcess:
            log = directory / f"server-{next(numbers)}.log"
            return processes.enter_context(serving(environ=environ, log=log))

        arena = Arena(start=start, servers=[None] * WORKERS)
        for at in range(WORKERS):
            arena.servers[at] = start()
        yield arena
        while None in arena.servers:  # a process that is still starting is reaped with the others
            time.sleep(0.1)


async def query(url: str, statement: str) -> list[dict[str, object]]:
    raw = await connect(url)
    try:
        return [dict(row) for row in await raw.fetch(statement)]
    finally:
        await raw.close()


async def crash(database: EmbeddedPostgres) -> None:
    """Kill one backend: Postgres ends them all, recovers, and takes connections again."""
    found = await query(
        database.owner_url, "SELECT pid FROM pg_stat_activity WHERE usename = 'mf_app' LIMIT 1"
    )
    for row in found:
        os.kill(int(str(row["pid"])), signal.SIGKILL)


def disturb(arena: Arena, database: EmbeddedPostgres, kills: int, seconds: float) -> None:
    """Kills and stops at random until so many were killed or the time is over."""
    until = time.monotonic() + seconds
    turn = 0
    while arena.kills < kills and time.monotonic() < until:
        time.sleep(random.uniform(0.4, 1.2))
        awake = arena.awake()
        if len(awake) < 2:
            continue
        turn += 1
        if turn % 12 == 0:
            with suppress(Exception):
                asyncio.run(crash(database))
                arena.crashes += 1
                arena.in_flight += OPEN_RUNS * WORKERS
        elif turn % 4 == 0:
            arena.stop(random.choice(awake))
        else:
            arena.kill(random.choice(awake))


def settled(database: EmbeddedPostgres) -> int:
    """How many runs are still open when all had time to end."""
    until = time.monotonic() + MOST_SECONDS_TO_SETTLE
    left = 1
    while left and time.monotonic() < until:
        time.sleep(0.5)
        left = int(str(asyncio.run(query(database.owner_url, OPEN))[0]["count"]))
    return left


def recoveries(records: Sequence[dict[str, object]]) -> list[float]:
    """Seconds from the last heartbeat of a lost process to the first record of who went on."""
    found = []
    for before, after in itertools.pairwise(records):
        if before["run_id"] != after["run_id"] or before["writer_id"] == after["writer_id"]:
            continue
        waited = (after["ts"] - before["seen_at"]).total_seconds()  # type: ignore[operator]
        if waited > 0:  # else it woke up later: when it fell silent is not known any more
            found.append(waited)
    return found


def effects_amiss(entries: Sequence[dict[str, Any]], unknown: set[str], once: Counter[str]) -> int:
    """Effects of a run that are not those of a run without faults, and were not told as unknown."""
    words = [
        entry["call"]["arguments"]["word"]
        for entry in entries
        if entry["kind"] == "tool.decided" and entry["call"]["name"] == "count_once"
    ]
    complete = len(set(words)) == STEPS.count("count_once")
    return (not complete) + sum(once[word] != 1 for word in words if word not in unknown)


def judged(
    arena: Arena, acknowledged: set[str], database: EmbeddedPostgres, directory: Path
) -> dict[str, float]:
    """The figures; every run's ledger is read and verified."""
    at = arena.awake()[0]
    server = arena.servers[at]
    if server is None:
        raise AssertionError("nobody is awake")
    states: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    resumed = lost = wrong = 0
    lines = (directory / "calls").read_text().splitlines()
    once = Counter(line.split()[2] for line in lines if line.startswith("began count_once "))
    rows = asyncio.run(query(database.owner_url, "SELECT run_id FROM runs WHERE kind <> 'admin'"))
    with server.client(KEY) as client:
        for public in sorted({f"run_{str(row['run_id']).replace('-', '')}" for row in rows}):
            run = client.get(f"/v1/runs/{public}").raise_for_status().json()
            proof = client.get(f"/v1/runs/{public}/verification").raise_for_status().json()
            page = client.get(f"/v1/runs/{public}/entries", params={"limit": 200})
            entries = page.raise_for_status().json()["data"]
            if proof["verdict"] != "valid":
                raise AssertionError(f"{public}: {proof}")
            states[run["status"]] += 1
            if public in acknowledged and run["status"] != "succeeded":
                lost += 1
                print("lost:", public, run["status"], run["error"])
            resumed += len([1 for entry in entries if entry["kind"] == "run.resumed"])
            told = set()
            for entry in entries:
                if entry["outcome"] == "outcome_unknown":
                    call = entries[entry["intent"]]["call"]
                    unknown[call["name"]] += 1
                    told.add(call["arguments"]["word"])
            if run["status"] == "succeeded":
                wrong += effects_amiss(entries, told, once)
    missing = acknowledged - {f"run_{str(row['run_id']).replace('-', '')}" for row in rows}
    records = asyncio.run(query(database.owner_url, RECORDS))
    waited = sorted(recoveries(records)) or [0.0]
    logs = "".join(log.read_text(errors="replace") for log in directory.glob("server-*.log"))
    print(f"states {dict(states)}; unknown outcomes by tool {dict(unknown)}")
    print(f"recovery s: median {statistics.median(waited):.2f}, most {waited[-1]:.2f}")
    return {
        "kills": arena.kills,
        "stops": arena.stops,
        "database_crashes": arena.crashes,
        "runs": sum(states.values()),
        "runs_lost": lost + len(missing),
        "resumed": resumed,
        "tool_steps": len(executions(directory)),
        "tool_steps_doubled": len([1 for count in once.values() if count > 1]),
        "tool_steps_repeated": sum(count - 1 for count in executions(directory).values()),
        "effects_amiss": wrong,
        "outcomes_unknown": unknown["count_once"],
        "safe_outcomes_unknown": sum(unknown.values()) - unknown["count_once"],
        "writes_refused": logs.count("StaleEpochError"),
        "recovery_p99_seconds": waited[int(len(waited) * 0.99) - 1 if len(waited) > 1 else 0],
        "lease_seconds": LEASE_SECONDS,
        "unknown_beyond_in_flight": max(0, unknown["count_once"] - arena.in_flight),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=20261125)
    told = parser.parse_args()
    random.seed(told.seed)
    state = state_directory()
    database = start_embedded_postgres(state, durable=True)
    try:
        asyncio.run(schema.upgrade(database.owner_url))
        with tempfile.TemporaryDirectory(prefix="mf-chaos-") as made:
            directory = Path(made)
            with arena_on(database, directory) as arena:
                with Submitter(arena) as submitter:
                    disturb(arena, database, told.kills, told.seconds)
                left = settled(database)
                metrics = judged(arena, submitter.acknowledged, database, directory)
            metrics["runs_lost"] += left
            report("chaos", metrics, {})
    finally:
        database.stop()
        shutil.rmtree(state, ignore_errors=True)
    for name in (
        "runs_lost",
        "tool_steps_doubled",
        "safe_outcomes_unknown",
        "effects_amiss",
        "unknown_beyond_in_flight",
    ):
        if metrics[name]:
            raise SystemExit(f"{name}: {metrics[name]}")


if __name__ == "__main__":
    main()
