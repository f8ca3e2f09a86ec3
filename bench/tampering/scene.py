"""The scene of the attacks: a real server on a real Postgres, three tenants and their runs.

The runs are real ones: submitted over HTTP, driven by the offline provider through some thirteen
tool calls, 53 records each, written by the server's own writer.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random  # noqa: TID251 - seeded positions, so that a finding can be had again
from typing import Any

import asyncpg
import httpx2
from fastapi import FastAPI

from app.domain.step import ModelReply
from app.domain.verdict import ClearedRequest
from app.main import create_app
from app.providers.offline import OfflineProvider
from app.providers.provider import ModelProvider
from app.settings import Settings
from app.wiring import Overrides
from bench.tampering.run_ref import RunRef
from tests.e2e.server_process import surroundings
from tests.support.databases import Roles, connect
from tests.support.live_server import serving

TENANTS = ("alpha", "beta", "gamma")
HELD = "Wait for me."
_AT_ONCE = 4
# What the schema cannot show, and what is known about its absence. Without its line here, the
# variants that wait for it are run.
MISSING: dict[str, str] = {}
_INVISIBLE = frozenset({"continuity", "output commitment"})


def key_of(tenant: str) -> str:
    return f"{tenant}-bench-key-0000000000000000000000001"


class HoldingProvider:
    """The offline provider, which never answers the last question of a task that says so."""

    def __init__(self) -> None:
        self._inner = OfflineProvider()

    @property
    def name(self) -> str:
        """As the provider it stands for."""
        return self._inner.name

    async def complete(self, cleared: ClearedRequest) -> ModelReply:
        """The answer, or nothing for ever."""
        reply = await self._inner.complete(cleared)
        if not reply.calls and any(
            HELD in getattr(message, "text", "") for message in cleared.request.messages
        ):
            await asyncio.Event().wait()
        return reply

    async def warm_up(self) -> None:
        """As the inner one."""
        await self._inner.warm_up()

    async def close(self) -> None:
        """As the inner one."""
        await self._inner.close()


@dataclass(slots=True, kw_only=True)
class Scene:
    """What attackers and judges share."""

    roles: Roles
    directory: Path
    url: str
    superuser: asyncpg.Connection
    rng: Random
    has: frozenset[str]  # which machinery there is
    parts: int = 4  # of a task; three tool calls and some twelve records each
    rivals: int = 0  # how many processes contend in class 40; 0: as many as the table says
    # Rows of the erased runs as they were before, by run and table: what a backup would hold.
    kept: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    runs: list[RunRef] = field(default_factory=list)

    @property
    def closed(self) -> list[RunRef]:
        """Runs that have ended."""
        return [run for run in self.runs if not run.open and not run.erased]

    @property
    def opened(self) -> list[RunRef]:
        """Runs that have not."""
        return [run for run in self.runs if run.open]

    def client(self, tenant: str) -> httpx2.AsyncClient:
        """A client with a tenant's key."""
        headers = {"Authorization": f"Bearer {key_of(tenant)}"}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=120, trust_env=False)

    async def close_all(self) -> None:
        """Cancel what is open and wait for its end: nothing is left that the server would drive."""
        for run in self.opened:
            async with self.client(run.tenant) as http:
                answer = await http.post(f"/v1/runs/{run.public}/cancel")
                # One that waited for long is over by its own budget, or for want of its process.
                while answer.json()["finished_at"] is None:
                    await asyncio.sleep(0.1)
                    answer = await http.get(f"/v1/runs/{run.public}")
        self.runs = [replace(run, open=False, fresh=False) for run in self.runs]

    async def erase(self, run: RunRef, erased: str) -> RunRef:
        """Lawfully, by the service; the run as it is afterwards."""
        action = {"anonymized": "anonymize_run", "deleted": "delete_run"}[erased]
        body: dict[str, object] = {"action": action, "run_id": run.public}
        body |= {"legal_basis": "gdpr.art17", "request_ref": "the attack bench"}
        if action == "anonymize_run":
            body["fields"] = ["task", "output"]
        async with self.client(run.tenant) as http:
            asked = await http.post("/v1/erasures", json=body)
            assert asked.status_code == 202, asked.text
            status = ""
            while status not in {"pending", "complete"}:
                await asyncio.sleep(0.1)
                status = (await http.get(asked.headers["location"])).json()["status"]
                assert status != "refused"
        return replace(run, erased=erased)

    def server(self) -> AbstractContextManager[str]:
        """Another server on the same rows and keys; nothing remembered."""
        return serving(_app(self.directory, self.roles))


