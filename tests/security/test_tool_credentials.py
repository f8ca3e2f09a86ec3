"""A credential of the web tool, through a whole run: it reaches its host and stands nowhere else.

The host repeats every request that it gets, the model repeats what it read, and then everything
that was kept, told or logged is searched. The gate comes first: without its yes nothing is looked
up and nothing is sent.

Threat: Exfiltration via web/shell tools
"""

import base64
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from app.domain.step import ModelReply, ModelRequest, ResultsMessage
from app.providers.scripted import ScriptedProvider
from app.wiring import Overrides
from tests.integration.gate.gate_scenes import rows
from tests.support.api_matrix import calls, finished, says
from tests.support.databases import Roles
from tests.support.egress_field import Field, field_beside
from tests.support.egress_tls import field_tls
from tests.support.live_server import LiveServer, live_server

SECRET = "tok-5d1f0c3b7a9e2468"
FORMS = (SECRET, base64.b64encode(SECRET.encode()).decode().rstrip("="), SECRET.upper())
URL = "https://www.allowed.example/echo"
AWAY = f"https://www.allowed.example/to?{b'https://other.allowed.example/echo'.hex()}"


class Log(logging.Handler):
    """Everything that anybody logs, at the most talkative level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A server whose model fetches what it is told to, beside a field."""

    server: LiveServer
    field: Field
    provider: ScriptedProvider
    log: Log
    url: str

    def run(self, who: str = "acme") -> tuple[dict[str, object], list[dict[str, object]]]:
        """A whole run and its entries."""
        with self.server.client(who) as client, self.server.client("audit") as auditor:
            run = finished(client, {"task": f"Fetch {self.url} for me."})
            entries = auditor.get(f"/v1/runs/{run['id']}/entries")
            assert entries.status_code == 200, entries.text
            return run, entries.json()["data"]


def _repeats(request: ModelRequest) -> ModelReply:
    """A model that says what it read, to the letter."""
    last = request.messages[-1]
    assert isinstance(last, ResultsMessage)
    return says(last.results[0].content)


@pytest.fixture
def scene(roles: Roles, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    urls: tuple[str, ...] = request.param
    bindings = tmp_path / "bindings"
    bindings.write_text(f"http_fetch www.allowed.example Authorization: Bearer {SECRET}\n")
    provider = ScriptedProvider([calls("http_fetch", url=urls[0]), _repeats])
    log, root = Log(), logging.getLogger()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        with field_beside(*field_tls()) as field:
            overrides = Overrides(
                providers={"scripted": provider}, default_model="scripted", egress=field.parts
            )
            with live_server(
                roles,
                overrides,
                MESHFLOW_FETCH_HOSTS="*.allowed.example",
                MESHFLOW_TOOL_CREDENTIALS_FILE=str(bindings),
            ) as server:
                yield Scene(server=server, field=field, provider=provider, log=log, url=urls[0])
    finally:
        root.setLevel(level)
        root.removeHandler(log)


def _everything_kept(roles: Roles) -> str:
    tables = rows(
        roles,
        "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    )
    assert len(tables) > 5
    return "\n".join(
        str(row["text"])
        for table in tables
        for row in rows(roles, f"SELECT t::text AS text FROM {table['name']} t")
    )


@pytest.mark.parametrize("scene", [(URL,)], indirect=True)
def test_it_reaches_its_host_and_stands_nowhere_else(scene: Scene) -> None:
    run, entries = scene.run()
    heads = [head.decode() for head in scene.field.secure.heads]
    assert [head.count(f"Bearer {SECRET}") for head in heads] == [1]
    assert run["status"] == "succeeded"
    assert "Authorization: [credential]" in str(run["output"])
    kinds = [entry["kind"] for entry in entries]
    assert kinds.index("tool.decided") < kinds.index("tool.finished")
    places = {
        "what the model was told": repr(scene.provider.requests),
        "the run": json.dumps(run),
        "the ledger": json.dumps(entries),
        "the database": _everything_kept(scene.server.roles),
        "the log": "\n".join(scene.log.lines),
        "the environment": repr(dict(os.environ)),  # noqa: TID251  # it is searched, not read
        "the workspace": "".join(map(str, scene.server.workspace.rglob("*"))),
    }
    found = [(place, form) for place, text in places.items() for form in FORMS if form in text]
    assert found == []


@pytest.mark.parametrize("scene", [(AWAY,)], indirect=True)
def test_behind_a_redirect_to_another_host_it_is_not_sent(scene: Scene) -> None:
    run, _ = scene.run()
    heads = [head.decode() for head in scene.field.secure.heads]
    assert [SECRET in head for head in heads] == [True, False]
    assert "Host: other.allowed.example" in heads[1]
    assert "Host: other.allowed.example" in str(run["output"])


@pytest.mark.parametrize("scene", [(URL,)], indirect=True)
def test_the_gate_comes_before_the_first_lookup(scene: Scene) -> None:
    run, entries = scene.run("forms")
    assert scene.field.dns.asked == []
    assert scene.field.dial.dialled == []
    decided = next(entry for entry in entries if entry["kind"] == "tool.decided")
    assert "effect_without_authority" in json.dumps(decided)
    told = scene.provider.requests[1].messages[-1]
    assert isinstance(told, ResultsMessage)
    assert told.results[0].is_error
    assert run["status"] == "succeeded"


@pytest.mark.parametrize("scene", [("http://169.254.169.254/latest/meta-data/",)], indirect=True)
def test_a_refusal_is_told_to_the_model_and_recorded_without_an_inside(scene: Scene) -> None:
    run, entries = scene.run()
    assert (scene.field.dns.asked, scene.field.dial.dialled) == ([], [])
    assert "not on the list of allowed hosts" in str(run["output"])
    finished_ = next(entry for entry in entries if entry["kind"] == "tool.finished")
    assert "not on the list of allowed hosts" in json.dumps(finished_)


@pytest.mark.parametrize("scene", [(URL,)], indirect=True)
def test_the_catalogue_shows_the_tool_and_no_credential(scene: Scene) -> None:
    with scene.server.client() as client:
        listed = client.get("/v1/tools")
    tool = next(one for one in listed.json()["data"] if one["name"] == "http_fetch")
    assert (tool["available"], tool["effect"]) == (True, "network")
    assert SECRET not in listed.text


def test_without_allowed_hosts_the_catalogue_says_why_there_is_no_tool(roles: Roles) -> None:
    with live_server(roles) as server, server.client() as client:
        listed = client.get("/v1/tools")
        refused = client.post("/v1/runs", json={"task": "x", "tools": ["http_fetch"]})
    tool = next(one for one in listed.json()["data"] if one["name"] == "http_fetch")
    assert tool["available"] is False
    assert "MESHFLOW_FETCH_HOSTS" in tool["reason"]
    assert refused.status_code in {403, 422}, httpx2.codes(refused.status_code)
