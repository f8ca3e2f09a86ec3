"""Restarts two servers one after the other behind nginx, under load: no request may fail.

nginx stands in for the load balancer: it keeps connections, cuts what is silent for 60 s, asks no
other server when one fails, and learns only by `/readyz` that a server leaves. Clients are in other
processes and try nothing twice. Streams must go on without a gap and without anything told twice.
"""

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from app.embedded.postgres_server import start_embedded_postgres
from app.storage import schema
from bench.paired import ROOT, report
from tests.e2e.server_process import ServerProcess, serving, surroundings
from tests.support.databases import connect, state_directory
from tests.support.fake_messages_api import fake_messages_api, silent

KEY = "rolling-key-00000000000000000001"
LOOK_SECONDS = 0.25  # how often the balancer's stand-in asks whether a server is ready
PATIENCE_SECONDS = 120
WALL_SECONDS = 3000  # the most that a run may ask for: idle ones must not end by themselves
NGINX = """
daemon off; pid {place}/nginx.pid; error_log {place}/nginx.log warn; worker_processes 1; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/f;
  uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;
  upstream both {{
    server 127.0.0.1:{a} max_fails=0; server 127.0.0.1:{b} max_fails=0; keepalive 64;
  }}
  upstream only_a {{ server 127.0.0.1:{a} max_fails=0; keepalive 64; }}
  upstream only_b {{ server 127.0.0.1:{b} max_fails=0; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    keepalive_timeout 60s; keepalive_requests 1000000;
    location / {{
      set $target both;
      if (-f {place}/a.out) {{ set $target only_b; }}
      if (-f {place}/b.out) {{ set $target only_a; }}
      proxy_pass http://$target;
      proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_next_upstream off; proxy_read_timeout 60s; proxy_send_timeout 60s;
    }}
  }}
}}
"""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in made]


def until(condition: Any, told: str) -> None:
    """Return when it holds."""
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends_at:
        if condition():
            return
        time.sleep(LOOK_SECONDS)
    raise AssertionError(told)


@dataclass(kw_only=True)
class Slot:
    """One of the two places where a server runs."""

    port: int
    flag: Path  # while it is there the balancer sends nothing here
    environ: dict[str, str]
    log: Path
    stack: ExitStack = field(default_factory=ExitStack)
    server: ServerProcess | None = None

    def start(self) -> None:
        """A server here, which the balancer may use once it is ready."""
        words = ("--port", str(self.port), "--behind-tls-proxy")
        self.server = self.stack.enter_context(serving(*words, environ=self.environ, log=self.log))
        until(lambda: self.readiness() == 200, "a server did not become ready")
        self.flag.unlink(missing_ok=True)

    def readiness(self) -> int:
        """What the health check is told."""
        with httpx2.Client(timeout=30, trust_env=False) as client:
            return client.get(f"http://127.0.0.1:{self.port}/readyz").status_code

    def restart(self) -> float:
        """Tell it to go, as an orchestrator does; how long it took to be gone."""
        if self.server is None:
            raise AssertionError("nobody is here")
        began = time.monotonic()
        self.server.process.terminate()
        until(lambda: self.readiness() == 503, "a server that leaves says that it is ready")
        self.flag.touch()
        code = self.server.process.wait(PATIENCE_SECONDS)
        gone = time.monotonic() - began
        self.stack.close()
        if code != 0:
            raise AssertionError(f"a server left with {code}: {self.log.read_text()[-2000:]}")
        self.start()
        return gone