def _task(number: int, count: int, *, held: bool) -> str:
    parts = [
        f"Calculate {number + i}*{i + 3} and write the result to a{i}.txt. Then read a{i}.txt."
        for i in range(count)
    ]
    return " Then ".join([parts[0], *(part[0].lower() + part[1:] for part in parts[1:])]) + (
        f" {HELD}" if held else ""
    )


def settings_for(directory: Path, roles: Roles, **more: str) -> Settings:
    names = {
        "MESHFLOW_API_KEYS": ",".join(f"{tenant}:{key_of(tenant)}" for tenant in TENANTS),
        "MESHFLOW_DATABASE_URL": roles.app,
        "MESHFLOW_DATA_DIR": str(directory / "data"),
        "MESHFLOW_LEDGER_KEY_DIR": str(directory / "keys"),
        "MESHFLOW_MODEL_TIMEOUT_SECONDS": "3000",
        "MESHFLOW_LOG_LEVEL": "critical",
        **more,
    }
    return Settings.from_environ(names, uid=1000, home=directory)


def process_environ(directory: Path, roles: Roles, **more: str) -> dict[str, str]:
    """The same settings for a process of its own, with the plain offline provider."""
    return surroundings(
        directory / "data",
        MESHFLOW_API_KEYS=",".join(f"{tenant}:{key_of(tenant)}" for tenant in TENANTS),
        MESHFLOW_DATABASE_URL=roles.app,
        MESHFLOW_LEDGER_KEY_DIR=str(directory / "keys"),
        MESHFLOW_LOG_LEVEL="critical",
        **more,
    )


async def _submit(scene: Scene, tenant: str, number: int, *, held: bool) -> str:
    async with scene.client(tenant) as http:
        headers = {} if held else {"Prefer": "wait=30"}
        body = {
            "task": _task(number, scene.parts, held=held),
            "metadata": {"n": number},
            "budget": {"max_wall_seconds": 3000},
        }
        answer = await http.post("/v1/runs", json=body, headers=headers)
        assert answer.status_code == (202 if held else 200), answer.text
        public: str = answer.json()["id"]
        entries = -1
        while held:
            page = (await http.get(f"/v1/runs/{public}/entries", params={"limit": 200})).json()
            if len(page["data"]) == entries and page["data"][-1]["kind"] == "llm.requested":
                break
            entries = len(page["data"])
            await asyncio.sleep(0.1)
    return public.removeprefix("run_")


async def populate(scene: Scene, runs_each: int, open_each: int) -> None:
    """Submit the runs of all tenants and wait for their ends, or for the open ones to hang."""
    logs = await logs_of(scene)
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(tenant: str, number: int, *, held: bool) -> RunRef:
        async with turn:
            run = await _submit(scene, tenant, number, held=held)
            return RunRef(tenant=tenant, log=logs[tenant], run=run, open=held)

    wanted = [
        one(tenant, number, held=number >= runs_each - open_each)
        for tenant in TENANTS
        for number in range(runs_each)
    ]
    scene.runs = list(await asyncio.gather(*wanted))


