"""What a caller pays for MeshFlow: accepting a task, a governed model call, and the wait to start.

Accepting is held against FastAPI + auth + body, a governed call against the bare SDK in the same
FastAPI that asks the same provider in a third process. The baselines keep nothing; the subjects
commit with fsync.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.bench_server import KEY, MESSAGES_URL
from bench.paired import (
    ROOT,
    BenchServer,
    asking_job,
    bench_server,
    configuration,
    durable_database,
    load,
    report,
    same_or_fail,
    submit_job,
)

ROUNDS = 5
SECONDS = 3
CONNECTIONS = 16
STARTS = 200
Figures = dict[str, float]


@contextmanager
def provider() -> Iterator[str]:
    """The address of the provider that both sides ask, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.messages_provider"],
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin"},
        cwd=ROOT,
    )
    try:
        if process.stdout is None:
            raise AssertionError("no output")
        port = json.loads(process.stdout.readline())["port"]
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def accepting(directory: Path, environ: dict[str, str]) -> tuple[Figures, Figures]:
    """POST /v1/runs: auth, validation, row, record, working copy, one commit."""
    pairs = []
    with (
        bench_server("baseline", directory, {}) as baseline,
        bench_server("admission", directory, environ) as subject,
    ):
        same_or_fail(
            configuration(baseline, submit_job(baseline, SECONDS, CONNECTIONS)),
            configuration(subject, submit_job(subject, SECONDS, CONNECTIONS)),
        )
        for number in range(ROUNDS):
            plain = load(submit_job(baseline, SECONDS, CONNECTIONS))
            spent = subject.cpu_seconds()
            full = load(submit_job(subject, SECONDS, CONNECTIONS))
            cpu_ms = (subject.cpu_seconds() - spent) * 1000 / full["requests"]
            pairs.append((plain, {**full, "cpu_ms": cpu_ms}))
            print(f"accepting {number}: {plain} | {full} | {cpu_ms:.2f} ms CPU a request")
    return {
        "post_ratio": _middle(full["rps"] / plain["rps"] for plain, full in pairs),
        "post_p99_ratio": _middle(full["p99_ms"] / plain["p99_ms"] for plain, full in pairs),
        "post_cpu_ms": _middle(full["cpu_ms"] for _, full in pairs),
        "post_rps": _middle(full["rps"] for _, full in pairs),
    }, {
        "post_rps": _middle(plain["rps"] for plain, _ in pairs),
        "post_p99_ms": _middle(plain["p99_ms"] for plain, _ in pairs),
    }


def governing(directory: Path, environ: dict[str, str], url: str) -> tuple[Figures, Figures]:
    """A whole run of one model call, waited for, against the call by the bare SDK."""
    asked = {MESSAGES_URL: url}
    at_16: list[tuple[Figures, Figures]] = []
    alone: list[tuple[Figures, Figures]] = []
    with (
        bench_server("bare-sdk", directory, asked) as baseline,
        bench_server("governed", directory, {**environ, **asked}) as subject,
    ):
        for connections in (CONNECTIONS, 1):
            same_or_fail(
                configuration(baseline, asking_job(baseline, SECONDS, connections)),
                configuration(subject, asking_job(subject, SECONDS, connections)),
            )
            _warm(baseline, subject)
            for number in range(ROUNDS):
                plain = load(asking_job(baseline, SECONDS, connections))
                spent = subject.cpu_seconds()
                full = load(asking_job(subject, SECONDS, connections))
                cpu_ms = (subject.cpu_seconds() - spent) * 1000 / full["requests"]
                (at_16 if connections > 1 else alone).append((plain, full))
                print(
                    f"governed by {connections}, {number}: {plain} | {full} | {cpu_ms:.2f} ms CPU"
                )
    return {
        "governed_ratio_16": _middle(full["rps"] / plain["rps"] for plain, full in at_16),
        "governed_added_p50_ms": _middle(full["p50_ms"] - plain["p50_ms"] for plain, full in alone),
        "governed_added_p99_ms": _middle(full["p99_ms"] - plain["p99_ms"] for plain, full in alone),
        "governed_rps_16": _middle(full["rps"] for _, full in at_16),
        "governed_p50_ms": _middle(full["p50_ms"] for _, full in alone),
    }, {
        "sdk_rps_16": _middle(plain["rps"] for plain, _ in at_16),
        "sdk_p50_ms": _middle(plain["p50_ms"] for plain, _ in alone),
        "sdk_p99_ms": _middle(plain["p99_ms"] for plain, _ in alone),
    }


def starting(directory: Path, environ: dict[str, str], url: str) -> Figures:
    """From the record that a run was accepted to the one that it began, on an idle server."""
    waits = []
    with bench_server("governed", directory, {**environ, MESSAGES_URL: url}) as subject:
        for _ in range(STARTS):
            run_id = _called(subject, "/v1/runs", {"task": "Say a word.", "tools": []})["id"]
            page = _called(subject, f"/v1/runs/{run_id}/entries?limit=10")
            at = {entry["kind"]: entry["at"] for entry in page["data"]}
            waits.append(_milliseconds(at["run.submitted"], at["run.started"]))
    waits.sort()
    return {"start_p50_ms": waits[STARTS // 2], "start_p99_ms": waits[int(STARTS * 0.99)]}


def main() -> None:
    print("durability: the subjects commit with fsync; the baselines have no store")
    with durable_database() as environ, tempfile.TemporaryDirectory() as made:
        metrics, floor = accepting(Path(made), environ)
    with (
        durable_database() as environ,  # another, without the runs that wait in the first
        tempfile.TemporaryDirectory() as made,
        provider() as url,
    ):
        directory = Path(made)
        environ["MESHFLOW_MAX_CONCURRENT_RUNS"] = "64"
        governed, sdk = governing(directory, environ, url)
        metrics |= governed | starting(directory, environ, url)
    report("http", metrics, floor | sdk)


def _warm(*servers: BenchServer) -> None:
    for server in servers:
        load(asking_job(server, 1, 1))


def _called(server: BenchServer, path: str, body: object = None) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "application/json",
            "Prefer": "wait=30",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        found: dict[str, Any] = json.load(answer)
    return found


def _milliseconds(since: str, until: str) -> float:
    took = datetime.fromisoformat(until) - datetime.fromisoformat(since)
    return took.total_seconds() * 1000


def _middle(values: Iterable[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
