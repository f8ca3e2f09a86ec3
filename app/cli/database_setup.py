"""Gives a command its database: the operator's, checked and left as it is, or the embedded one.

A database that somebody named is never migrated by `serve`; the embedded one always is.

Threat: Ledger tampering
"""

import asyncio
import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode

from app.domain.errors import ConfigurationError, LedgerUnavailableError
from app.embedded.postgres_server import EmbeddedPostgres, start_embedded_postgres
from app.settings import Secret, Settings
from app.storage import schema

_log = logging.getLogger("meshflow")
_DRIVER = "postgresql+asyncpg"
_REVISION_SECONDS = 15


def embedded_state(settings: Settings) -> Path:
    """Where the embedded server keeps everything it has."""
    return settings.data_dir / "postgres"


@contextmanager
def embedded_server(settings: Settings) -> Iterator[EmbeddedPostgres]:
    """The embedded server for as long as the block lasts; others may use it too."""
    server = start_embedded_postgres(embedded_state(settings))
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def serving_database(settings: Settings) -> Iterator[Settings]:
    """Settings that hold a URL of the application's login, with the schema this code knows.

    ConfigurationError when the operator's database is at another revision. When it does not answer
    the block is entered all the same: the server starts unready and becomes ready with it.
    """
    if settings.database_url is None:
        with embedded_server(settings) as server:
            asyncio.run(schema.upgrade(server.owner_url))
            yield dataclasses.replace(
                settings,
                database_url=Secret(server.app_url),
                eraser_database_url=Secret(server.eraser_url),
                erasure_key_file=settings.erasure_key_file or _erasure_key_file(settings),
                sequencer_database_url=Secret(server.sequencer_url),
            )
        return
    url = driver_url(settings.database_url)
    asyncio.run(_require_known_revision(url))
    sequencer, eraser = settings.sequencer_database_url, settings.eraser_database_url
    yield dataclasses.replace(
        settings,
        database_url=Secret(url),
        sequencer_database_url=None if sequencer is None else Secret(driver_url(sequencer)),
        eraser_database_url=None if eraser is None else Secret(driver_url(eraser)),
    )


def _erasure_key_file(settings: Settings) -> Path:
    """On a single machine: a directory of its own beside the one of the ledger's keys."""
    return settings.ledger_key_dir.with_name(f"{settings.ledger_key_dir.name}-erasure") / "key"


async def _require_known_revision(url: str) -> None:
    try:
        async with asyncio.timeout(_REVISION_SECONDS):
            found = await schema.current_revision(url)
    except (LedgerUnavailableError, TimeoutError):
        _log.warning("the database does not answer; starting unready")
        return
    needed = schema.known_revision()
    if found != needed:
        if found is not None and found not in schema.known_revisions():
            raise ConfigurationError(
                f"the database is at revision {found}, which this version does not know:"
                " a newer one has migrated it; start that one"
            )
        at = "not migrated yet" if found is None else f"at revision {found}"
        raise ConfigurationError(
            f"the database is {at} and this version needs {needed}: run `meshflow db upgrade` of "
            "this version, with MESHFLOW_OWNER_DATABASE_URL set"
        )


def driver_url(url: Secret) -> str:
    """A Postgres URL in the words of the driver: its scheme, and `ssl` for libpq's `sslmode`."""
    rest = url.reveal().partition("://")[2]
    place, mark, query = rest.partition("?")
    pairs = [("ssl" if n == "sslmode" else n, v) for n, v in parse_qsl(query)] if mark else []
    tail = f"?{urlencode(pairs, quote_via=quote)}" if pairs else ""
    return f"{_DRIVER}://{place}{tail}"
