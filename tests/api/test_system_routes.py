"""Liveness, readiness, version; what happens without a database, and when something breaks."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import app
from app import main, wiring
from app.embedded.postgres_server import EmbeddedPostgres, start_embedded_postgres
from app.main import create_app
from app.providers.scripted import ScriptedProvider
from app.settings import Settings
from app.storage import schema
from app.wiring import Overrides
from tests.api.conftest import ServerLog
from tests.support.api_matrix import finished, patiently, problem_of
from tests.support.databases import DatabaseServer, Roles, execute, state_directory
from tests.support.live_server import LiveServer, live_server, serving

PLANTED = "zqPlantedMark773190448261"


class BreakingProvider(ScriptedProvider):
    """A part that raises what nobody expects, in the middle of a request."""

    def __init__(self) -> None:
        super().__init__(())

    @property
    def name(self) -> str:
        raise ZeroDivisionError(PLANTED)


@pytest.fixture
def own_postgres() -> Iterator[Path]:
    """The state of a database server of the test's own, migrated, not running."""
    state = state_directory()
    server = start_embedded_postgres(state, durable=False)
    asyncio.run(schema.upgrade(server.owner_url))
    server.stop()
    yield state
    shutil.rmtree(state, ignore_errors=True)


def roles_of(server: EmbeddedPostgres) -> Roles:
    return Roles(
        app=server.app_url,
        owner=server.owner_url,
        audit=server.audit_url,
        superuser=server.superuser_url(),
    )


def test_the_three_open_routes_answer_without_a_key(live: LiveServer) -> None:
    with live.client(None) as client:
        well = {"status": "ok", "sandbox": "strict"}
        assert client.get("/healthz").json() == well
        assert client.get("/readyz").json() == well
        version = {"version": app.__version__, "ledger_format": "ledger/v1"}
        assert client.get("/version").json() == version


def test_every_answer_has_an_id_and_safe_headers(live: LiveServer) -> None:
    with live.client() as client:
        ids = set()
        for path in ("/healthz", "/version", "/v1/runs", "/v1/nothing", "/docs", "/nothing"):
            headers = client.get(path).headers
            ids.add(headers["x-request-id"])
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["x-frame-options"] == "DENY"
            assert (headers.get("cache-control") == "no-store") is path.startswith("/v1")
            assert "access-control-allow-origin" not in headers
    assert len(ids) == 6


def test_without_its_database_the_server_lives_and_says_so_and_comes_back(
    own_postgres: Path,
) -> None:
    first = start_embedded_postgres(own_postgres, durable=False)
    with live_server(roles_of(first)) as server, server.client() as client:
        before = finished(client, {"task": "6*7"})
        first.stop()
        assert client.get("/healthz").status_code == 200
        problem_of(client.get("/readyz"), 503, "unavailable")
        for _ in range(12):  # more often than the pool has connections
            refused = client.post("/v1/runs", json={"task": "6*7"})
            problem_of(refused, 503, "ledger-unavailable")
        path = f"/v1/runs/{before['id']}"
        for read in ("/v1/runs", path, f"{path}/entries", f"{path}/events", f"{path}/verification"):
            problem_of(client.get(read), 503, "ledger-unavailable")
        problem_of(client.post(f"{path}/cancel"), 503, "ledger-unavailable")
        assert client.get("/v1/tools").status_code == 200
        second = start_embedded_postgres(own_postgres, durable=False)
        try:
            assert second.app_url == first.app_url
            for _ in patiently():
                if client.get("/readyz").status_code == 200:
                    break
            after = finished(client, {"task": "6*7"})
            assert after["status"] == "succeeded"
            assert client.get(path).json() == before
            ids = [run["id"] for run in client.get("/v1/runs").json()["data"]]
            assert ids == [after["id"], before["id"]], "what was refused was not done"
        finally:
            second.stop()


def test_a_server_that_starts_before_its_database_becomes_ready_by_itself(
    own_postgres: Path,
) -> None:
    known = start_embedded_postgres(own_postgres, durable=False)
    roles = roles_of(known)
    known.stop()
    with live_server(roles) as server, server.client() as client:
        assert client.get("/healthz").status_code == 200
        problem_of(client.get("/readyz"), 503, "unavailable")
        problem_of(client.post("/v1/runs", json={"task": "1+1"}), 503, "ledger-unavailable")
        database = start_embedded_postgres(own_postgres, durable=False)
        try:
            for _ in patiently():
                if client.get("/readyz").status_code == 200:
                    break
            assert finished(client, {"task": "1+1"})["status"] == "succeeded"
        finally:
            database.stop()