async def leave_fresh(scene: Scene) -> None:
    """One more open run of each tenant, once nobody sequences."""
    logs = await logs_of(scene)
    for tenant in TENANTS:
        run = await _submit(scene, tenant, 8, held=True)
        scene.runs.append(RunRef(tenant=tenant, log=logs[tenant], run=run, open=True, fresh=True))


async def submitted(scene: Scene, tenant: str, number: int, *, wait: bool = False) -> RunRef:
    """An ordinary run, at its end or just begun."""
    async with scene.client(tenant) as http:
        answer = await http.post(
            "/v1/runs",
            json={"task": _task(number, scene.parts, held=False), "metadata": {"n": number}},
            headers={"Prefer": "wait=30"} if wait else {},
        )
    assert answer.status_code in {200, 202}, answer.text
    logs = await logs_of(scene)
    return RunRef(
        tenant=tenant, log=logs[tenant], run=str(answer.json()["id"]).removeprefix("run_")
    )


async def ended(scene: Scene, run: RunRef) -> bool:
    """Whether the run is over."""
    async with scene.client(run.tenant) as http:
        status = (await http.get(f"/v1/runs/{run.public}")).json()["status"]
    return status not in {"queued", "running"}


async def erase_some(scene: Scene) -> None:
    """One run of each tenant loses two fields, one is deleted: by the service, on request."""
    for tenant in TENANTS:
        for erased in ("anonymized", "deleted"):
            ref = await submitted(scene, tenant, 7, wait=True)
            scene.kept[ref.run] = {
                table: [dict(row) for row in await _rows(scene, table, ref)]
                for table in ("record", "payload", "runs", "run_key")
            }
            scene.runs.append(await scene.erase(ref, erased))


async def logs_of(scene: Scene) -> dict[str, str]:
    """The id of each tenant's log."""
    return {row["name"]: row["tenant_id"].hex for row in await _tenants(scene)}


async def _rows(scene: Scene, table: str, run: RunRef) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await scene.superuser.fetch(
        f"SELECT * FROM {table} WHERE tenant_id = $1 AND run_id = $2",  # noqa: S608 - names from above
        *run.ids,
    )
    return found


async def _tenants(scene: Scene) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await scene.superuser.fetch(
        "SELECT name, tenant_id FROM tenants WHERE name = ANY ($1)", list(TENANTS)
    )
    return found


async def machinery(superuser: asyncpg.Connection) -> frozenset[str]:
    """What the schema shows to be there; classes without their machinery are open."""
    shown = await superuser.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public'"
    )
    marks = {"log": ("leaf", "idx"), "certificates": ("writer_key", "certificate")}
    marks["erasure"] = ("erasure", "tenant_id")
    columns = {(row[0], row[1]) for row in shown}
    there = frozenset(name for name, mark in marks.items() if mark in columns)
    return there | (_INVISIBLE - MISSING.keys())


def _app(directory: Path, roles: Roles) -> FastAPI:
    providers: dict[str, ModelProvider] = {"offline": HoldingProvider()}
    settings = settings_for(
        directory,
        roles,
        MESHFLOW_ERASER_DATABASE_URL=roles.eraser,
        MESHFLOW_ERASURE_KEY_FILE=str(directory / "erasure" / "key"),
    )
    return create_app(settings, overrides=Overrides(providers=providers))


@asynccontextmanager
async def scene(roles: Roles, seed: int, *, parts: int = 4) -> AsyncIterator[Scene]:
    """A server and no runs yet; taken down at the end."""
    with tempfile.TemporaryDirectory(prefix="mf-attack-") as made:
        directory = Path(made)
        (directory / "erasure").mkdir(mode=0o700)
        superuser = await connect(roles.superuser)
        try:
            with serving(_app(directory, roles)) as url:
                stage = Scene(
                    roles=roles,
                    directory=directory,
                    url=url,
                    superuser=superuser,
                    rng=Random(seed),
                    parts=parts,
                    has=await machinery(superuser),
                )
                yield stage
        finally:
            await superuser.close()
