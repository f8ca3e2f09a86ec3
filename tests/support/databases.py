"""Real databases for tests: one server a run, a migrated template, a copy for whoever asks."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.embedded.postgres_server import start_embedded_postgres
from app.storage import schema

_LOGINS = ("mf_app", "mf_audit", "mf_sequencer", "mf_eraser")


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """URLs of one database, by who logs in."""

    app: str
    owner: str
    audit: str
    superuser: str
    sequencer: str = ""
    eraser: str = ""

    def named(self, name: str) -> "Roles":
        """The same logins for another database of the server."""
        return Roles(
            app=_with_database(self.app, name),
            owner=_with_database(self.owner, name),
            audit=_with_database(self.audit, name),
            superuser=_with_database(self.superuser, name),
            sequencer=_with_database(self.sequencer, name),
            eraser=_with_database(self.eraser, name),
        )


class DatabaseServer:
    """A real Postgres with a migrated template; copies of it are cheap."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles
        self._template = f"mf_template_{token_hex(4)}"
        self._made: list[str] = []

    def prepare(self) -> None:
        """Make and migrate the template."""
        asyncio.run(self._create(self._template, "template0"))
        asyncio.run(schema.upgrade(self._roles.named(self._template).owner))

    def new_database(self, *, migrated: bool = True) -> Roles:
        """A fresh database: a copy of the template, or an empty one."""
        name = f"mf_test_{token_hex(6)}"
        asyncio.run(self._create(name, self._template if migrated else "template0"))
        return self._roles.named(name)

    def drop_all(self) -> None:
        """Remove what was made."""
        asyncio.run(self._drop())

    async def _create(self, name: str, template: str) -> None:
        make = f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER mf_owner'
        await execute(self._roles.superuser, make)
        self._made.append(name)

    async def _drop(self) -> None:
        for name in reversed(self._made):
            await execute(self._roles.superuser, f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def database_server() -> Iterator[DatabaseServer]:
    """The server of MESHFLOW_TEST_DATABASE_URL (a superuser's), or an embedded one."""
    given = os.environ.get("MESHFLOW_TEST_DATABASE_URL")  # noqa: TID251 - tests read their own setting
    if given is not None:
        yield from _serving(asyncio.run(_roles_on(given)))
        return
    with embedded_roles(durable=False) as roles:
        yield from _serving(roles)


@contextmanager
def durable_database() -> Iterator[Roles]:
    """A database on a server of its own that keeps its word when it crashes."""
    with embedded_roles(durable=True) as roles:
        for made in _serving(roles):
            yield made.new_database()


@contextmanager
def embedded_roles(*, durable: bool) -> Iterator[Roles]:
    """An embedded server of its own, until the block ends."""
    state = state_directory()
    server = start_embedded_postgres(state, durable=durable)
    try:
        yield Roles(
            app=server.app_url,
            owner=server.owner_url,
            audit=server.audit_url,
            superuser=server.superuser_url(),
            sequencer=server.sequencer_url,
            eraser=server.eraser_url,
        )
    finally:
        server.stop()
        shutil.rmtree(state, ignore_errors=True)


def _serving(roles: Roles) -> Iterator[DatabaseServer]:
    server = DatabaseServer(roles)
    server.prepare()
    yield server
    server.drop_all()


async def _roles_on(superuser: str) -> Roles:
    """Logins on a server that somebody else started.

    Every test process comes to the same passwords: one that set others would lock the rest out.
    """
    password = sha256(superuser.encode()).hexdigest()[:32]
    for login in ("mf_owner", *_LOGINS):
        rights = "CREATEROLE" if login == "mf_owner" else ""
        await execute(
            superuser,
            f"DO $$ BEGIN CREATE ROLE {login}; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            f"ALTER ROLE {login} LOGIN {rights} PASSWORD '{password}'",
        )

    await execute(
        superuser,
        "DO $$ BEGIN IF current_setting('server_version_num')::int >= 160000 THEN GRANT"
        f" {', '.join(_LOGINS)} TO mf_owner WITH ADMIN TRUE, INHERIT FALSE, SET FALSE;"
        " END IF; END $$",
    )

    def url_of(name: str) -> str:
        parts = urlsplit(superuser)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=f"{name}:{password}@{host}"))

    return Roles(
        app=url_of("mf_app"),
        owner=url_of("mf_owner"),
        audit=url_of("mf_audit"),
        superuser=superuser,
        sequencer=url_of("mf_sequencer"),
        eraser=url_of("mf_eraser"),
    )


async def execute(url: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def connect(url: str) -> asyncpg.Connection:
    """A plain driver connection for attackers and readers."""
    return await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://", 1))


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def state_directory() -> Path:
    """A directory for a throw-away server; as root one that the server's user can reach."""
    if os.geteuid() == 0:
        base = Path("/var/lib/meshflow-test")
        base.mkdir(mode=0o755, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=base))
    return Path(tempfile.mkdtemp(prefix="mf-"))
