"""`meshflow sequencer` and `meshflow ledger`: keep the logs, print their keys, open a recovery.

Threat: Ledger tampering
"""

import asyncio
import dataclasses
import logging
import os
import socket
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from app.cli.database_setup import driver_url, embedded_server, serving_database
from app.cli.invocation import OK, Invocation
from app.cli.listening import metrics_listener, tell_metrics_url
from app.cli.serve import configure_logging
from app.domain.errors import ConfigurationError, MeshFlowError
from app.settings import Secret, Settings

if TYPE_CHECKING:
    from app.ledger_assembly import LedgerParts

_log = logging.getLogger("meshflow")
UNKNOWN = "unknown"
_RETRY_SECONDS = 1.0
T = TypeVar("T")


def sequencer(invocation: Invocation, _arguments: Namespace) -> int:
    """Keep the logs until SIGTERM or Ctrl-C, in turn with other processes that may."""
    settings = invocation.settings(dev=True)
    configure_logging(settings)
    with metrics_listener(settings.operations) as metrics, serving_database(settings) as ready:
        if ready.sequencer_database_url is None:
            raise ConfigurationError("sequencing needs MESHFLOW_SEQUENCER_DATABASE_URL")
        tell_metrics_url(metrics, settings.operations)
        asyncio.run(_keep(ready, metrics))
    return OK


def ledger(invocation: Invocation, arguments: Namespace) -> int:
    """`ledger keys`, `ledger operator-key`, `ledger rotate-key` and `ledger recover`."""
    settings = invocation.settings(dev=True)
    configure_logging(settings)
    if arguments.action == "keys":
        with serving_database(settings) as ready:
            asyncio.run(_print_keys(ready))
        return OK
    if arguments.action == "operator-key":
        with serving_database(settings) as ready:
            asyncio.run(_write_operator_key(ready, arguments.output))
        return OK
    if arguments.action == "rotate-key":
        from app.cli.rotate_command import rotate_key

        with serving_database(settings) as ready:
            asyncio.run(rotate_key(ready, arguments.role))
        return OK
    lost = None if arguments.lost == UNKNOWN else int(arguments.lost)
    with _owned_database(settings) as ready:
        asyncio.run(_recover(ready, lost))
    return OK


@contextmanager
def _owned_database(settings: Settings) -> Iterator[Settings]:
    """Settings with the owner's login as well."""
    if settings.database_url is None:
        with embedded_server(settings) as server:
            yield dataclasses.replace(
                settings,
                database_url=Secret(server.app_url),
                owner_database_url=Secret(server.owner_url),
            )
        return
    owner = settings.owner_database_url
    if owner is None:
        raise ConfigurationError("a recovery needs MESHFLOW_OWNER_DATABASE_URL")
    yield dataclasses.replace(
        settings,
        database_url=Secret(driver_url(settings.database_url)),
        owner_database_url=Secret(driver_url(owner)),
    )


async def _keep(settings: Settings, metrics: socket.socket | None) -> None:
    from app.ledger_assembly import ledger_parts
    from app.log_keeping import log_keeper
    from app.process_pulse import metrics_told, pulse_of

    parts = ledger_parts(settings)
    logs = log_keeper(settings, parts)
    if logs is None:
        raise ConfigurationError("sequencing needs MESHFLOW_SEQUENCER_DATABASE_URL")
    try:
        told = metrics_told(metrics, pulse_of(parts, logs))
        async with told, asyncio.TaskGroup() as tasks:
            tasks.create_task(logs.keeper.run_forever())
            await _until_done(logs.enrol)
            while True:
                with suppress(MeshFlowError):
                    await parts.runs.beat(parts.writer_id)
                await asyncio.sleep(_RETRY_SECONDS)
    finally:
        with suppress(MeshFlowError):
            await parts.enrolment.leave()
        await logs.close()
        await parts.database.close()


async def _until_done(step: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await step()
        except MeshFlowError as error:
            _log.warning("not known to the ledger yet: %s", error)
            await asyncio.sleep(_RETRY_SECONDS)


@asynccontextmanager
async def _parts(settings: Settings) -> "AsyncIterator[LedgerParts]":
    from app.ledger_assembly import ledger_parts

    parts = ledger_parts(settings)
    try:
        yield parts
    finally:
        await parts.database.close()


async def _print_keys(settings: Settings) -> None:
    """Lines for a verifier's policy file and for a witness: public keys only."""
    async with _parts(settings) as parts:
        for line in await parts.key_lister.own_lines():
            print(line)


async def _write_operator_key(settings: Settings, output: Path) -> None:
    """The run key of the operator log, for an auditor: no content of a tenant is under it."""
    from app.keys.operator_key import write_operator_key

    async with _parts(settings) as parts:
        write_operator_key(output, await parts.admin_log.operator_key(), os.urandom)
    print(f"{output} opens the notes of the operator log, and nothing else")


async def _recover(settings: Settings, lost: int | None) -> None:
    from app.log_keeping import recovery_desk

    async with _parts(settings) as parts, recovery_desk(settings, parts) as desk:
        await parts.enrolment.register()
        try:
            done = await desk.open(lost)
        finally:
            await parts.enrolment.leave()
    print(f"recovered  {done.logs} logs have new names")
    print(f"operator   {done.origin}")
    for item in done.given_up:
        print(f"given up   {item.reason}")
    print("Witnesses and verifiers need the new name: see `meshflow ledger keys`.")
