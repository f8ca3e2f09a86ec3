"""A task that was sent with a key is one run, though the server was killed while it came in."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.e2e.test_kill_nine import KEY, Stage, all_runs
from tests.support.api_matrix import patiently

KILLS = 2
POSTERS = 3
ANSWERS_BETWEEN_KILLS = 15
TASK = {"task": "1+1"}


@pytest.fixture
def stage() -> Iterator[Stage]:
    directory = Path(tempfile.mkdtemp(prefix="mf-ik-")).resolve()
    directory.chmod(0o711)  # the database's user passes through
    made = Stage(directory=directory)
    with made.servers:
        yield made
    shutil.rmtree(directory)


@dataclass(kw_only=True)
class Posters:
    """Clients that send one task after the other, each with a key, and never repeat one."""

    stage: Stage
    stopped: threading.Event = field(default_factory=threading.Event)
    sent: list[str] = field(default_factory=list)
    answered: dict[str, str] = field(default_factory=dict)

    def post_until_stopped(self) -> None:
        while not self.stopped.is_set():
            url = self.stage.url_file.read_text(encoding="utf-8")
            with httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:
                try:
                    self._post(client)
                except httpx2.TransportError:
                    self.stopped.wait(0.2)  # killed: nobody knows what became of that task

    def _post(self, client: httpx2.Client) -> None:
        while not self.stopped.is_set():
            key = str(uuid4())
            self.sent.append(key)
            answer = submit(client, key)
            if answer.status_code == httpx2.codes.ACCEPTED:
                self.answered[key] = answer.json()["id"]


def submit(client: httpx2.Client, key: str) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {KEY}", "Idempotency-Key": f'"{key}"'}
    return client.post("/v1/runs", json=TASK, headers=headers)


def _accepted(client: httpx2.Client, key: str) -> str:
    """The run of a key, as the server tells it at last."""
    for _ in patiently():
        answer = submit(client, key)
        if answer.status_code == httpx2.codes.ACCEPTED:
            return str(answer.json()["id"])
        assert answer.status_code in {409, 503}, answer.text
    raise AssertionError


def test_every_key_has_one_run_after_the_server_was_killed(stage: Stage) -> None:
    server = stage.start()
    posters = Posters(stage=stage)
    with ThreadPoolExecutor(max_workers=POSTERS) as threads:
        posting = [threads.submit(posters.post_until_stopped) for _ in range(POSTERS)]
        try:
            for _ in range(KILLS):
                enough = len(posters.answered) + ANSWERS_BETWEEN_KILLS
                for _ in patiently():
                    if len(posters.answered) >= enough:
                        break
                server.process.kill()
                server.process.wait()
                server = stage.start()
        finally:
            posters.stopped.set()
        for thread in posting:
            thread.result()
    assert len(posters.sent) > len(posters.answered) >= KILLS * ANSWERS_BETWEEN_KILLS
    with server.client(KEY) as client:
        runs = {key: _accepted(client, key) for key in posters.sent}
        assert posters.answered.items() <= runs.items()
        assert len(set(runs.values())) == len(runs)
        assert set(all_runs(client)) == set(runs.values())