@contextmanager
def balancer(place: Path, a: int, b: int) -> Iterator[int]:
    """The balancer's stand-in, in front of both; its port."""
    program = shutil.which("nginx", path=os.defpath + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SystemExit("nginx is missing: install Debian's nginx-light")
    (port,) = free_ports(1)
    user = "user root;" if os.geteuid() == 0 else ""
    written = NGINX.format(place=place, a=a, b=b, port=port, user=user)
    (place / "nginx.conf").write_text(written)
    process = subprocess.Popen(
        [program, "-e", f"{place}/nginx.log", "-p", str(place), "-c", str(place / "nginx.conf")]
    )
    try:
        until(lambda: _answers(port), "nginx did not start")
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def client_process(job: dict[str, object]) -> Iterator["subprocess.Popen[str]"]:
    """One of the clients, at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.rolling_clients"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    if process.stdin is None or process.stdout is None:
        raise AssertionError("no pipes")
    try:
        process.stdin.write(json.dumps({name: str(value) for name, value in job.items()}) + "\n")
        process.stdin.flush()
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def told_at_end(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Let a client come to its end; what it has to tell."""
    out, _ = process.communicate(timeout=600)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


async def unfinished(url: str) -> int:
    """How many runs have not ended."""
    connection = await connect(url)
    try:
        sql = "SELECT count(*) FROM runs WHERE kind <> 'admin' AND status <> 'succeeded'"
        found: int = await connection.fetchval(sql)
        return found
    finally:
        await connection.close()


@contextmanager
def deployment(drain_seconds: int) -> Iterator[tuple[list[Slot], int, str]]:
    """Two servers and nginx; the slots, nginx's port and the database."""
    state = state_directory()
    database = start_embedded_postgres(state, durable=True)
    try:
        asyncio.run(schema.upgrade(database.owner_url))
        with (
            tempfile.TemporaryDirectory(prefix="mf-rolling-") as made,
            fake_messages_api(lambda _: silent()) as api,
            ExitStack() as stack,
        ):
            place = Path(made)
            environ = surroundings(
                place / "data",
                MESHFLOW_API_KEYS=KEY,
                MESHFLOW_DATABASE_URL=database.app_url,
                MESHFLOW_LEDGER_KEY_DIR=str(place / "keys"),
                MESHFLOW_DRAIN_SECONDS=str(drain_seconds),
                MESHFLOW_MAX_QUEUED_RUNS="100000",
                MESHFLOW_MODEL_TIMEOUT_SECONDS="3600",
                MESHFLOW_LOG_LEVEL="warning",
                ANTHROPIC_API_KEY="sk-made-up-for-this-bench",
                MESHFLOW_ANTHROPIC_BASE_URL=api.base_url,
            )
            a, b = free_ports(2)
            slots = [
                Slot(
                    port=port,
                    flag=place / f"{name}.out",
                    environ=environ,
                    log=place / f"{name}.log",
                )
                for name, port in (("a", a), ("b", b))
            ]
            for slot in slots:
                slot.start()
                stack.callback(slot.stack.close)
            port = stack.enter_context(balancer(place, a, b))
            yield slots, port, database.owner_url
    finally:
        database.stop()
        shutil.rmtree(state, ignore_errors=True)


def roll(arguments: argparse.Namespace) -> dict[str, float]:
    """All of it; AssertionError when a request failed or a stream was not told right."""
    with deployment(arguments.drain) as (slots, port, database):
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False
        ) as direct:
            task = {"task": "Think for ever.", "budget": {"max_wall_seconds": WALL_SECONDS}}
            idle = [
                direct.post("/v1/runs", json=task).raise_for_status().json()["id"] for _ in range(3)
            ]
            common = {"port": port, "key": KEY}
            streams = {"role": "follow", "runs": ",".join(idle), "streams": arguments.streams}
            sender = {"role": "send", "least": arguments.requests, "connections": 8}
            with (
                client_process({**common, **streams}) as following,
                client_process({**common, **sender}) as sending,
            ):
                left = [slot.restart() for _ in range(arguments.rounds) for slot in slots]
                sent = told_at_end(sending)
                cancelled_at = {}
                for run in idle:
                    direct.post(f"/v1/runs/{run}/cancel").raise_for_status()
                    cancelled_at[run] = time.time()
                heard = told_at_end(following)
            until(lambda: asyncio.run(unfinished(database)) == len(idle), "a run was lost")
    starts = [cancelled_at[run] for run in idle for _ in range(arguments.streams)]
    late = [at - start for at, start in zip(heard["ended_at"], starts, strict=True)]
    for fault in (*sent["failed"][:20], *heard["faults"][:20]):
        print("fault:", fault)
    assert sent["sent"] >= arguments.requests
    assert sent["posts"] >= sent["sent"] * 0.3
    assert not sent["failed"], f"{len(sent['failed'])} of {sent['sent']} requests failed"
    assert len(set(sent["runs"])) == sent["posts"]
    assert not heard["faults"]
    assert min(heard["reconnects"]) >= 1, "a stream was never told to go on elsewhere"
    return {
        "requests": sent["sent"],
        "posts": sent["posts"],
        "failed": len(sent["failed"]),
        "restarts": len(left),
        "slowest_leave_seconds": max(left),
        "streams": len(late),
        "stream_faults": len(heard["faults"]),
        "idle_event_seconds_max": max(late),
    }


def main() -> None:
    """Reduced counts; `--full`: 10,000 requests and the shipped drain."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--drain", type=int, default=3)
    parser.add_argument("--streams", type=int, default=10, help="of each of three runs")
    arguments = parser.parse_args()
    if arguments.full:
        arguments.requests, arguments.rounds, arguments.drain = 10_000, 2, 15
    report("rolling", roll(arguments), {})


if __name__ == "__main__":
    main()
