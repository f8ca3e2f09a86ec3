"""`meshflow run`, `verify`, `db`, `openapi` and the rest, as commands of their own."""

import asyncio
import re
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from app.embedded.postgres_server import EmbeddedPostgres
from app.storage.schema import known_revision
from tests.e2e.server_process import Finished, ServerProcess, run_command, serving, surroundings

KEY = "command-line-key-0000000000000001"


@pytest.fixture
def key_file(dev_server: ServerProcess, tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(dev_server.submit_key + "\n", encoding="ascii")
    return path


def run_of(done: Finished) -> str:
    found = re.search(r"run_[0-9a-f]{32}", done.out + done.err)
    assert found is not None, done
    return found.group()


def test_run_follows_a_task_to_its_output(
    dev_server: ServerProcess, environ: dict[str, str], key_file: Path
) -> None:
    words = ("--url", dev_server.url, "--key-file", str(key_file))
    done = run_command("run", "Calculate 6*7 and write it to answer.txt", *words, environ=environ)
    assert done.code == 0, done.err
    assert "6*7 = 42" in done.out
    told = [line.split()[0] for line in done.err.splitlines()[1:]]
    assert told[0] == "run.submitted"
    assert told[-1] == "run.finished"
    assert "calculator: allow" in done.err
    assert dev_server.submit_key not in done.out + done.err


def test_a_run_that_does_not_succeed_is_exit_code_1(
    dev_server: ServerProcess, environ: dict[str, str], tmp_path: Path
) -> None:
    approver = tmp_path / "approver"
    approver.write_text(dev_server.approve_key, encoding="ascii")
    words = ("run", "1+1", "--url", dev_server.url, "--key-file", str(approver))
    done = run_command(*words, environ=environ)
    assert (done.code, done.out) == (1, "")
    assert "403 forbidden" in done.err


def test_the_key_comes_from_a_file_the_environment_or_standard_input(
    dev_server: ServerProcess, environ: dict[str, str], key_file: Path
) -> None:
    words = ("run", "1+1", "--no-wait", "--url", dev_server.url)
    named = run_command(*words, environ={**environ, "MESHFLOW_KEY_FILE": str(key_file)})
    assert named.code == 0
    piped = run_command(*words, environ=environ, stdin=dev_server.submit_key + "\n")
    assert piped.code == 0
    assert run_of(named) != run_of(piped)
    assert run_command(*words, environ=environ).code == 2
    given = run_command(*words, "--key", dev_server.submit_key, environ=environ)
    assert given.code == 2  # an argument is visible to every user of the machine


def test_verify_says_valid_and_what_it_does_not_show(
    dev_server: ServerProcess, environ: dict[str, str], key_file: Path
) -> None:
    words = ("--url", dev_server.url, "--key-file", str(key_file))
    run_id = run_of(run_command("run", "2*3", *words, environ=environ))
    done = run_command("verify", run_id, *words, environ=environ)
    assert done.code == 0
    assert "verdict  valid" in done.out
    assert "This does not show:" in done.out


def test_verify_is_3_when_a_stored_record_was_changed(
    dev_server: ServerProcess,
    environ: dict[str, str],
    key_file: Path,
    database: EmbeddedPostgres,
) -> None:
    words = ("--url", dev_server.url, "--key-file", str(key_file))
    run_id = run_of(run_command("run", "2*3", *words, environ=environ))
    asyncio.run(_turn_a_bit(database.superuser_url(), UUID(hex=run_id.removeprefix("run_")), 2))
    done = run_command("verify", run_id, *words, environ=environ)
    assert done.code == 3
    assert "verdict  broken" in done.out
    assert "break    at seq 2:" in done.out


async def _turn_a_bit(superuser_url: str, run_id: UUID, seq: int) -> None:
    connection = await asyncpg.connect(superuser_url.replace("+asyncpg", ""), database="meshflow")
    try:
        await connection.execute("ALTER TABLE record_default DISABLE TRIGGER record_no_change")
        done = await connection.execute(
            "UPDATE record SET header = set_byte(header, 9, get_byte(header, 9) # 1)"
            " WHERE run_id = $1 AND seq = $2",
            run_id,
            seq,
        )
        await connection.execute(
            "ALTER TABLE record_default ENABLE ALWAYS TRIGGER record_no_change"
        )
    finally:
        await connection.close()
    assert done == "UPDATE 1"


@pytest.mark.parametrize(
    "words",
    [
        ("run_" + "0" * 32,),
        ("../../healthz",),
        ("run_" + "0" * 32, "--url", "http://127.0.0.1:9"),
    ],
)
def test_verify_is_4_for_what_cannot_be_verified(
    words: tuple[str, ...],
    dev_server: ServerProcess,
    environ: dict[str, str],
    key_file: Path,
) -> None:
    common = ("verify", "--url", dev_server.url, "--key-file", str(key_file))
    done = run_command(*common, *words, environ=environ)
    assert done.code == 4
    assert done.out == ""


def test_the_key_is_not_sent_in_clear_to_another_machine(
    environ: dict[str, str], key_file: Path
) -> None:
    for url in ("http://192.0.2.1:8080", "http://somebody:word@127.0.0.1", "ftp://127.0.0.1"):
        words = ("run", "1+1", "--url", url, "--key-file", str(key_file))
        assert run_command(*words, environ=environ).code == 2


def test_a_named_database_is_never_migrated_by_serve_and_is_by_db_upgrade(
    environ: dict[str, str], database: EmbeddedPostgres, stage: Path
) -> None:
    owner, app = asyncio.run(_new_database(database, "unmigrated"))
    told = {**environ, "MESHFLOW_API_KEYS": KEY, "MESHFLOW_DATABASE_URL": app}
    refused = run_command("serve", "--port", "0", environ=told)
    assert refused.code == 2
    assert "not migrated yet" in refused.err
    assert "meshflow db upgrade" in refused.err
    assert run_command("db", "upgrade", environ=told).code == 2  # the app's login may not
    told["MESHFLOW_OWNER_DATABASE_URL"] = owner
    assert "current none" in run_command("db", "current", environ=told).out
    upgraded = run_command("db", "upgrade", environ=told)
    assert upgraded.out == f"current {known_revision()}\nneeded  {known_revision()}\n"
    with serving(environ=told, log=stage / "migrated.log") as server, server.client() as client:
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("revision", "said"),
    [
        ("9999", "a newer one has migrated it"),
        ("0001", "run `meshflow db upgrade` of this version"),
    ],
)
def test_a_process_refuses_a_schema_that_is_newer_or_older_than_it(
    environ: dict[str, str], database: EmbeddedPostgres, revision: str, said: str
) -> None:
    owner, app = asyncio.run(_new_database(database, f"other_{revision}"))
    told = {**environ, "MESHFLOW_API_KEYS": KEY, "MESHFLOW_DATABASE_URL": app}
    told["MESHFLOW_OWNER_DATABASE_URL"] = owner
    assert run_command("db", "upgrade", environ=told).code == 0
    asyncio.run(_at_revision(owner, revision))
    refused = run_command("serve", "--port", "0", environ=told)
    assert refused.code == 2
    assert f"at revision {revision}" in refused.err
    assert said in refused.err


