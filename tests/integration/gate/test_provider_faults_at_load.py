"""Faults of all four providers, sixty-four runs at once: each in its right end, and no leak.

The server runs on the loop of the test, so that its tasks can be counted; the fakes run in threads.
"""

import asyncio
import gc
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx2
import pytest
import uvicorn

from app.agents.model_retry import MOST_ATTEMPTS
from app.main import create_app
from app.providers.prices import MODELS, cost_micros
from tests.support import fake_messages_api as fake
from tests.support.databases import Roles, connect
from tests.support.fake_messages_api import FakeMessagesApi, Scenario, SeenRequest
from tests.support.live_server import KEYS, settings_for
from tests.support.provider_wires import (
    KEY,
    REGION,
    WIRES,
    Wire,
    reply,
    served,
    slow,
    status,
    truncated,
    unfinished,
)

pytestmark = pytest.mark.anyio

RUNS = 64
ANSWER = "All is well."
# What the task says that the provider should do -> the run's end.
ENDS = {
    "fine": ("succeeded", None),
    "limit": ("failed", "model.rate_limited"),
    "busy": ("failed", "model.overloaded"),
    "broken": ("failed", "model.server_error"),
    "cut": ("failed", "model.stream_broken"),
    "short": ("failed", "model.stream_broken"),
    "event": ("failed", "model.overloaded"),
    "garbage": ("failed", "model.malformed_reply"),
    "refuse": ("failed", "model.refused"),
    "hang": ("failed", "model.timeout"),
    "stall": ("failed", "model.timeout"),
}
# The API did not begin, and says nothing of a long wait: asked again.
AGAIN = frozenset({"busy", "broken"})
PAID = frozenset({"fine", "refuse"})  # a refusal is a whole reply, and is billed


def scenario_of(wire: Wire) -> Callable[[SeenRequest], Scenario]:
    """A provider that does what the task says."""
    known = {
        "limit": status(wire, 429, retry_after=3600),
        "busy": status(wire, wire.overloaded),
        "broken": status(wire, 500),
        "cut": truncated(wire),
        "short": unfinished(wire),
        "event": wire.error_event("overloaded"),
        "garbage": wire.malformed(),
        "refuse": reply(wire, "No.", stop="refusal"),
        "hang": fake.silent(),
        "stall": slow(wire),
    }
    return lambda seen: known.get(wire.told(seen).texts[0][1], reply(wire, ANSWER))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A server with all four providers, and what can be asked of the database."""

    client: httpx2.AsyncClient
    apis: dict[str, FakeMessagesApi]
    raw: asyncpg.Connection

    async def post(self, path: str, body: object) -> httpx2.Response:
        """One request, asked again as long as the server says that it has too much to do."""
        answer: httpx2.Response | None = None

        async def is_taken() -> bool:
            nonlocal answer
            answer = await self.client.post(path, json=body)
            return answer.status_code != httpx2.codes.SERVICE_UNAVAILABLE

        await until(is_taken, lambda: answer)
        assert answer is not None
        assert answer.is_success, answer.text
        return answer

    async def submit(self, tasks: Sequence[tuple[Wire, str]]) -> dict[str, tuple[Wire, str]]:
        """Start all at once; by the run's id, what it was."""

        async def one(wire: Wire, task: str) -> str:
            body = {"instructions": task, "model": wire.model}
            answer = await self.post("/v1/runs", body)
            return str(answer.json()["id"]).removeprefix("run_")

        ids = await asyncio.gather(*(one(wire, task) for wire, task in tasks))
        return dict(zip(ids, tasks, strict=True))

    async def ends(self, ids: Sequence[str]) -> dict[str, Any]:
        """The rows of these runs, once all are over."""
        query = (
            "SELECT replace(run_id::text, '-', '') AS id, status, error_code, cost_micros"
            " FROM runs WHERE replace(run_id::text, '-', '') = ANY($1)"
            " AND finished_at IS NOT NULL"
        )
        rows: list[Any] = []

        async def all_over() -> bool:
            nonlocal rows
            rows = await self.raw.fetch(query, list(ids))
            return len(rows) == len(ids)

        await until(all_over, lambda: f"{len(rows)} of {len(ids)} runs are over")
        return {row["id"]: row for row in rows}

    async def intents(self, ids: Sequence[str]) -> int:
        """How many calls of a model are recorded of these runs."""
        query = (
            "SELECT count(*) FROM record WHERE kind = 'llm.requested'"
            " AND replace(run_id::text, '-', '') = ANY($1)"
        )
        found: int = await self.raw.fetchval(query, list(ids))
        return found

    @property
    def requests(self) -> int:
        return sum(len(api.requests) for api in self.apis.values())


async def until(holds: Callable[[], Any], told: Callable[[], object]) -> None:
    """Wait until this holds, for as long as a loaded machine may need."""
    try:
        async with asyncio.timeout(240):
            while True:
                found = holds()
                if await found if asyncio.iscoroutine(found) else found:
                    return
                await asyncio.sleep(0.1)  # between two looks, not for anything to happen
    except TimeoutError:
        raise AssertionError(told()) from None


