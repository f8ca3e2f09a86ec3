"""The tool `python` through the whole service: allowed, run confined, recorded with its engine."""

import errno
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.sandbox import runner_assembly
from app.sandbox.capabilities import Capabilities, Offer, probe
from app.sandbox.execution import EngineName
from app.sandbox.kernel_calls import Kernel
from app.sandbox.python_engine import PythonEngine
from app.sandbox.set_aside import PLACE
from app.tools.python_tool import python_spec
from app.tools.tool_contract import contract_gaps
from tests.integration.gate.gate_scenes import (
    ANSWER,
    files_under,
    headers_of,
    run_to_end,
    served_by_the_fake,
    told_results,
)
from tests.support import fake_messages_api as fake
from tests.support.databases import DatabaseServer, Roles, database_server
from tests.support.fake_messages_api import Call
from tests.support.live_server import live_server

DO_IT = {"instructions": "Work it out with Python."}


@pytest.fixture(scope="module")
def databases() -> Iterator[DatabaseServer]:
    with database_server() as server:
        yield server


@pytest.fixture
def roles(databases: DatabaseServer) -> Roles:
    return databases.new_database()


def _python(text: str, call_id: str = "toolu_9") -> Call:
    return Call(name="python", arguments={"code": text}, call_id=call_id)


def test_a_program_runs_confined_and_the_records_say_by_what_and_how(roles: Roles) -> None:
    script = [
        fake.tool_use(_python("open('made.txt', 'w').write('42')\nprint(6 * 7)", "toolu_1")),
        fake.tool_use(_python("print(open('made.txt').read(), open('/etc/passwd'))", "toolu_2")),
        fake.text(ANSWER),
    ]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
        files = files_under(live.workspace)
        listed = client.get("/v1/tools").json()["data"]
    assert ending.status == "succeeded"
    first, second = told_results(api)
    assert first == "42"
    assert "Permission denied" in second
    assert "[exit code 1]" in second
    assert list(files.values()) == ["42"]
    headers = headers_of(roles, ending)
    assert {header["sandbox"] for header in headers} == {"strict"}
    finished = [header for header in headers if header["kind"] == "tool.finished"]
    assert [header["engine"] for header in finished] == ["native", "native"]
    assert [header["outcome"] for header in finished] == ["ok", "error"]
    (tool,) = [tool for tool in listed if tool["name"] == "python"]
    assert tool["available"]
    assert "engine: native" in tool["description"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("exec('1')", "exec is not allowed"),
        ("x = 1\nprint(eval('1'))", "line 2: eval is not allowed"),
        ("import ctypes", "the module ctypes is not allowed"),
        ("().__class__.__bases__", "is not allowed"),
    ],
)
def test_the_first_layer_refuses_before_anything_runs(roles: Roles, text: str, told: str) -> None:
    script = [fake.tool_use(_python(f"{text}\nopen('x', 'w')")), fake.text(ANSWER)]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
        files = files_under(live.workspace)
    assert "refused before it ran" in told_results(api)[0]
    assert told in told_results(api)[0]
    assert ending.outcomes("tool.finished") == ["error"]
    assert files == {}


def test_a_file_of_the_file_tools_is_seen_and_the_other_way_round(roles: Roles) -> None:
    write = Call(name="write_file", arguments={"path": "d/a.txt", "content": "41"}, call_id="t1")
    read = Call(name="read_file", arguments={"path": "d/b.txt"}, call_id="t3")
    text = "n = int(open('d/a.txt').read())\nopen('d/b.txt', 'w').write(str(n + 1))"
    script = [
        fake.tool_use(write),
        fake.tool_use(_python(text)),
        fake.tool_use(read),
        fake.text(ANSWER),
    ]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        run_to_end(client, DO_IT)
    assert told_results(api)[-1] == "42"


def test_what_the_model_is_told_names_no_place_of_the_host(roles: Roles) -> None:
    script = [fake.tool_use(_python("import json\njson.loads('{')")), fake.text(ANSWER)]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        run_to_end(client, DO_IT)
        where = str(live.directory)
    told = told_results(api)[0]
    assert "JSONDecodeError" in told
    assert 'File "<python>' in told
    assert where not in told
    assert "/lib/python3" not in told


def test_without_walls_every_record_says_so(roles: Roles) -> None:
    script = [fake.tool_use(_python("print(open('/etc/passwd').read()[:4])")), fake.text(ANSWER)]
    with (
        served_by_the_fake(roles, script, None, MESHFLOW_SANDBOX="off-unsafe") as (live, api),
        live.client() as client,
    ):
        ending = run_to_end(client, DO_IT)
    assert told_results(api) == ["root"]
    assert {header["sandbox"] for header in headers_of(roles, ending)} == {"off-unsafe"}


