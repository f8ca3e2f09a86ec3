"""`meshflow ledger rotate-key`: makes the next log, enrolment or erasure key take over.

Threat: Ledger tampering
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from app.domain.errors import ConfigurationError, RotationRefusedError
from app.settings import Settings

if TYPE_CHECKING:
    from app.ledger.key_statements import KeyChange
    from app.ledger_assembly import LedgerParts
    from app.log_keeping import KeeperOfLogs

_RECORDED_SECONDS = 30
_LOOK_SECONDS = 1.0
_FOLLOWS = "Verifiers that pin the old key follow the record to the new one."


async def rotate_key(settings: Settings, role: str) -> None:
    """Rotate one key and print both, with the lines of a policy that pins them.

    RotationRefusedError, KeyStoreError when it cannot be now; ConfigurationError.
    """
    from app.ledger_assembly import ledger_parts

    parts = ledger_parts(settings)
    try:
        match role:
            case "log":
                told = await _log(parts)
            case "enrolment":
                told = await _enrolment(settings, parts)
            case _:
                told = await _erasure(settings, parts)
        for line in await parts.key_lister.own_lines():
            print(line)
        print(told)
    finally:
        await parts.database.close()


async def _log(parts: "LedgerParts") -> str:
    """Make the next log key, and wait until the leader has recorded that it took over."""
    from app.keys.signing_keys import LOG

    before = parts.signing.current(LOG).public_key
    made = parts.signing.add(LOG).public_key
    print(f"old  {before.hex()}\nnew  {made.hex()}")
    try:
        async with asyncio.timeout(_RECORDED_SECONDS):
            while all(c.new != made for c in await parts.logs.book.rotations()):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        print("The key is made. The sequencer takes it up, and records that, when it next signs.")
    else:
        print("The sequencer has recorded the change and signs with the new key from now on.")
    return "Witnesses need the new key beside the old one; verifiers that pin the old one need not."


async def _enrolment(settings: Settings, parts: "LedgerParts") -> str:
    """The leader's place is taken meanwhile: nobody else may be there."""
    from app.erasing.assembly import waiting_requests
    from app.sequencing.enrolment_rotation import EnrolmentRotation
    from app.sequencing.settling import Settling

    async with _keeper(settings, parts) as logs:
        rotation = EnrolmentRotation(
            database=logs.database,
            runs=parts.runs,
            admin_log=parts.admin_log,
            writer=parts.writer,
            signing=parts.signing,
            recorded=parts.logs.book.rotations,
            waiting=partial(waiting_requests, settings),
            settling=Settling(
                database=logs.database,
                enrolment=parts.logs.book.enrolment_in_force,
                origin_of=logs.origin_of,
            ),
        )
        _print(await rotation.rotate())
    return f"Start the processes again: the new key certifies them. {_FOLLOWS}"


async def _erasure(settings: Settings, parts: "LedgerParts") -> str:
    """Erasures wait meanwhile, and nothing else does."""
    from app.keys.erasure_keys import ErasureKeyFile, publish_erasure_key
    from app.sequencing.erasure_rotation import ErasureRotation
    from app.sequencing.settling import Settling

    if settings.erasure_key_file is None:
        raise ConfigurationError("rotating the erasure key needs MESHFLOW_ERASURE_KEY_FILE")
    async with _keeper(settings, parts) as logs:
        rotation = ErasureRotation(
            admin_log=parts.admin_log,
            file=ErasureKeyFile(settings.erasure_key_file, os.urandom),
            publish=partial(publish_erasure_key, settings.ledger_key_dir),
            recorded=parts.logs.book.rotations,
            settling=Settling(
                database=logs.database,
                enrolment=parts.logs.book.enrolment_in_force,
                origin_of=logs.origin_of,
            ),
        )
        await parts.enrolment.enrol()
        try:
            _print(await rotation.rotate())
        finally:
            await parts.enrolment.leave()
    return f"The old key is gone; what it signed holds. {_FOLLOWS}"


@asynccontextmanager
async def _keeper(settings: Settings, parts: "LedgerParts") -> "AsyncIterator[KeeperOfLogs]":
    """The sequencer's login, once no anchor has seen more of the ledger than is there."""
    from app.log_keeping import log_keeper

    logs = log_keeper(settings, parts)
    if logs is None:
        raise ConfigurationError("rotating this key needs MESHFLOW_SEQUENCER_DATABASE_URL")
    try:
        loss = await logs.keeper.known_loss(await parts.admin_log.operator_log_id())
        if loss is not None:
            raise RotationRefusedError(f"the ledger lost its end: {loss.reason}")
        yield logs
    finally:
        await logs.close()


def _print(change: "KeyChange") -> None:
    print(f"old  {change.old.hex()}\nnew  {change.new.hex()}")