@asynccontextmanager
async def scene(
    roles: Roles, directory: Path, monkeypatch: pytest.MonkeyPatch, *, seconds: int
) -> AsyncIterator[Scene]:
    """Everything up, every SDK imported and every provider asked once."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTESTTEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    with ExitStack() as stack:
        apis = {wire.name: stack.enter_context(served(wire, scenario_of(wire))) for wire in WIRES}
        settings = settings_for(
            directory,
            roles,
            ANTHROPIC_API_KEY=KEY,
            OPENAI_API_KEY=KEY,
            GEMINI_API_KEY=KEY,
            MESHFLOW_BEDROCK_REGION=REGION,
            MESHFLOW_ANTHROPIC_BASE_URL=apis["anthropic"].base_url,
            MESHFLOW_OPENAI_BASE_URL=f"{apis['openai'].base_url}/v1",
            MESHFLOW_GEMINI_BASE_URL=apis["gemini"].base_url,
            MESHFLOW_BEDROCK_BASE_URL=apis["bedrock"].base_url,
            MESHFLOW_MODEL_TIMEOUT_SECONDS=str(seconds),
            MESHFLOW_LEASE_SECONDS="300",
            MESHFLOW_MAX_CONCURRENT_RUNS=str(RUNS),
        )
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(create_app(settings), log_config=None, access_log=False, lifespan="on")
        )
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        raw = await connect(roles.superuser)
        try:
            async with httpx2.AsyncClient(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
                headers={"Authorization": f"Bearer {KEYS['acme']}"},
                timeout=240,
                trust_env=False,
            ) as client:
                made = Scene(client=client, apis=apis, raw=raw)
                # The import of an SDK is no part of a deadline, so this cannot run into one twice.
                for wire in WIRES:
                    await made.ends(list(await made.submit([(wire, "warm-up")])))
                yield made
        finally:
            await raw.close()
            server.should_exit = True
            await serving
            listener.close()
        # With the server every connection to a provider is gone.
        gc.collect()
        await until(
            lambda: not any(api.open_connections for api in apis.values()),
            lambda: {name: api.open_connections for name, api in apis.items()},
        )


def tasks_now() -> Counter[str]:
    """The tasks of this loop, by what they do; those of the HTTP server come and go."""
    names = (getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
    return Counter(name for name in names if not name.startswith("RequestResponseCycle"))


async def no_task_is_left(before: Counter[str]) -> None:
    def more() -> Counter[str]:
        return tasks_now() - before

    await until(lambda: not more(), more)


def wave(kinds: Sequence[str]) -> list[tuple[Wire, str]]:
    """Sixty-four runs: the wires in turn, each with one kind after the other."""
    return [
        (WIRES[number % len(WIRES)], kinds[number // len(WIRES) % len(kinds)])
        for number in range(RUNS)
    ]


async def test_every_fault_ends_its_run_rightly_is_recorded_each_time_and_costs_what_was_billed(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = [kind for kind in ENDS if kind not in ("hang", "stall")]
    async with scene(roles, tmp_path, monkeypatch, seconds=240) as made:
        before = tasks_now()
        for _ in range(2):
            asked = made.requests
            runs = await made.submit(wave(kinds))
            rows = await made.ends(list(runs))
            for run_id, (wire, kind) in runs.items():
                row = rows[run_id]
                assert (row["status"], row["error_code"]) == ENDS[kind], (wire.name, kind)
                one = cost_micros(MODELS[wire.model], input_tokens=25, output_tokens=15)
                assert row["cost_micros"] == (one if kind in PAID else 0), (wire.name, kind)
            # A fault is never asked again behind the ledger's back.
            again = sum(kind in AGAIN for _, kind in runs.values())
            assert made.requests - asked == RUNS + again * (MOST_ATTEMPTS - 1)
            assert await made.intents(list(runs)) == made.requests - asked
            await no_task_is_left(before)
        # What is still open is idle, and no more than answered well at one time.
        await until(
            lambda: all(api.open_connections <= RUNS // len(WIRES) for api in made.apis.values()),
            lambda: [api.open_connections for api in made.apis.values()],
        )


async def test_answers_that_hang_end_at_the_deadline_and_leave_no_connection(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(roles, tmp_path, monkeypatch, seconds=2) as made:
        before, asked = tasks_now(), made.requests
        runs = await made.submit(wave(["hang", "stall"]))
        rows = await made.ends(list(runs))
        assert {(row["status"], row["error_code"]) for row in rows.values()} == {ENDS["hang"]}
        assert all(row["cost_micros"] == 0 for row in rows.values())
        await every_hanging_answer_was_given_up(made, asked)
        await no_task_is_left(before)


async def test_runs_that_are_cancelled_while_their_provider_hangs_leave_no_connection(
    roles: Roles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(roles, tmp_path, monkeypatch, seconds=3600) as made:
        before, asked = tasks_now(), made.requests
        runs = await made.submit(wave(["hang", "stall"]))
        await until(lambda: made.requests - asked == RUNS, lambda: made.requests)
        await asyncio.gather(*(made.post(f"/v1/runs/run_{run}/cancel", None) for run in runs))
        rows = await made.ends(list(runs))
        assert {row["status"] for row in rows.values()} == {"cancelled"}
        await every_hanging_answer_was_given_up(made, asked)
        await no_task_is_left(before)


async def every_hanging_answer_was_given_up(made: Scene, asked: int) -> None:
    """As many connections were closed by us as requests arrived: none was answered whole."""

    def given_up() -> int:
        return sum(api.abandoned for api in made.apis.values())

    await until(
        lambda: given_up() == made.requests - asked,
        lambda: (given_up(), made.requests - asked),
    )