def test_a_missing_layer_takes_the_tool_off_the_list_with_the_reason(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's answer is put in the place of this one's; everything after it is real."""

    def without(kernel: Kernel) -> Capabilities:
        return replace(probe(kernel), landlock=Offer(value=0, code=errno.ENOSYS))

    monkeypatch.setattr(runner_assembly, "probe", without)
    with live_server(roles, MESHFLOW_PYTHON_ENGINE="native") as live, live.client() as client:
        listed = client.get("/v1/tools").json()["data"]
        refused = client.post("/v1/runs", json={"task": "1", "tools": ["python"]})
    (tool,) = [tool for tool in listed if tool["name"] == "python"]
    assert not tool["available"]
    assert "Landlock" in tool["reason"]
    assert "ENOSYS" in tool["reason"]
    assert refused.status_code == 422


def test_the_other_interpreter_runs_when_it_is_asked_for_and_every_record_names_it(
    roles: Roles,
) -> None:
    script = [
        fake.tool_use(_python("open('made.txt', 'w').write('42')\n6 * 7", "toolu_1")),
        fake.tool_use(_python("print(open('/etc/passwd').read())", "toolu_2")),
        fake.text(ANSWER),
    ]
    chosen = {"MESHFLOW_PYTHON_ENGINE": "monty"}
    with served_by_the_fake(roles, script, None, **chosen) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
        files = files_under(live.workspace)
        listed = client.get("/v1/tools").json()["data"]
    first, second = told_results(api)
    assert first == "42"
    assert 'File "<python>", line 1' in second
    assert "PermissionError" in second
    assert list(files.values()) == ["42"]
    headers = headers_of(roles, ending)
    finished = [header for header in headers if header["kind"] == "tool.finished"]
    assert [header["engine"] for header in finished] == ["monty", "monty"]
    (tool,) = [tool for tool in listed if tool["name"] == "python"]
    assert "engine: monty, a part of Python" in tool["description"]
    assert "the workspace" in tool["description"]


def test_where_only_landlock_lacks_the_other_interpreter_takes_over_and_says_so(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(kernel: Kernel) -> Capabilities:
        return replace(probe(kernel), landlock=Offer(value=0, code=errno.EOPNOTSUPP))

    monkeypatch.setattr(runner_assembly, "probe", without)
    script = [fake.tool_use(_python("open('x', 'w')")), fake.text(ANSWER)]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
        listed = client.get("/v1/tools").json()["data"]
        files = files_under(live.workspace)
    assert "PermissionError" in told_results(api)[0]
    assert files == {}
    finished = [head for head in headers_of(roles, ending) if head["kind"] == "tool.finished"]
    assert [header["engine"] for header in finished] == ["monty"]
    (tool,) = [tool for tool in listed if tool["name"] == "python"]
    assert tool["available"]
    assert "engine: monty" in tool["description"]
    assert "there are no files" in tool["description"]


def test_without_a_provider_key_a_plain_request_runs_a_program(roles: Roles) -> None:
    with live_server(roles) as live, live.client() as client:
        ending = run_to_end(client, "run python: `print(6 * 7)`")
    assert "The program wrote: 42" in str(ending.run["output"])
    assert ending.outcomes("tool.finished") == ["ok"]


@pytest.mark.parametrize(
    "engine",
    [
        PythonEngine(),
        PythonEngine(name=EngineName.MONTY),
        PythonEngine(name=EngineName.MONTY, has_files=False),
    ],
)
def test_the_declaration_is_whole(engine: PythonEngine) -> None:
    assert list(contract_gaps(python_spec(engine))) == []


def test_what_a_server_that_died_had_set_aside_is_removed_by_the_next(
    roles: Roles, tmp_path: Path
) -> None:
    place = tmp_path / "workspaces"
    left = place / PLACE / f"{'a' * 32}.{'b' * 32}.{'c' * 32}" / "deep" / "er"
    left.mkdir(parents=True)
    (left / "file").touch()
    until = time.monotonic() + 60
    with (
        live_server(roles, MESHFLOW_WORKSPACE_DIR=str(place)) as live,
        live.client() as client,
    ):
        while any((place / PLACE).iterdir()) and time.monotonic() < until:
            client.get("/healthz")
        assert list((place / PLACE).iterdir()) == []