def test_no_task_enters_before_the_key_that_signs_its_records_is_known(
    api_databases: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ledger could not be verified, and never would be if the process died just then."""
    monkeypatch.setattr(wiring, "KEY_RELOAD_SECONDS", 0.01)
    monkeypatch.setattr(main, "START_RETRY_SECONDS", 0.05)
    roles = api_databases.new_database()
    right = "EXECUTE ON FUNCTION writer_register(uuid, bytea, bytea)"
    asyncio.run(execute(roles.superuser, f"REVOKE {right} FROM mf_app"))
    file = tmp_path / "keys"
    keys = [f"acme-key-00000000000000000000{n:04}" for n in range(3)]
    file.write_text(f"acme:{keys[0]}\n")
    environ = {
        "MESHFLOW_API_KEYS_FILE": str(file),
        "MESHFLOW_DATABASE_URL": roles.app,
        "MESHFLOW_DATA_DIR": str(tmp_path / "data"),
    }
    settings = Settings.from_environ(environ, uid=1000, home=tmp_path)
    with (
        serving(create_app(settings)) as url,
        httpx2.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        headers = [{"Authorization": f"Bearer {key}"} for key in keys]
        for count in (2, 3):  # the second key is seen at a look after the one that saw the first
            file.write_text("".join(f"acme:{key}\n" for key in keys[:count]))
            for _ in patiently():
                if client.get("/v1/whoami", headers=headers[count - 1]).status_code != 401:
                    break
        problem_of(client.get("/readyz"), 503, "unavailable")
        refused = client.post("/v1/runs", json={"task": "1+1"}, headers=headers[0])
        problem_of(refused, 503, "ledger-unavailable")
        asyncio.run(execute(roles.superuser, f"GRANT {right} TO mf_app"))
        for _ in patiently():
            if client.get("/readyz").status_code == 200:
                break
        client.headers.update(headers[0])
        assert finished(client, {"task": "1+1"})["status"] == "succeeded"


def test_another_schema_revision_is_not_ready(api_databases: DatabaseServer) -> None:
    roles = api_databases.new_database()
    with live_server(roles) as server, server.client(None) as client:
        assert client.get("/readyz").status_code == 200
        change = "UPDATE alembic_version SET version_num = '{}'"
        asyncio.run(execute(roles.superuser, change.format("0000")))
        problem = problem_of(client.get("/readyz"), 503, "unavailable")
        assert "0000" in problem["detail"]
        assert client.get("/healthz").status_code == 200
        asyncio.run(execute(roles.superuser, change.format(schema.known_revision())))
        assert client.get("/readyz").status_code == 200


def test_what_nobody_expected_is_an_opaque_failure(
    api_databases: DatabaseServer, server_log: ServerLog
) -> None:
    parts = Overrides(providers={"scripted": BreakingProvider()}, default_model="scripted")
    with (
        live_server(api_databases.new_database(), parts) as server,
        server.client() as client,
    ):
        response = client.post("/v1/runs", json={"task": "taskWords1187"})
        problem = problem_of(response, 500, "internal")
        assert problem["detail"] == problem["title"]
        assert PLANTED not in response.text
        assert "ZeroDivision" not in response.text
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-frame-options"] == "DENY"
        assert client.get("/v1/runs").json()["data"] == []
        assert client.get("/v1/whoami").status_code == 200
    assert any("unexpected: ZeroDivisionError" in line for line in server_log.lines)
    assert not any("taskWords1187" in line for line in server_log.lines)


def test_a_failure_gives_its_place_in_the_queue_back(api_databases: DatabaseServer) -> None:
    parts = Overrides(providers={"scripted": BreakingProvider()}, default_model="scripted")
    limits = {"MESHFLOW_MAX_CONCURRENT_RUNS": "1", "MESHFLOW_MAX_QUEUED_RUNS": "0"}
    with (
        live_server(api_databases.new_database(), parts, **limits) as server,
        server.client() as client,
    ):
        answers: list[httpx2.Response] = [
            client.post("/v1/runs", json={"task": "1+1"}) for _ in range(3)
        ]
    assert {answer.status_code for answer in answers} == {500}
