"""`meshflow erase` and `meshflow eraser` on a deployment's own database and keys."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from app.cli.arguments import build_parser
from app.cli.entry import COMMANDS
from app.cli.invocation import Invocation
from app.domain.errors import ConfigurationError, NotFoundError
from tests.security.tampering_scene import attack, disarm, finished_run, verification
from tests.support.databases import DatabaseServer, database_server
from tests.support.live_server import KEY_ITEMS, LiveServer, live_server

WHY = ("--tenant", "acme", "--legal-basis", "gdpr.art17", "--request-ref", "ticket 4711")


@pytest.fixture(scope="module")
def databases() -> Iterator[DatabaseServer]:
    with database_server() as server:
        yield server


@pytest.fixture
def live(databases: DatabaseServer) -> Iterator[LiveServer]:
    with live_server(databases.new_database()) as served:
        yield served


def _environ(live: LiveServer) -> dict[str, str]:
    return {
        "MESHFLOW_API_KEYS": KEY_ITEMS,
        "MESHFLOW_DATABASE_URL": live.roles.app,
        "MESHFLOW_ERASER_DATABASE_URL": live.roles.eraser,
        "MESHFLOW_ERASURE_KEY_FILE": str(live.directory / "erasing" / "key"),
        "MESHFLOW_DATA_DIR": str(live.directory / "data"),
        "MESHFLOW_LEDGER_KEY_DIR": str(live.keys),
    }


def _command(environ: Mapping[str, str], *words: str) -> int:
    arguments = build_parser().parse_args(words)
    return COMMANDS[arguments.command](
        Invocation(environ=environ, uid=1000, home=Path("/nowhere")), arguments
    )


def test_a_run_is_anonymized_and_then_deleted(
    live: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run, environ = finished_run(live), _environ(live)
    field = ("--field", "output")
    assert _command(environ, "erase", "anonymize-run", run.public, *field, *WHY) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["action"], told["status"]) == ("anonymize_run", "pending")
    assert told["due_at"] > told["executed_at"]
    assert _command(environ, "eraser", "--once") == 0
    assert capsys.readouterr().out == "requests: 0\nkeys ended: 2\n"
    assert _command(environ, "erase", "delete-run", run.public, "--rotate", *WHY) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], told["due_at"]) == ("complete", None)
    assert verification(live, run).verdict == "valid"
    assert _command(environ, "eraser", "--once", "--replay") == 0
    assert capsys.readouterr().out.startswith("erased again: 0\n")


def test_a_broken_run_is_erased_by_force_only_and_that_is_recorded(
    live: LiveServer, capsys: pytest.CaptureFixture[str]
) -> None:
    run, environ = finished_run(live), _environ(live)
    disarm(live.roles)
    attack(live.roles, "UPDATE record SET kind = 'x' WHERE run_id = $1 AND seq = 2", run.run_id)
    delete = ("erase", "delete-run", run.public, *WHY)
    assert _command(environ, *delete) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "broken_at_2"
    with pytest.raises(ConfigurationError, match="owner's login"):
        _command(environ, *delete, "--force")
    with pytest.raises(ConfigurationError, match="owner's login"):
        _command({**environ, "MESHFLOW_OWNER_DATABASE_URL": live.roles.app}, *delete, "--force")
    owner = {**environ, "MESHFLOW_OWNER_DATABASE_URL": live.roles.owner}
    assert _command(owner, *delete, "--force") == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "forced_erasure"
    alarm = "UPDATE record SET seq = seq WHERE kind = 'integrity.alarm' AND $1::uuid IS NOT NULL"
    attack(live.roles, alarm, run.run_id, rows=1)


def test_a_tenant_is_deleted_by_name(live: LiveServer, capsys: pytest.CaptureFixture[str]) -> None:
    finished_run(live)
    environ = _environ(live)
    with pytest.raises(NotFoundError):
        _command(environ, "erase", "delete-tenant", "--tenant", "nobody", *WHY[2:])
    assert _command(environ, "erase", "delete-tenant", "--rotate", *WHY) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["action"], told["status"]) == ("delete_tenant", "complete")


def test_without_the_eraser_s_own_login_and_key_nothing_is_erased(live: LiveServer) -> None:
    run, environ = finished_run(live), _environ(live)
    for name in ("MESHFLOW_ERASER_DATABASE_URL", "MESHFLOW_ERASURE_KEY_FILE"):
        short = {key: value for key, value in environ.items() if key != name}
        with pytest.raises(ConfigurationError, match="erasing needs"):
            _command(short, "erase", "delete-run", run.public, *WHY)
        with pytest.raises(ConfigurationError, match="erasing needs"):
            _command(short, "eraser", "--once")
