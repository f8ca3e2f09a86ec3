"""`meshflow policy`: a policy from its file to a server, and what each step says on the way."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.bundles.policy_example import POLICY_EXAMPLE
from app.cli.arguments import build_parser
from app.cli.invocation import CommandError, Invocation
from app.cli.policy_command import PENDING, policy
from tests.api.test_policies import SECOND
from tests.support.api_matrix import finished
from tests.support.databases import DatabaseServer
from tests.support.live_server import KEY_ITEMS, KEYS, LiveServer, live_server

Say = Callable[..., int]
TOML = """
id = "{name}"
[[tenant_rules]]
id = "own.no-sums"
point = "tool.call"
when = 'tool.name == "calculator"'
verdict = "deny"
reason = "own:rule"
"""


@pytest.fixture(scope="module")
def server(api_databases: DatabaseServer) -> Iterator[LiveServer]:
    items = f"{KEY_ITEMS},acme:policy:{SECOND}"
    with live_server(api_databases.new_database(), MESHFLOW_API_KEYS=items) as running:
        yield running


@pytest.fixture
def say(server: LiveServer, tmp_path: Path) -> Say:
    def said(*words: str, key: str | None = None) -> int:
        given = ["policy", *words]
        if key is not None:
            file = tmp_path / "key"
            file.write_text(key, encoding="ascii")
            given += ["--url", server.url, "--key-file", str(file)]
        invocation = Invocation(environ={}, uid=1000, home=tmp_path)
        return policy(invocation, build_parser().parse_args(given))

    return said


def written(place: Path, text: str) -> str:
    place.write_text(text, encoding="utf-8")
    return str(place)


def test_lint_tells_the_digest_and_what_no_case_looks_at(
    say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say("lint", written(tmp_path / "a.json", json.dumps(POLICY_EXAMPLE))) == 0
    told = capsys.readouterr()
    assert told.out.startswith("default: ")
    assert told.err == ""
    assert say("lint", written(tmp_path / "a.toml", TOML.format(name="office"))) == 0
    told = capsys.readouterr()
    assert told.out.startswith("office: ")
    assert told.err == "own.no-sums: no golden case at tool.call\n"


def test_lint_names_every_part_that_is_amiss(
    say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = TOML.format(name="office").replace("tool.name", "tool.nme")
    with pytest.raises(CommandError) as raised:
        say("lint", written(tmp_path / "bad.toml", bad))
    assert raised.value.exit_code == 1
    assert capsys.readouterr().err == "/tenant_rules/0/when: no such part: nme\n"
    with pytest.raises(CommandError) as raised:
        say("lint", str(tmp_path / "nowhere.toml"))
    assert raised.value.exit_code == 2


def test_test_asks_the_golden_cases(
    say: Say, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = json.dumps(POLICY_EXAMPLE)
    assert say("test", written(tmp_path / "a.json", good)) == 0
    assert capsys.readouterr().out.endswith("1 of 1 golden cases are kept\n")
    assert say("test", written(tmp_path / "a.json", good.replace(">= 3", ">= 4"))) == 1
    assert "NOT  a-fourth-file: allow (allow), wants require_approval" in capsys.readouterr().out


def test_a_policy_goes_from_its_file_into_force_and_is_loosened_by_two(
    say: Say, tmp_path: Path, server: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    own = KEYS["acme"]
    strict = written(tmp_path / "strict.toml", TOML.format(name="default"))
    open_one = written(tmp_path / "open.json", json.dumps({"description": "nothing of our own"}))
    with server.client("acme") as client:
        run = finished(client, {"task": "6*7"})
    assert say("simulate", strict, key=own) == 0
    told = capsys.readouterr().out
    assert "tool.call                allow -> deny: 1" in told
    assert f"{run['id']} seq" in told
    assert say("simulate", strict, "--json", "--since", "2026-01-01T00:00:00Z", key=own) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == 1
    assert say("activate", strict, key=own) == 0
    assert capsys.readouterr().out.endswith(": active\n")
    assert say("activate", open_one, key=own) == PENDING
    told_of = capsys.readouterr()
    assert told_of.out.endswith(": pending\n")
    assert "it loosens rule:own.no-sums" in told_of.err
    words = told_of.err.split()
    assert words[-5:-1] == ["meshflow", "policy", "confirm", "default"]
    with pytest.raises(CommandError, match="403 second-person"):
        say("confirm", "default", words[-1], key=own)
    assert say("confirm", "default", words[-1], key=SECOND) == 0
    assert capsys.readouterr().out.endswith(": active\n")
