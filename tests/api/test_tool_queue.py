"""Programs wait for a worker in a queue of 32; a run that would join a full one is told 429."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from tests.support.api_matrix import problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import live_server

# Two a processor run at a time, 32 wait.
ROOM = 2 * (os.cpu_count() or 1) + 32
SLEEPER = 'run python: "import time; time.sleep(9)"'


@contextmanager
def _sleepers(client: httpx2.Client) -> Iterator[httpx2.Response]:
    """Runs whose programs sleep, as many as are let in; the answer to the one that was not."""
    started: list[str] = []
    try:
        answer = client.get("/healthz")
        while len(started) < 3 * ROOM:
            answer = client.post("/v1/runs", json={"task": SLEEPER, "tools": ["python"]})
            if answer.status_code != 202:
                break
            started.append(answer.json()["id"])
        assert len(started) >= ROOM
        yield answer
    finally:
        for run in started:
            client.post(f"/v1/runs/{run}/cancel")


def test_a_run_that_would_join_a_full_queue_of_programs_is_told_to_come_back(
    api_databases: DatabaseServer,
) -> None:
    roles = api_databases.new_database()
    with (
        live_server(roles, MESHFLOW_MAX_CONCURRENT_RUNS="1000") as server,
        server.client() as client,
        _sleepers(client) as refused,
    ):
        problem_of(refused, 429, "tools-busy")
        assert refused.headers["retry-after"] == "1"
        before = len(client.get("/v1/runs?limit=200").json()["data"])
        # Nothing was written down for it, and what runs no program is not kept out.
        sums = client.post("/v1/runs", json={"task": "6*7", "tools": ["calculator"]})
        assert sums.status_code == 202
        assert len(client.get("/v1/runs?limit=200").json()["data"]) == before + 1
