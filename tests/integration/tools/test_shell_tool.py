"""The tool `shell` through the whole service: read, allowed, run confined, its engine recorded."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.sandbox import runner_assembly
from app.tools.program_list import load_program_list
from app.tools.shell_tool import shell_spec
from app.tools.tool_contract import contract_gaps
from tests.integration.gate.gate_scenes import (
    ANSWER,
    Ending,
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

ROOT = Path(__file__).parents[3]
DO_IT = {"instructions": "Work it out in the shell."}


@pytest.fixture(scope="module")
def databases() -> Iterator[DatabaseServer]:
    with database_server() as server:
        yield server


@pytest.fixture
def roles(databases: DatabaseServer) -> Roles:
    return databases.new_database()


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """A configuration directory whose operator lists three programs."""
    path = tmp_path / "config"
    path.mkdir()
    lines = [f'[programs.{name}]\npath = "/usr/bin/{name}"\n' for name in ("cat", "sort", "find")]
    (path / "exec.toml").write_text("\n".join(lines))
    return path


def _shell(text: str, call_id: str = "toolu_9") -> Call:
    return Call(name="shell", arguments={"command": text}, call_id=call_id)


def _finished(roles: Roles, ending: Ending) -> list[dict[str, Any]]:
    headers = headers_of(roles, ending)
    return [header for header in headers if header["kind"] == "tool.finished"]


def _listed(live: Any, name: str = "shell") -> dict[str, Any]:
    with live.client() as client:
        (tool,) = [one for one in client.get("/v1/tools").json()["data"] if one["name"] == name]
    found: dict[str, Any] = tool
    return found


def test_a_command_runs_confined_and_the_records_say_by_what(roles: Roles) -> None:
    script = [
        fake.tool_use(_shell("seq 1 9 | paste -sd+ | bc > sum.txt; cat sum.txt; pwd", "toolu_1")),
        fake.tool_use(_shell("cat sum.txt; cat /etc/hostname; nosuch; exit 7", "toolu_2")),
        fake.text(ANSWER),
    ]
    with served_by_the_fake(roles, script) as (live, api), live.client() as client:
        ending = run_to_end(client, DO_IT)
        files = files_under(live.workspace)
        tool = _listed(live)
    assert ending.status == "succeeded"
    first, second = told_results(api)
    assert first == "45\n/workspace"
    assert "nosuch: command not found" in second
    assert "[exit code 7]" in second
    assert list(files.values()) == ["45\n"]
    finished = _finished(roles, ending)
    assert [header["engine"] for header in finished] == ["virtual", "virtual"]
    assert [header["outcome"] for header in finished] == ["ok", "error"]
    assert {header["sandbox"] for header in finished} == {"strict"}
    assert tool["available"]
    assert "engine: virtual" in tool["description"]


# The patterns that the security policy names, each in a few spellings.
SEED = {
    "rm -rf": ("rm -rf .", "rm -fr .", "rm -r -f .", "rm --recursive --force ."),
    "sudo": ("sudo ls", "/usr/bin/sudo ls", "echo x; sudo ls"),
    "chmod": ("chmod 777 a", "\\chmod +x a"),
    "curl": ("curl http://127.0.0.1/", "wget http://127.0.0.1/"),
    "pipe to shell": ("echo ls | sh", "cat a | bash", "cat a | /bin/sh -s"),
}


@pytest.mark.parametrize("pattern", SEED)
def test_the_patterns_of_the_security_policy_are_refused_before_anything_runs(
    roles: Roles, pattern: str
) -> None:
    calls = [
        fake.tool_use(_shell(f"echo x > made; {text}", f"toolu_{place}"))
        for place, text in enumerate(SEED[pattern])
    ]
    with served_by_the_fake(roles, [*calls, fake.text(ANSWER)]) as (live, api):
        with live.client() as client:
            ending = run_to_end(client, DO_IT)
        files = files_under(live.workspace)
    told = told_results(api)
    assert len(told) == len(calls)
    assert all(one.startswith("refused before it ran: ") for one in told), told
    assert ending.outcomes("tool.finished") == ["error"] * len(calls)
    assert files == {}


def test_the_operators_list_adds_to_what_is_refused(roles: Roles, tmp_path: Path) -> None:
    (tmp_path / "shell_refusals.toml").write_text('names = ["tac"]\n')
    script = [
        fake.tool_use(_shell("tac a", "toolu_1")),
        fake.tool_use(_shell("sudo ls", "toolu_2")),
        fake.text(ANSWER),
    ]
    settings = {"MESHFLOW_CONFIG_DIR": str(tmp_path)}
    with (
        served_by_the_fake(roles, script, None, **settings) as (live, api),
        live.client() as client,
    ):
        run_to_end(client, DO_IT)
    assert all(told.startswith("refused before it ran: ") for told in told_results(api))


def test_with_a_list_of_programs_the_shell_runs_those_and_says_so(
    roles: Roles, listing: Path
) -> None:
    write = Call(name="write_file", arguments={"path": "a.txt", "content": "b\na\n"}, call_id="t1")
    script = [
        fake.tool_use(write),
        fake.tool_use(_shell("sort a.txt", "t2")),
        fake.tool_use(_shell("sort a.txt | cat", "t3")),
        fake.tool_use(_shell("find . -exec cat a.txt ';'", "t4")),
        fake.tool_use(_shell("ls", "t5")),
        fake.text(ANSWER),
    ]
    settings = {"MESHFLOW_CONFIG_DIR": str(listing)}
    with (
        served_by_the_fake(roles, script, None, **settings) as (live, api),
        live.client() as client,
    ):
        ending = run_to_end(client, DO_IT)
        tool = _listed(live)
    _, sorted_text, piped, spawning, unlisted = told_results(api)
    assert sorted_text == "a\nb"
    assert "there is no shell here" in piped
    assert "refused before it ran" in spawning
    assert "there are: cat, find, sort" in unlisted
    assert [header["engine"] for header in _finished(roles, ending)[1:]] == ["exec"] * 4
    assert "engine: exec" in tool["description"]


def test_without_the_extra_the_tool_is_off_the_list_with_the_reason(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_assembly, "_BASHKIT", "0.0.1")
    with live_server(roles) as live, live.client() as client:
        tool = _listed(live)
        refused = client.post("/v1/runs", json={"task": "1", "tools": ["shell"]})
        assert _listed(live, "python")["available"]
    assert not tool["available"]
    assert "extra `shell`" in tool["reason"]
    assert refused.status_code == 422


def test_a_list_of_programs_needs_no_extra(
    roles: Roles, listing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_assembly, "_BASHKIT", "0.0.1")
    with live_server(roles, MESHFLOW_CONFIG_DIR=str(listing)) as live:
        assert _listed(live)["available"]


def test_without_a_provider_key_a_plain_request_runs_a_command(roles: Roles) -> None:
    with live_server(roles) as live, live.client() as client:
        ending = run_to_end(client, "run the shell command `echo $((6 * 7))`")
    assert "The program wrote: 42" in str(ending.run["output"])
    assert ending.outcomes("tool.finished") == ["ok"]
    # The server runs in this very process.
    assert not [name for name in sys.modules if name.partition(".")[0] == "bashkit"]


def test_nothing_that_a_server_loads_loads_the_interpreter() -> None:
    """A fault in it must be a fault of a worker."""
    asked = (
        "import sys, app.cli.entry, app.main, app.wiring, app.sandbox.engine_choice;"
        "print([name for name in sys.modules if 'bashkit' in name or 'virtual_shell' in name])"
    )
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_declarations_are_whole(listing: Path) -> None:
    for programs in (None, load_program_list(listing)):
        assert list(contract_gaps(shell_spec(programs))) == []
