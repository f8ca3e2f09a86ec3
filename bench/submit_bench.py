"""POST /v1/runs (auth, validation, row, record, one commit) against FastAPI + auth + body."""

import statistics
import tempfile
from pathlib import Path

from bench.paired import (
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


def main() -> None:
    with durable_database() as environ, tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        with (
            bench_server("baseline", directory, {}) as baseline,
            bench_server("admission", directory, environ) as subject,
        ):
            same_or_fail(
                configuration(baseline, SECONDS, CONNECTIONS),
                configuration(subject, SECONDS, CONNECTIONS),
            )
            print("durability: the subject commits each run with fsync; the baseline has no store")
            pairs = []
            for number in range(ROUNDS):
                spent = subject.cpu_seconds()
                plain, full = (
                    load(submit_job(baseline, SECONDS, CONNECTIONS)),
                    load(submit_job(subject, SECONDS, CONNECTIONS)),
                )
                cpu_ms = (subject.cpu_seconds() - spent) * 1000 / full["requests"]
                pairs.append((plain, full, cpu_ms))
                print(f"round {number}: {plain} | {full} | {cpu_ms:.2f} ms CPU a request")
    middle = statistics.median
    metrics = {
        "rps": middle(full["rps"] for _, full, _ in pairs),
        "p99_ms": middle(full["p99_ms"] for _, full, _ in pairs),
        "rps_ratio": middle(full["rps"] / plain["rps"] for plain, full, _ in pairs),
        "p99_ratio": middle(full["p99_ms"] / plain["p99_ms"] for plain, full, _ in pairs),
        "cpu_ms_per_request": middle(cpu for _, _, cpu in pairs),
    }
    floor = {
        "rps": middle(plain["rps"] for plain, _, _ in pairs),
        "p99_ms": middle(plain["p99_ms"] for plain, _, _ in pairs),
    }
    report("submit", metrics, floor)


if __name__ == "__main__":
    main()
