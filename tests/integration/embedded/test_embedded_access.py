"""Who may reach the embedded server, how, and what it gives away."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from app.embedded.postgres_server import EmbeddedPostgres, start_embedded_postgres
from tests.integration.embedded.server_scene import connect, processes_of

MARKER = "patient-4711-secret"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    directory = Path(tempfile.mkdtemp(prefix="mf-")).resolve()
    directory.chmod(0o755)
    running = start_embedded_postgres(directory / "state", durable=False)
    yield running
    running.stop()
    assert processes_of(directory) == {}
    shutil.rmtree(directory)


def login_urls(server: EmbeddedPostgres) -> list[str]:
    return [
        server.owner_url,
        server.app_url,
        server.audit_url,
        server.sequencer_url,
        server.eraser_url,
        server.superuser_url(),
    ]


def passwords(server: EmbeddedPostgres) -> set[str]:
    return {str(make_url(url).password) for url in login_urls(server)}


@pytest.mark.anyio
async def test_every_url_opens_through_sqlalchemy_as_its_own_role(server: EmbeddedPostgres) -> None:
    seen = []
    for url in login_urls(server):
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            seen.append((await connection.execute(text("SELECT current_user"))).scalar_one())
        await engine.dispose()
    roles = ["mf_owner", "mf_app", "mf_audit", "mf_sequencer", "mf_eraser", "mf_superuser"]
    assert seen == roles
    assert len(passwords(server)) == len(roles)


@pytest.mark.anyio
async def test_a_wrong_password_is_refused_for_every_login(server: EmbeddedPostgres) -> None:
    for url in login_urls(server):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await connect(url, password="guessed")


@pytest.mark.anyio
async def test_a_password_of_one_login_does_not_open_another(server: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await connect(server.owner_url, password=make_url(server.app_url).password)


@pytest.mark.anyio
async def test_every_way_in_asks_for_scram(server: EmbeddedPostgres) -> None:
    connection = await connect(server.superuser_url())
    rules = await connection.fetch("SELECT type, auth_method, error FROM pg_hba_file_rules")
    stored = await connection.fetch("SELECT rolpassword FROM pg_authid WHERE rolcanlogin")
    await connection.close()
    assert {"local", "host"} <= {rule["type"] for rule in rules}
    assert {(rule["auth_method"], rule["error"]) for rule in rules} == {("scram-sha-256", None)}
    assert all(row["rolpassword"].startswith("SCRAM-SHA-256$") for row in stored)


def test_the_server_holds_no_tcp_socket(server: EmbeddedPostgres) -> None:
    sockets = set()
    for fd in Path(f"/proc/{server.server_pid}/fd").iterdir():
        target = str(fd.readlink())
        if target.startswith("socket:["):
            sockets.add(target.removeprefix("socket:[").removesuffix("]"))
    assert sockets, "the Unix socket at least"
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/{server.server_pid}/net/{table}").read_text().splitlines()[1:]
        assert sockets.isdisjoint(line.split()[9] for line in lines)


@pytest.mark.anyio
async def test_no_login_of_meshflow_has_power_over_the_cluster(server: EmbeddedPostgres) -> None:
    connection = await connect(server.superuser_url())
    rows = await connection.fetch(
        "SELECT rolname FROM pg_roles WHERE rolname LIKE 'mf\\_%' AND rolname <> 'mf_superuser'"
        " AND (rolsuper OR rolbypassrls OR rolreplication OR rolcreatedb)"
    )
    creators = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolcreaterole")
    owner = await connection.fetchval(
        "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'meshflow'"
    )
    await connection.close()
    assert rows == []
    assert {row["rolname"] for row in creators} == {"mf_owner", "mf_superuser"}
    assert owner == "mf_owner"


@pytest.mark.anyio
async def test_the_owner_can_make_a_role_without_login_and_give_it_a_function(
    server: EmbeddedPostgres,
) -> None:
    connection = await connect(server.owner_url)
    await connection.execute("CREATE ROLE mf_trial NOLOGIN")
    await connection.execute("GRANT mf_trial TO mf_owner")
    await connection.execute("GRANT CREATE ON SCHEMA public TO mf_trial")
    await connection.execute(
        "CREATE FUNCTION trial() RETURNS name LANGUAGE sql SECURITY DEFINER"
        " AS 'SELECT current_user'"
    )
    await connection.execute("ALTER FUNCTION trial() OWNER TO mf_trial")
    await connection.execute("GRANT EXECUTE ON FUNCTION trial() TO mf_app")
    app = await connect(server.app_url)
    answered = await app.fetchval("SELECT trial()")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("CREATE TABLE public.mine (x int)")
    await app.close()
    await connection.execute("DROP FUNCTION trial()")
    await connection.execute("DROP OWNED BY mf_trial")
    await connection.execute("DROP ROLE mf_trial")
    await connection.close()
    assert answered == "mf_trial"


@pytest.mark.anyio
async def test_sorting_does_not_depend_on_the_host(server: EmbeddedPostgres) -> None:
    connection = await connect(server.superuser_url())
    row = await connection.fetchrow(
        "SELECT datlocprovider, datlocale FROM pg_database WHERE datname = 'meshflow'"
    )
    await connection.close()
    assert tuple(row) == (b"b", "C.UTF-8")


def test_no_password_is_in_an_argument_or_environment_or_the_log(server: EmbeddedPostgres) -> None:
    secrets = [password.encode() for password in passwords(server)]
    looked_at = 0
    for pid in processes_of(server.data_dir.parent):
        for name in ("cmdline", "environ"):
            content = Path(f"/proc/{pid}/{name}").read_bytes()
            looked_at += 1
            assert not any(secret in content for secret in secrets)
    assert looked_at >= 4, "the watchdog and the server at least"
    log = server.log_path.read_bytes()
    assert b"ready to accept connections" in log
    assert not any(secret in log for secret in secrets)
    assert not any(secret.decode() in repr(server) for secret in secrets)


@pytest.mark.anyio
async def test_values_of_failing_statements_do_not_reach_the_log(server: EmbeddedPostgres) -> None:
    connection = await connect(server.owner_url)
    await connection.execute("CREATE TABLE note (body text PRIMARY KEY CHECK (length(body) > 3))")
    await connection.execute("INSERT INTO note VALUES ($1)", MARKER)
    with pytest.raises(asyncpg.UniqueViolationError, match="note_pkey"):
        await connection.execute("INSERT INTO note VALUES ($1)", MARKER)
    with pytest.raises(asyncpg.InvalidTextRepresentationError, match=MARKER):
        await connection.fetch("SELECT body::uuid FROM note")
    with pytest.raises(asyncpg.UndefinedColumnError):
        await connection.execute(f"SELECT nothing FROM note WHERE body = '{MARKER}'")
    await connection.execute(f"DO $$ BEGIN RAISE WARNING '{MARKER}'; END $$")
    await connection.execute("DROP TABLE note")
    await connection.close()
    assert MARKER not in server.log_path.read_text()


def test_the_state_is_private_and_the_server_has_no_root(server: EmbeddedPostgres) -> None:
    state = server.data_dir.parent
    process = Path(f"/proc/{server.server_pid}").stat()
    assert process.st_uid != 0
    assert server.data_dir.stat().st_uid == process.st_uid
    assert stat.S_IMODE(server.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    assert state.stat().st_uid == os.geteuid()
    # For root the server's own group may pass through, and not look.
    assert stat.S_IMODE(state.stat().st_mode) == (0o710 if os.geteuid() == 0 else 0o700)
    for name in ("passwords.json", "postgres.log", "users.lock", "watchdog.lock"):
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600
        assert (state / name).stat().st_uid == os.geteuid()
    assert [path.name for path in state.glob("init-*")] == []
