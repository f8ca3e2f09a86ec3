"""The commands of administration: keys, the database's schema, the API's description, settings."""

import asyncio
import hashlib
import secrets
import sys
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.invocation import FAILED, OK, CommandError, Invocation
from app.domain.errors import ConfigurationError
from app.keys.key_ring import DEFAULT_TENANT, KeyRing, new_key
from app.settings import Settings

_NO_DATABASE = "postgresql+asyncpg://nobody@/none"


def make_key(_invocation: Invocation, arguments: Namespace) -> int:
    """Print a new key and its item for MESHFLOW_API_KEYS; nothing is stored anywhere."""
    if arguments.tenant == "":
        raise ConfigurationError("--tenant is empty")
    key = new_key(secrets.token_urlsafe)
    parts = [f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"]
    if arguments.scopes is not None:
        parts.insert(0, arguments.scopes)
    if arguments.tenant is not None or arguments.scopes is not None:
        parts.insert(0, arguments.tenant or DEFAULT_TENANT)
    item = ":".join(parts)
    ring = KeyRing.parse(item)  # refuses what the server would refuse
    if len(ring) != 1 or ring.find(key) is None:
        raise ConfigurationError("--tenant and --scopes make no single item")
    print(f"key   {key}")
    print(f"item  {item}")
    return OK


def migrate_database(invocation: Invocation, arguments: Namespace) -> int:
    """`db upgrade` and `db current`, on the owner's database or the embedded one."""
    from app.cli.database_setup import driver_url, embedded_server
    from app.storage import schema

    settings = invocation.settings(dev=True)
    is_upgrade = arguments.action == "upgrade"
    named = settings.owner_database_url or (None if is_upgrade else settings.database_url)
    if named is not None:
        found = asyncio.run(_revision(driver_url(named), is_upgrade=is_upgrade))
    elif settings.database_url is not None:
        raise ConfigurationError(
            "migrations need the owner's login: set MESHFLOW_OWNER_DATABASE_URL"
        )
    else:
        with embedded_server(settings) as server:
            found = asyncio.run(_revision(server.owner_url, is_upgrade=is_upgrade))
    print(f"current {found or 'none'}")
    print(f"needed  {schema.known_revision()}")
    return OK


async def _revision(url: str, *, is_upgrade: bool) -> str | None:
    from app.storage import schema

    return await (schema.upgrade(url) if is_upgrade else schema.current_revision(url))


def print_openapi(invocation: Invocation, arguments: Namespace) -> int:
    """The API's description: printed, written, or compared. It does not depend on settings."""
    document = _webhooks_document() if arguments.webhooks else _openapi_document(invocation)
    flag = "--webhooks " if arguments.webhooks else ""
    check: Path | None = arguments.check
    target: Path | None = arguments.write
    try:
        if check is not None:
            if check.read_bytes() == document:
                return OK
            raise CommandError(
                f"{check} is not what this code serves:"
                f" run `meshflow openapi {flag}--write {check}`",
                FAILED,
            )
        if target is not None:
            target.write_bytes(document)
            return OK
    except OSError as error:
        raise CommandError(f"{check or target}: {error.strerror}", FAILED) from None
    sys.stdout.flush()
    sys.stdout.buffer.write(document)
    return OK


def _webhooks_document() -> bytes:
    from app.api.webhooks_document import webhooks_bytes

    return webhooks_bytes()


def _openapi_document(invocation: Invocation) -> bytes:
    from app.api.openapi_document import openapi_bytes
    from app.main import create_app

    with TemporaryDirectory(prefix="meshflow-openapi-") as scratch:
        environ = {"MESHFLOW_DATA_DIR": scratch, "MESHFLOW_DATABASE_URL": _NO_DATABASE}
        settings = Settings.from_environ(
            environ, dev=True, uid=invocation.uid, home=invocation.home
        )
        key = f"sha256:{hashlib.sha256(b'openapi').hexdigest()}"  # served to nobody
        return openapi_bytes(create_app(settings, key_items=key))


def print_config(invocation: Invocation, _arguments: Namespace) -> int:
    """Every setting in effect with its source; a secret shows only that it is there."""
    settings = invocation.settings(dev=True)
    rows = settings.describe()
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        print(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}")
    return OK
