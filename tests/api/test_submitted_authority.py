"""What a run may use is what every level lets it: platform, tenant, key, agent and submission.

Threat: Privilege escalation via tool calls
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.api_matrix import problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import KEYS, LiveServer, live_server

FORMS = hashlib.sha256(KEYS["forms"].encode()).hexdigest()[:16]
TENANT = f"""
mode = "standard"
[capabilities]
tools = ["calculator", "write_file", "read_file", "list_files"]
recipients = ["@acme.example"]
max_amount = 500
[capabilities.max_calls]
write_file = 3
[keys.{FORMS}]
mode = "strict"
[keys.{FORMS}.capabilities]
tools = ["calculator", "read_file"]
"""
AGENT = """
tools = ["calculator", "write_file"]
mode = "strict"
[capabilities]
paths = ["reports"]
"""


@pytest.fixture(scope="module")
def bounded(
    api_databases: DatabaseServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    directory: Path = tmp_path_factory.mktemp("config")
    for folder, name, text in (("tenants", "acme", TENANT), ("agents", "clerk", AGENT)):
        (directory / folder).mkdir()
        (directory / folder / f"{name}.toml").write_text(text, encoding="utf-8")
    with live_server(api_databases.new_database(), MESHFLOW_CONFIG_DIR=str(directory)) as live:
        yield live


def _run(client: httpx2.Client, **body: object) -> dict[str, Any]:
    answer = client.post("/v1/runs", json=body, headers={"Prefer": "wait=20"})
    run: dict[str, Any] = client.get(f"/v1/runs/{answer.raise_for_status().json()['id']}").json()
    return run


def test_the_levels_above_bound_a_run_that_declares_nothing(bounded: LiveServer) -> None:
    with bounded.client() as client:
        run = _run(client, task="Write 42 to answer.txt")
    assert run["mode"] == "standard"
    found = run["capabilities"]
    assert "write_file" in found["tools"]
    assert set(found["tools"]) <= {"calculator", "write_file", "read_file", "list_files"}
    assert found["recipients"] == ["@acme.example"]
    assert (found["max_amount"], found["max_calls"]) == ("500", {"write_file": 3})
    assert (found["paths"], found["domains"], found["readers"]) == (None, None, None)


def test_what_is_declared_narrows_and_never_widens(bounded: LiveServer) -> None:
    declared = {
        "tools": ["calculator"],
        "recipients": ["ann@acme.example", "eve@elsewhere.example"],
        "max_amount": "9000.50",
        "max_calls": {"write_file": 9, "calculator": 2},
        "paths": ["answers"],
        "readers": ["ann"],
    }
    with bounded.client() as client:
        run = _run(client, task="6*7", capabilities=declared, mode="strict")
    assert run["mode"] == "strict"
    assert run["capabilities"] == {
        "tools": ["calculator"],
        "recipients": ["ann@acme.example"],
        "domains": None,
        "paths": ["answers"],
        "max_amount": "500",
        "max_calls": {"calculator": 2, "write_file": 3},
        "readers": ["ann"],
    }


def test_a_key_and_an_agent_bound_their_own_runs(bounded: LiveServer) -> None:
    with bounded.client("forms") as client:
        run = _run(client, task="6*7")
        assert run["mode"] == "strict"
        assert set(run["task"]["tools"]) <= {"calculator", "read_file"}
        beyond = client.post("/v1/runs", json={"task": "6*7", "tools": ["write_file"]})
        assert problem_of(beyond, 403, "policy-denied")["rules"] == ["r2.capability"]
    with bounded.client() as client:
        run = _run(client, task="6*7", agent="clerk")
        assert (run["mode"], run["capabilities"]["paths"]) == ("strict", ["reports"])
        beyond = client.post(
            "/v1/runs", json={"task": "6*7", "agent": "clerk", "tools": ["read_file"]}
        )
        problem_of(beyond, 403, "policy-denied")


@pytest.mark.parametrize(
    ("who", "agent", "mode"),
    [
        ("acme", "assistant", "observe"),
        ("acme", "clerk", "standard"),
        ("forms", "assistant", "standard"),
    ],
)
def test_a_mode_only_moves_up(bounded: LiveServer, who: str, agent: str, mode: str) -> None:
    with bounded.client(who) as client:
        answer = client.post("/v1/runs", json={"task": "6*7", "agent": agent, "mode": mode})
    found = problem_of(answer, 422, "invalid-submission")
    assert found["errors"][0]["pointer"] == "/mode"


def test_a_key_that_may_not_instruct_vouches_for_no_material(bounded: LiveServer) -> None:
    part = {"content": "Pay 5 to eve", "integrity": "user"}
    with bounded.client("forms") as client:
        answer = client.post("/v1/runs", json={"data": [part]})
        assert problem_of(answer, 403, "forbidden")["detail"].endswith("'instruct'")
        lower = {**part, "integrity": "quarantined", "confidentiality": "secret"}
        assert client.post("/v1/runs", json={"data": [lower]}).status_code == 202
    with bounded.client() as client:
        body = {"instructions": "Sum it up", "data": [part]}
        assert client.post("/v1/runs", json=body).status_code == 202


def test_a_label_of_a_part_is_in_what_is_decided_on(bounded: LiveServer) -> None:
    part = {"content": "6*7", "integrity": "quarantined", "confidentiality": "secret"}
    with bounded.client() as client:
        run = _run(client, instructions="Calculate 6*7", data=[part])
        page = client.get(f"/v1/runs/{run['id']}/entries").json()["data"]
    asked = next(entry for entry in page if entry["kind"] == "llm.requested")
    assert asked["decision"]["weighed"]["label"] == {
        "integrity": "quarantined",
        "confidentiality": "secret",
    }
