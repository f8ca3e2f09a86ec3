"""The parts with which any process reads and writes the ledger, built once, by hand."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

from app.administration.admin_log import AdminLog, AdminParts
from app.administration.writer_enrolment import WriterEnrolment
from app.audit.erasure_book import ErasureBook
from app.audit.erasure_desk import ErasureDesk
from app.audit.replay_ledger import ReplayLedger
from app.domain.errors import ConfigurationError
from app.erasing.assembly import SharedParts
from app.keys.erasure_keys import published_erasure_keys
from app.keys.key_store import FileKeyStore
from app.keys.signing_keys import ENROLMENT, SigningKeys
from app.ledger.writing import WriterKey
from app.runs.identifiers import new_run_id
from app.runs.run_keys import RunKeys
from app.settings import Settings
from app.storage.database import Database
from app.storage.erasure_store import ErasureStore
from app.storage.ledger_store import LedgerStore
from app.storage.run_store import RunStore


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerParts:
    """One process's stores, keys and signing key. Nothing of it has reached for the database."""

    database: Database
    ledger: LedgerStore
    runs: RunStore
    keys: FileKeyStore
    run_keys: RunKeys
    signing: SigningKeys
    writer: WriterKey
    admin_log: AdminLog
    enrolment: WriterEnrolment
    replay: ReplayLedger
    book: ErasureBook
    desk: ErasureDesk
    erasures: ErasureStore
    certifiers: frozenset[bytes]  # public keys that certify writers

    @property
    def shared(self) -> SharedParts:
        """What an eraser in this process shares with it."""
        return SharedParts(
            database=self.database,
            ledger=self.ledger,
            runs=self.runs,
            book=self.book,
            keys=self.keys,
            run_keys=self.run_keys,
            writer=self.writer,
            enrolment=self.certifiers,
            now=utc_now,
        )

    @property
    def writer_id(self) -> UUID:
        """The id under which this process signs."""
        return UUID(bytes=self.writer.writer_id)


def ledger_parts(settings: Settings) -> LedgerParts:
    """The parts for these settings. ConfigurationError, KeyStoreError when one is not right."""
    if settings.database_url is None:
        raise ConfigurationError("no database: set MESHFLOW_DATABASE_URL")
    entropy = os.urandom
    keys = FileKeyStore(
        settings.ledger_key_dir, entropy, forbidden=(settings.data_dir, settings.workspace_dir)
    )
    signing = SigningKeys(settings.ledger_key_dir, entropy)
    certifier = signing.current(ENROLMENT)
    database = Database(settings.database_url.reveal())
    ledger, runs, run_keys = LedgerStore(database), RunStore(database), RunKeys(keys, entropy)
    writer = WriterKey(entropy(32), uuid4().bytes)
    admin_log = AdminLog(
        AdminParts(
            ledger=ledger, runs=runs, keys=run_keys, writer=writer, now=utc_now, entropy=entropy
        )
    )
    certifiers = frozenset(key.public_key for key in signing.every(ENROLMENT))
    erasures = ErasureStore(database)
    book = ErasureBook(
        ledger=ledger,
        runs=runs,
        erasures=erasures,
        keys=keys,
        enrolment=certifiers,
        erasure_keys=lambda: published_erasure_keys(settings.ledger_key_dir),
    )
    desk = ErasureDesk(
        store=erasures,
        admin_log=admin_log,
        writer=writer,
        now=utc_now,
        entropy=entropy,
        new_id=lambda: new_run_id(utc_now(), entropy),
    )
    return LedgerParts(
        database=database,
        ledger=ledger,
        runs=runs,
        keys=keys,
        run_keys=run_keys,
        signing=signing,
        writer=writer,
        admin_log=admin_log,
        enrolment=WriterEnrolment(
            runs=runs, admin_log=admin_log, writer=writer, certify=certifier.sign
        ),
        replay=ReplayLedger(
            database=database,
            ledger=ledger,
            runs=runs,
            keys=keys,
            enrolment=certifiers,
            book=book,
            desk=desk,
            now=utc_now,
        ),
        book=book,
        desk=desk,
        erasures=erasures,
        certifiers=certifiers,
    )
