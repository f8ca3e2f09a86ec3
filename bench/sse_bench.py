"""Many idle event streams on one process: memory, what idleness costs, how late an event is."""

import argparse
import asyncio
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from app.embedded.postgres_server import start_embedded_postgres
from app.storage import schema
from bench.paired import ROOT, BenchServer, report
from tests.e2e.server_process import ServerProcess, serving, surroundings
from tests.support.databases import state_directory
from tests.support.fake_messages_api import fake_messages_api, silent

KEY = "stream-key-000000000000000000001"
RUNS = 100
IDLE_SECONDS = 30
PATIENCE_SECONDS = 120
WALL_SECONDS = 3000  # the most that a run may ask for: idle ones must not end by themselves


def measure(server: ServerProcess, streams: int) -> dict[str, float]:
    """Open them, leave them alone for a while, then let one run end."""
    seen = BenchServer(port=0, pid=server.process.pid, flags={})
    with server.client(KEY) as client:
        task = {"task": "Think for ever.", "budget": {"max_wall_seconds": WALL_SECONDS}}
        runs = [
            client.post("/v1/runs", json=task).raise_for_status().json()["id"] for _ in range(RUNS)
        ]
        before = seen.rss_mb()
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.idle_streams"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        if process.stdin is None or process.stdout is None:
            raise AssertionError("no pipes")
        job = {
            "port": server.url.rpartition(":")[2],
            "key": KEY,
            "runs": ",".join(runs),
            "streams": str(streams),
        }
        began = time.monotonic()
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        opened = int(process.stdout.readline())
        took = time.monotonic() - began
        spent = seen.cpu_seconds()
        time.sleep(IDLE_SECONDS)
        idle_cpu = (seen.cpu_seconds() - spent) / IDLE_SECONDS
        rss = seen.rss_mb()
        answers = _answer_ms(client)
        cancelled_at = time.time()
        client.post(f"/v1/runs/{runs[0]}/cancel").raise_for_status()
        _until_ended(client, runs[0])
        time.sleep(5)
        told = _told(process)
    assert opened == streams, f"{opened} of {streams} were let in"
    assert told["ended"] == streams // RUNS, f"{told['ended']} heard of the end"
    return {
        "streams": opened,
        "opening_seconds": took,
        "rss_mb": rss,
        "kb_per_stream": (rss - before) * 1024 / streams,
        "idle_cpu_share": idle_cpu,
        "answer_p99_ms": answers,
        "event_seconds_max": told["last"] - cancelled_at,
    }


def _answer_ms(client: httpx2.Client) -> float:
    took = []
    for _ in range(100):
        began = time.perf_counter()
        client.get("/v1/whoami").raise_for_status()
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took)[98]


def _until_ended(client: httpx2.Client, run: str) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while client.get(f"/v1/runs/{run}").json()["finished_at"] is None:
        assert time.monotonic() < ends_at, "the run did not end"
        time.sleep(0.1)


def _told(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = process.communicate("\n", timeout=PATIENCE_SECONDS)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def main() -> None:
    """10,000 streams, or as many as are asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=10_000)
    streams: int = parser.parse_args().streams
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, streams + 2000), most))
    state = state_directory()
    database = start_embedded_postgres(state, durable=True)
    try:
        asyncio.run(schema.upgrade(database.owner_url))
        with (
            tempfile.TemporaryDirectory(prefix="mf-sse-") as made,
            fake_messages_api(lambda _: silent()) as api,
        ):
            place = Path(made)
            environ = surroundings(
                place / "data",
                MESHFLOW_API_KEYS=KEY,
                MESHFLOW_DATABASE_URL=database.app_url,
                MESHFLOW_LEDGER_KEY_DIR=str(place / "keys"),
                MESHFLOW_MAX_CONCURRENT_RUNS=str(RUNS),
                MESHFLOW_MAX_STREAMS=str(streams),
                MESHFLOW_MAX_STREAMS_PER_TENANT=str(streams),
                MESHFLOW_MODEL_TIMEOUT_SECONDS="3600",
                MESHFLOW_LOG_LEVEL="warning",
                ANTHROPIC_API_KEY="sk-made-up-for-this-bench",
                MESHFLOW_ANTHROPIC_BASE_URL=api.base_url,
            )
            with serving(environ=environ, log=place / "log") as server:
                figures = measure(server, streams - streams % RUNS)
                print((place / "log").read_text()[-2000:])
    finally:
        database.stop()
        shutil.rmtree(state, ignore_errors=True)
    report("sse", figures, {})


if __name__ == "__main__":
    main()
