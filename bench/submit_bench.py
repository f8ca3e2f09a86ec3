"""POST /v1/runs (auth, validation, row, record, one commit) against FastAPI + auth + body."""

import json
import statistics
import tempfile
from pathlib import Path

from bench.bench_server import KEY
from bench.paired import BenchServer, bench_server, durable_database, load, report, same_or_fail

ROUNDS = 5
SECONDS = 3
CONNECTIONS = 16
BODY = json.dumps({"task": "Calculate 6*7 and write the result to answer.txt"})
REQUEST = (
    "POST /v1/runs HTTP/1.1\r\nHost: localhost\r\n"
    f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
)


def _job(server: BenchServer) -> dict[str, object]:
    return {
        "port": server.port,
        "request": REQUEST,
        "expect": 202,
        "seconds": SECONDS,
        "connections": CONNECTIONS,
    }


def _configuration(server: BenchServer) -> dict[str, object]:
    job = {key: value for key, value in _job(server).items() if key != "port"}
    return {"flags": server.flags, "client": job, "auth": "one SHA-256 key, Bearer"}


def main() -> None:
    with durable_database() as environ, tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        with (
            bench_server("baseline", directory, {}) as baseline,
            bench_server("admission", directory, environ) as subject,
        ):
            same_or_fail(_configuration(baseline), _configuration(subject))
            print("durability: the subject commits each run with fsync; the baseline has no store")
            pairs = []
            for number in range(ROUNDS):
                spent = subject.cpu_seconds()
                plain, full = load(_job(baseline)), load(_job(subject))
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
