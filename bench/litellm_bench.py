"""A governed model call against the LiteLLM proxy: the same provider, one worker each, no cache.

LiteLLM is no dependency: `python3 -m venv DIR && DIR/bin/pip install 'litellm[proxy]'`, then
`python -m bench.litellm_bench DIR`. It runs with its production settings and without a database, so
it keeps nothing; MeshFlow commits every step with fsync.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.bench_server import KEY, MESSAGES_URL, MODEL, PROVIDER_KEY
from bench.http_bench import provider
from bench.paired import asking_job, bench_server, durable_database, load, report

ROUNDS = 5
SECONDS = 5
CONNECTIONS = 16
# What its documentation asks for in production, as far as it applies without a database.
_CONFIG = f"""
model_list:
  - model_name: {MODEL}
    litellm_params: {{model: anthropic/{MODEL}, api_base: "%s", api_key: {PROVIDER_KEY}}}
litellm_settings: {{set_verbose: false, json_logs: true, request_timeout: 600, num_retries: 0}}
general_settings: {{master_key: "{KEY}"}}
"""
_ENVIRON = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
}
_ROOM = {"MESHFLOW_MAX_CONCURRENT_RUNS": "64"}


@contextmanager
def litellm(home: Path, directory: Path, url: str) -> Iterator[int]:
    """The port of a LiteLLM proxy with one worker."""
    config = directory / "litellm.yaml"
    config.write_text(_CONFIG % url, encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command: list[str | Path] = [home / "bin" / "litellm", "--config", config]
    process = subprocess.Popen(
        [
            *command,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--num_workers",
            "1",
            "--telemetry",
            "False",
        ],
        env={"PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(directory), **_ENVIRON},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(port: int) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("LiteLLM did not start")


def _chat_job(port: int, connections: int) -> dict[str, object]:
    said = {"model": MODEL, "messages": [{"role": "user", "content": "Say a word."}]}
    body = json.dumps(said)
    head = (
        "POST /v1/chat/completions HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return {
        "port": port,
        "request": "\r\n".join((*head, "", body)),
        "expect": 200,
        "seconds": SECONDS,
        "connections": connections,
    }


def main() -> None:
    home = Path(sys.argv[1])
    told = subprocess.run(
        [home / "bin" / "pip", "list", "--format=freeze"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    version = next(line for line in told.splitlines() if line.startswith("litellm=="))
    print(f"LiteLLM: {version}, one worker, {_ENVIRON}, no database")
    print(f"MeshFlow: one worker, one fsync a step; {os.cpu_count()} processors for all of it")
    pairs: dict[int, list[tuple[dict[str, float], dict[str, float]]]] = {CONNECTIONS: [], 1: []}
    with (
        durable_database() as environ,
        tempfile.TemporaryDirectory() as made,
        provider() as url,
        litellm(home, Path(made), url) as port,
        bench_server("governed", Path(made), {**environ, **_ROOM, MESSAGES_URL: url}) as subject,
    ):
        for connections, found in pairs.items():
            for number in range(ROUNDS):
                other = load(_chat_job(port, connections))
                ours = load(asking_job(subject, SECONDS, connections))
                if number:  # the first round warms both
                    found.append((other, ours))
                print(f"by {connections}, {number}: LiteLLM {other} | MeshFlow {ours}")
    middle = statistics.median
    metrics = {
        "litellm_rps_ratio": middle(our["rps"] / other["rps"] for other, our in pairs[CONNECTIONS]),
        "litellm_p50_ratio": middle(our["p50_ms"] / other["p50_ms"] for other, our in pairs[1]),
    }
    floor = {
        "rps_16": middle(other["rps"] for other, _ in pairs[CONNECTIONS]),
        "p50_ms": middle(other["p50_ms"] for other, _ in pairs[1]),
    }
    report("litellm", metrics, floor)


if __name__ == "__main__":
    main()
