"""The ledger's full path beside raw INSERT+commit: appending, verifying, sequencing.

Baseline and subject run in turns on one durable server, in as many processes, with as many clients
and for as long. Each process says what its own sessions ran under; the bench stops when that
differs, and when the subject writes fewer bytes a step than the baseline.
"""

import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from app.embedded import postgres_server
from app.embedded.postgres_server import EmbeddedPostgres, start_embedded_postgres
from app.storage import schema
from bench.append_worker import RAW_TABLE, ROW_BYTES, WARM_UP_SECONDS
from bench.ledger_reading import reading_figures
from bench.ledger_sequencing import AGE_SECONDS, AGE_TENANT, sequencing_figures
from bench.paired import ROOT, report, same_or_fail
from tests.support.databases import connect, state_directory

ROUNDS = 5
SECONDS = 4.0
PROCESSES = 2
CONCURRENCY = (64, 256)
# The figures, what the sessions ran under, and the fewest bytes of a step.
Sample = tuple[dict[str, float], dict[str, object], int]


def start_server(state: Path) -> EmbeddedPostgres:
    """The server that `meshflow serve` starts; each client of the baseline has a connection."""
    postgres_server._SETTINGS["max_connections"] = str(max(CONCURRENCY) + 40)  # noqa: SLF001 - as said
    return start_embedded_postgres(state, durable=True)


def start_workers(
    kind: str, url: str, clients: int, seconds: float, tenant: str
) -> list["subprocess.Popen[bytes]"]:
    """Client processes that all begin now."""
    argv = [sys.executable, "-m", "bench.append_worker", kind, str(clients // PROCESSES)]
    started = [
        subprocess.Popen(
            [*argv, str(seconds), tenant],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin"},
        )
        for _ in range(PROCESSES)
    ]
    for process in started:
        _say(process, url)
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "a client did not start"
    for process in started:
        _say(process, "go")
    return started


def _say(process: "subprocess.Popen[bytes]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())
    process.stdin.flush()


def workers(kind: str, url: str, clients: int, number: int) -> Sample:
    """One sample: steps a second of all processes together, how long they took, and their CPU."""
    started = start_workers(kind, url, clients, SECONDS, f"bench{number}")
    told = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    taken = sorted(ms for answer in told for ms in answer["taken_ms"])
    cpu = sum(answer["cpu_seconds"] for answer in told) * SECONDS / (SECONDS + WARM_UP_SECONDS)
    figures = {
        "per_second": len(taken) / SECONDS,
        "p50_ms": taken[len(taken) // 2],
        "p99_ms": taken[len(taken) * 99 // 100],
        "cpu_us_a_step": cpu * 1e6 / len(taken),
    }
    ran_under: dict[str, object] = {"processes": [answer["ran_under"] for answer in told]}
    return figures, ran_under, min(answer["bytes_a_step"] for answer in told)


def appending_figures(server: EmbeddedPostgres, clients: int) -> dict[str, float]:
    """Ratios of the full path to the baseline, medians of paired rounds."""
    pairs = []
    for number in range(ROUNDS):
        plain, plainly, least = workers("baseline", server.app_url, clients, number)
        full, fully, most = workers("subject", server.app_url, clients, number)
        same_or_fail(plainly, fully)
        print(f"bytes a step: baseline {least}, subject {most}")
        if most < least:
            raise SystemExit("the subject writes less than the baseline: no figure")
        pairs.append((plain, full))
        ratio = full["per_second"] / plain["per_second"]
        print(f"{clients} clients, round {number}: {_short(plain)} | {_short(full)} | {ratio:.2f}")
    middle = statistics.median
    return {
        "ratio": middle(full["per_second"] / plain["per_second"] for plain, full in pairs),
        "p99_ratio": middle(full["p99_ms"] / plain["p99_ms"] for plain, full in pairs),
        "baseline_per_second": middle(plain["per_second"] for plain, _ in pairs),
        "baseline_p99_ms": middle(plain["p99_ms"] for plain, _ in pairs),
    }


def _short(figures: dict[str, float]) -> str:
    return " ".join(f"{name}={value:.1f}" for name, value in figures.items())


def pgbench_per_second(server: EmbeddedPostgres, clients: int) -> float | None:
    """The same INSERT by pgbench, for whoever asks what the driver costs; None without it."""
    program = shutil.which("pgbench")
    if program is None:
        return None
    body = "x" * ROW_BYTES
    script = (
        "\\set r random(1, 1000000000000000)\n\\set s random(1, 1000000000000000)\n"
        "INSERT INTO bench_raw VALUES (lpad(:r::text, 32, '0')::uuid, :s,"
        f" convert_to('{body}', 'UTF8'));\n"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        url = server.owner_url.replace("postgresql+asyncpg", "postgresql")
        options = f"-n -M prepared -c {clients} -j {PROCESSES} -T {SECONDS:.0f} -f {file.name}"
        done = subprocess.run(
            [program, *options.split()],
            env=_login(url),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    for line in done.stdout.decode().splitlines():
        if line.startswith("tps ="):
            return float(line.split()[2])
    return None


def _login(url: str) -> dict[str, str]:
    login, _, rest = url.removeprefix("postgresql://").partition("@")
    user, _, password = login.partition(":")
    database, _, query = rest.lstrip("/").partition("?")
    host = query.removeprefix("host=").replace("%2F", "/")
    return {"PGUSER": user, "PGPASSWORD": password, "PGDATABASE": database, "PGHOST": host}


def main() -> None:
    state = state_directory()
    server = start_server(state)
    try:
        asyncio.run(schema.upgrade(server.owner_url))
        asyncio.run(_make_raw_table(server))
        found = {clients: appending_figures(server, clients) for clients in CONCURRENCY}
        beside = {clients: pgbench_per_second(server, clients) for clients in CONCURRENCY}
        print("pgbench, the same row and as many clients, transactions a second:", beside)
        reading = asyncio.run(reading_figures(server))
        sequencing = asyncio.run(
            sequencing_figures(
                server,
                lambda: start_workers(
                    "subject", server.app_url, CONCURRENCY[0], AGE_SECONDS, AGE_TENANT
                ),
            )
        )
    finally:
        server.stop()
        shutil.rmtree(state, ignore_errors=True)
    metrics = {
        "append_ratio_64": found[64]["ratio"],
        "append_ratio_256": found[256]["ratio"],
        "p99_ratio_64": found[64]["p99_ratio"],
        **reading.metrics,
        **sequencing.metrics,
    }
    baseline = {
        f"{name}_{clients}": found[clients][f"baseline_{name}"]
        for clients in CONCURRENCY
        for name in ("per_second", "p99_ms")
    }
    baseline |= {f"pgbench_per_second_{c}": tps for c, tps in beside.items() if tps is not None}
    report("ledger", metrics, baseline | reading.baseline)


async def _make_raw_table(server: EmbeddedPostgres) -> None:
    raw = await connect(server.owner_url)
    await raw.execute(RAW_TABLE)
    await raw.close()


if __name__ == "__main__":
    main()
