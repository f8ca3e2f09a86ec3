"""Builds the eraser of a process that holds the erasure key."""

import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from app.audit.erasure_book import ErasureBook
from app.domain.errors import ConfigurationError
from app.domain.run import RunId, TenantId
from app.erasing.eraser import Eraser, EraserParts
from app.erasing.erasure_journal import ErasureJournal
from app.erasing.erasure_plan import ErasurePlanner
from app.erasing.kek_rotation import KekRotation
from app.keys.erasure_keys import ErasureKeyFile, publish_erasure_key, published_erasure_keys
from app.keys.key_store import KeyStore
from app.ledger.writing import WriterKey
from app.runs.identifiers import new_run_id
from app.runs.run_keys import RunKeys
from app.sandbox.workspace_removal import remove_workspace
from app.settings import Settings
from app.storage.database import Database
from app.storage.erasing_store import EraserStore
from app.storage.erasure_store import ErasureStore
from app.storage.ledger_store import LedgerStore
from app.storage.run_store import RunStore

ROTATE_EVERY = timedelta(hours=24)
_STATEMENT_SECONDS = 600  # a large tenant is removed in one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class EraserPlaces:
    """Where an eraser finds what it needs."""

    eraser_url: str
    key_directory: Path
    key_file: Path
    journal: Path
    workspaces: Path
    sandbox: str | None = None


def eraser_places(settings: Settings) -> EraserPlaces | None:
    """Where the eraser of this process finds things; None when it holds no erasure key."""
    url, key_file = settings.eraser_database_url, settings.erasure_key_file
    if url is None or key_file is None:
        return None
    return EraserPlaces(
        eraser_url=url.reveal(),
        key_directory=settings.ledger_key_dir,
        key_file=key_file,
        journal=settings.erasure_journal or key_file.with_name("erasures.jsonl"),
        workspaces=settings.workspace_dir,
        sandbox=settings.sandbox.mode.value,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedParts:
    """What the eraser shares with the rest of its process."""

    database: Database
    ledger: LedgerStore
    runs: RunStore
    book: ErasureBook
    keys: KeyStore
    run_keys: RunKeys
    writer: WriterKey
    enrolment: Collection[bytes]
    enrolment_in_force: Callable[[], Awaitable[Collection[bytes]]]
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class EraserAtWork:
    """An eraser and the pool that only it uses."""

    eraser: Eraser
    rotation: KekRotation
    database: Database


async def waiting_requests(settings: Settings) -> int:
    """How many requests to erase are stored and not executed. LedgerUnavailableError.

    ConfigurationError without the eraser's login.
    """
    if settings.eraser_database_url is None:
        raise ConfigurationError("this needs MESHFLOW_ERASER_DATABASE_URL")
    erasing = Database(settings.eraser_database_url.reveal(), pool_size=1)
    try:
        return len(await EraserStore(erasing).waiting())
    finally:
        await erasing.close()


def build_eraser(
    places: EraserPlaces, shared: SharedParts, *, rotate_every: timedelta = ROTATE_EVERY
) -> EraserAtWork:
    """The eraser; its key is made when there is none, and published. KeyStoreError."""
    file = ErasureKeyFile(places.key_file, os.urandom)
    publish_erasure_key(places.key_directory, file.current().public_key)
    erasing = Database(places.eraser_url, pool_size=2, statement_seconds=_STATEMENT_SECONDS)
    store, requests = EraserStore(erasing), ErasureStore(shared.database)
    planner = ErasurePlanner(
        database=shared.database,
        ledger=shared.ledger,
        runs=shared.runs,
        erasures=requests,
        book=shared.book,
        run_keys=shared.run_keys,
        enrolment=shared.enrolment,
        entropy=os.urandom,
    )
    rotation = KekRotation(store=store, keys=shared.keys, now=shared.now)

    def remove_files(log_id: TenantId, run_id: RunId | None) -> None:
        remove_workspace(places.workspaces, log_id.hex, None if run_id is None else run_id.hex)

    def new_id() -> UUID:
        return new_run_id(shared.now(), os.urandom)

    eraser = Eraser(
        EraserParts(
            reading=shared.database,
            erasing=erasing,
            runs=shared.runs,
            requests=requests,
            store=store,
            planner=planner,
            rotation=rotation,
            keys=shared.keys,
            run_keys=shared.run_keys,
            writer=shared.writer,
            enrolment=shared.enrolment_in_force,
            signing=file.signing,
            erasure_keys=lambda: published_erasure_keys(places.key_directory),
            journal=ErasureJournal(places.journal),
            remove_files=remove_files,
            now=shared.now,
            entropy=os.urandom,
            new_id=new_id,
            rotate_every=rotate_every,
            sandbox=places.sandbox,
        )
    )
    return EraserAtWork(eraser=eraser, rotation=rotation, database=erasing)
