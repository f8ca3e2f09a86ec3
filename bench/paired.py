"""What every bench shares: processes, CPU readings, the configuration check and the last line."""

import asyncio
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.embedded.postgres_server import start_embedded_postgres
from app.storage import schema
from bench.bench_server import KEY
from tests.support.databases import state_directory

ROOT = Path(__file__).resolve().parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchServer:
    """A server under measurement."""

    port: int
    pid: int
    flags: dict[str, object]

    def cpu_seconds(self) -> float:
        """User and system time of the server process so far."""
        stat = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii")
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def rss_mb(self) -> float:
        """Resident memory of the server process."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no VmRSS")


@contextmanager
def bench_server(kind: str, directory: Path, environ: dict[str, str]) -> Iterator[BenchServer]:
    """A server in a process of its own; the answer on its port is from it and nobody else."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.bench_server", kind, str(directory)],
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", **environ},
        cwd=ROOT,
    )
    try:
        if process.stdout is None:
            raise AssertionError("no output")
        told = json.loads(process.stdout.readline())
        _wait(told["port"], process)
        yield BenchServer(port=told["port"], pid=process.pid, flags=told["flags"])
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(1.0)
                return
        time.sleep(0.05)
    raise AssertionError("the server did not start")


def load(job: dict[str, object]) -> dict[str, float]:
    """Run the load client with a job; its figures."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "load_client.py")],
        input=json.dumps({key: str(value) for key, value in job.items()}).encode(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def same_or_fail(baseline: dict[str, object], subject: dict[str, object]) -> None:
    """Print both configurations; stop the bench when they differ."""
    print("baseline:", json.dumps(baseline, sort_keys=True))
    print("subject: ", json.dumps(subject, sort_keys=True))
    if baseline != subject:
        raise SystemExit("the two configurations differ: no figure")


def report(name: str, metrics: dict[str, float], baseline: dict[str, float]) -> None:
    """The last line, also kept under bench/results/."""
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": os.getloadavg()[0],
    }
    line = json.dumps({"bench": name, "metrics": metrics, "baseline": baseline, "machine": machine})
    results = ROOT / "bench" / "results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(line + "\n", encoding="utf-8")
    print(line)


@contextmanager
def durable_database() -> Iterator[dict[str, str]]:
    """A real, durable Postgres with the schema, and the settings of a server on it."""
    state = state_directory()
    server = start_embedded_postgres(state, durable=True)
    try:
        asyncio.run(schema.upgrade(server.owner_url))
        with tempfile.TemporaryDirectory(prefix="mf-bench-") as made:
            yield {
                "MESHFLOW_DATABASE_URL": server.app_url,
                "MESHFLOW_API_KEYS": KEY,
                "MESHFLOW_DATA_DIR": f"{made}/data",
                "MESHFLOW_LEDGER_KEY_DIR": f"{made}/keys",
                "MESHFLOW_MAX_CONCURRENT_RUNS": "1",
                "MESHFLOW_MAX_QUEUED_RUNS": "1000000",
                "MESHFLOW_LOG_LEVEL": "warning",
            }
    finally:
        server.stop()
        shutil.rmtree(state, ignore_errors=True)


def _request(body: dict[str, object], *headers: str) -> str:
    written = json.dumps(body)
    head = (
        "POST /v1/runs HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        *headers,
        f"Content-Length: {len(written)}",
    )
    return "\r\n".join((*head, "", written))


SUBMITTING = _request({"task": "Calculate 6*7 and write the result to answer.txt"})
ASKING = _request({"task": "Say a word.", "tools": []}, "Prefer: wait=30")


def submit_job(server: BenchServer, seconds: int, connections: int) -> dict[str, object]:
    """A task is handed in: what the load client is to do, the same for baseline and subject."""
    return _job(server, SUBMITTING, 202, seconds, connections)


def asking_job(server: BenchServer, seconds: int, connections: int) -> dict[str, object]:
    """A task is handed in and its end waited for."""
    return _job(server, ASKING, 200, seconds, connections)


def _job(
    server: BenchServer, request: str, expect: int, seconds: int, connections: int
) -> dict[str, object]:
    return {
        "port": server.port,
        "request": request,
        "expect": expect,
        "seconds": seconds,
        "connections": connections,
    }


def configuration(server: BenchServer, job: dict[str, object]) -> dict[str, object]:
    """All that must not differ between baseline and subject."""
    client = {name: value for name, value in job.items() if name != "port"}
    return {"flags": server.flags, "client": client, "auth": "one SHA-256 key, Bearer"}
