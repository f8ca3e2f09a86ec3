"""The parts with which any process reads and writes the ledger, built once, by hand."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

from app.administration.admin_log import AdminLog, AdminParts
from app.administration.writer_enrolment import WriterEnrolment
from app.audit.erasure_book import ErasureBook
from app.audit.erasure_calls import ErasureParts
from app.audit.erasure_desk import ErasureDesk
from app.audit.export import BundleExporter
from app.audit.inclusion import InclusionCheck
from app.audit.integrity_alarm import IntegrityAlarm
from app.audit.key_book import KeyBook
from app.audit.key_list import KeyLister
from app.audit.proof_desk import ProofDesk
from app.audit.recovered_names import RecoveredNames
from app.audit.replay_ledger import LogChecks, ReplayLedger
from app.audit.witnessing import Witnessing
from app.domain.errors import ConfigurationError
from app.domain.sandbox_mode import SandboxMode
from app.erasing.assembly import SharedParts
from app.keys.daily_digests import DailyDigests
from app.keys.enrolment_keys import EnrolmentKeys
from app.keys.erasure_keys import published_erasure_keys
from app.keys.key_store import FileKeyStore
from app.keys.signing_keys import LOG, SigningKeys
from app.ledger.writing import WriterKey
from app.runs.identifiers import new_run_id
from app.runs.run_keys import RunKeys
from app.sequencing.log_names import log_origin
from app.sequencing.witness_roster import load_policy
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
    heartbeat: Database  # of its own: readers that crowd the pool must not make us look dead
    dispatch: Database  # likewise: one connection listens, one claims
    ledger: LedgerStore
    runs: RunStore
    keys: FileKeyStore
    run_keys: RunKeys
    digests: DailyDigests
    signing: SigningKeys
    writer: WriterKey
    admin_log: AdminLog
    enrolment: WriterEnrolment
    enrolment_keys: EnrolmentKeys
    logs: LogChecks
    replay: ReplayLedger
    book: ErasureBook
    desk: ErasureDesk
    erasures: ErasureStore
    proofs: ProofDesk
    exports: BundleExporter
    key_lister: KeyLister

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
            enrolment=self.enrolment_keys,
            enrolment_in_force=self.logs.book.enrolment_in_force,
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
    enrolled = EnrolmentKeys(signing)
    database = Database(settings.database_url.reveal())
    ledger, runs, run_keys = LedgerStore(database), RunStore(database), RunKeys(keys, entropy)
    writer = WriterKey(entropy(32), uuid4().bytes)
    admin_log = _admin_log(ledger, runs, run_keys, writer, settings.sandbox.mode)
    erasures = ErasureStore(database)
    logs = _log_checks(settings, (signing, enrolled), database, keys, admin_log)
    book = ErasureBook(
        ledger=ledger,
        runs=runs,
        erasures=erasures,
        keys=keys,
        enrolment=enrolled,
        erasure_keys=partial(published_erasure_keys, settings.ledger_key_dir),
        key_book=logs.book,
    )
    replay = ReplayLedger(
        database=database,
        ledger=ledger,
        runs=runs,
        keys=keys,
        enrolment=enrolled,
        erasures=ErasureParts(book=book, desk=(desk := _erasure_desk(erasures, admin_log, writer))),
        logs=logs,
        now=utc_now,
    )
    return LedgerParts(
        database=database,
        heartbeat=Database(settings.database_url.reveal(), pool_size=1),
        dispatch=Database(settings.database_url.reveal(), pool_size=2),
        ledger=ledger,
        runs=runs,
        keys=keys,
        run_keys=run_keys,
        digests=DailyDigests(keys),
        signing=signing,
        writer=writer,
        admin_log=admin_log,
        enrolment=WriterEnrolment(
            runs=runs, admin_log=admin_log, writer=writer, certifying=signing.certifying
        ),
        enrolment_keys=enrolled,
        logs=logs,
        replay=replay,
        proofs=ProofDesk(database=database, replay=replay, logs=logs),
        exports=BundleExporter(database=database, replay=replay, logs=logs, keys=keys),
        key_lister=_key_lister(settings, signing, database, logs),
        book=book,
        desk=desk,
        erasures=erasures,
    )


def _admin_log(
    ledger: LedgerStore, runs: RunStore, keys: RunKeys, writer: WriterKey, sandbox: SandboxMode
) -> AdminLog:
    return AdminLog(
        AdminParts(
            ledger=ledger,
            runs=runs,
            keys=keys,
            writer=writer,
            now=utc_now,
            entropy=os.urandom,
            sandbox=sandbox.value,
        )
    )


def _key_lister(
    settings: Settings, signing: SigningKeys, database: Database, logs: LogChecks
) -> KeyLister:
    return KeyLister(
        database=database,
        signing=signing,
        book=logs.book,
        deployment=settings.deployment,
        origin_of=lambda log: log_origin(settings.deployment, log),
        witnesses=logs.witnessing.policy,
        erasure_keys=lambda: sorted(published_erasure_keys(settings.ledger_key_dir)),
    )


def _erasure_desk(store: ErasureStore, admin_log: AdminLog, writer: WriterKey) -> ErasureDesk:
    return ErasureDesk(
        store=store,
        admin_log=admin_log,
        writer=writer,
        now=utc_now,
        entropy=os.urandom,
        new_id=lambda: new_run_id(utc_now(), os.urandom),
    )


def _log_checks(
    settings: Settings,
    own: tuple[SigningKeys, EnrolmentKeys],
    database: Database,
    keys: FileKeyStore,
    admin_log: AdminLog,
) -> LogChecks:
    policy = None if settings.witnesses is None else load_policy(settings.witnesses)
    signing, enrolment = own
    signing.current(LOG)
    book = KeyBook(
        database=database,
        keys=keys,
        signing=signing,
        enrolment=enrolment,
        operator=admin_log.operator_log_id,
    )
    check = InclusionCheck(lambda: book.log_keys)
    return LogChecks(
        book=book,
        check=check,
        names=RecoveredNames(database=database, keys=keys, operator=admin_log.operator_log_id),
        witnessing=Witnessing(
            database=database,
            keys=keys,
            check=check,
            policy=policy,
            operator=admin_log.operator_log_id,
        ),
        alarm=IntegrityAlarm(admin_log),
    )
