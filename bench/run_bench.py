"""Server CPU of a whole offline run with two tool calls, durable ledger included; idle memory."""

import json
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from bench.bench_server import KEY
from bench.paired import (
    BenchServer,
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
CONNECTIONS = 4


def _unfinished(server: BenchServer) -> int:
    """Runs that are not over yet; a listing of one costs the same whatever their number."""
    total = 0
    for status in ("queued", "running"):
        request = urllib.request.Request(
            f"http://127.0.0.1:{server.port}/v1/runs?limit=1&status={status}",
            headers={"Authorization": f"Bearer {KEY}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
            total += len(json.load(answer)["data"])
    return total


def _cpu_ms(server: BenchServer, *, runs_follow: bool) -> float:
    before = server.cpu_seconds()
    figures = load(submit_job(server, SECONDS, CONNECTIONS))
    while runs_follow and _unfinished(server):
        time.sleep(0.2)
    return (server.cpu_seconds() - before) * 1000 / figures["requests"]


def main() -> None:
    with durable_database() as environ, tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        environ["MESHFLOW_MAX_CONCURRENT_RUNS"] = "8"
        with (
            bench_server("baseline", directory, {}) as baseline,
            bench_server("subject", directory, environ) as subject,
        ):
            idle_mb = subject.rss_mb()
            same_or_fail(
                configuration(baseline, submit_job(baseline, SECONDS, CONNECTIONS)),
                configuration(subject, submit_job(subject, SECONDS, CONNECTIONS)),
            )
            pairs = []
            for number in range(ROUNDS):
                plain = _cpu_ms(baseline, runs_follow=False)
                full = _cpu_ms(subject, runs_follow=True)
                pairs.append((plain, full))
                print(f"round {number}: baseline {plain:.2f} ms, a run {full:.2f} ms")
            after_mb = subject.rss_mb()
    middle = statistics.median
    metrics = {
        "cpu_ms_per_run": middle(full for _, full in pairs),
        "ratio": middle(full / plain for plain, full in pairs),
        "idle_rss_mb": idle_mb,
        "rss_after_mb": after_mb,
    }
    report("run", metrics, {"cpu_ms_per_request": middle(plain for plain, _ in pairs)})


if __name__ == "__main__":
    main()