async def _at_revision(owner: str, revision: str) -> None:
    connection = await asyncpg.connect(owner.replace("+asyncpg", ""))
    try:
        await connection.execute("UPDATE alembic_version SET version_num = $1", revision)
    finally:
        await connection.close()


async def _new_database(database: EmbeddedPostgres, name: str) -> tuple[str, str]:
    connection = await asyncpg.connect(database.superuser_url().replace("+asyncpg", ""))
    try:
        await connection.execute(f"CREATE DATABASE {name} OWNER mf_owner")
    finally:
        await connection.close()
    return (
        database.owner_url.replace("/meshflow?", f"/{name}?").replace("+asyncpg", ""),
        database.app_url.replace("/meshflow?", f"/{name}?").replace("+asyncpg", ""),
    )


def test_openapi_is_printed_and_checked_without_settings(tmp_path: Path) -> None:
    bare = surroundings(tmp_path / "data")
    document = tmp_path / "openapi.json"
    printed = run_command("openapi", environ=bare)
    assert printed.code == 0
    document.write_text(printed.out, encoding="utf-8")
    assert run_command("openapi", "--check", str(document), environ=bare).code == 0
    document.write_text(printed.out.replace("3.1.0", "3.1.1"), encoding="utf-8")
    changed = run_command("openapi", "--check", str(document), environ=bare)
    assert changed.code == 1
    assert "meshflow openapi --write" in changed.err
    assert not (tmp_path / "data").exists()


def test_help_names_every_command(tmp_path: Path) -> None:
    done = run_command("--help", environ=surroundings(tmp_path / "data"))
    assert done.code == 0
    for name in ("serve", "run", "verify", "keys", "db", "openapi", "config", "demo"):
        assert f"    {name} " in done.out


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    told = surroundings(tmp_path / "data", PYTHONPROFILEIMPORTTIME="1")
    done = run_command("--help", environ=told)
    assert "app.cli.arguments" in done.err
    for heavy in ("fastapi", "pydantic", "sqlalchemy", "asyncpg", "httpx2", "uvicorn", "anthropic"):
        assert not re.search(rf"\| +{heavy}$", done.err, re.MULTILINE), heavy
