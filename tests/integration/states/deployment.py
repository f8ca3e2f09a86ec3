"""A deployment on a fresh database, moved by hand: writers that die, an office, a witness."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from secrets import token_hex
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg

from app import roster
from app.audit.sweep import Pins, Sweep
from app.audit.sweep_report import LogReport
from app.domain.erasure import ErasureId
from app.domain.run import JsonObject, RunId, TenantId
from app.erasing.assembly import (
    EraserAtWork,
    build_eraser,
    eraser_places,
    waiting_requests,
)
from app.erasing.erasure_journal import ErasureJournal
from app.keys.erasure_keys import ErasureKeyFile, publish_erasure_key
from app.keys.signing_keys import LOG, SigningKey
from app.ledger.key_statements import KeyChange
from app.ledger.writing import SealedAppend
from app.ledger_assembly import LedgerParts, ledger_parts
from app.log_keeping import _continuity, _verified_start, log_keeper
from app.policy.gate import DascGate
from app.privacy.scrubber import Scrubber
from app.runs.notifier import Bell
from app.runs.recorder import RecorderParts
from app.sequencing.anchor_file import AnchorFile
from app.sequencing.anchoring import Anchoring
from app.sequencing.enrolment_rotation import EnrolmentRotation
from app.sequencing.erasure_rotation import ErasureRotation
from app.sequencing.log_keeper import KeeperParts, _Term, known_loss
from app.sequencing.recovery import RecoveryDesk
from app.sequencing.sequencer import Sequencer
from app.sequencing.settling import Settling
from app.settings import Settings
from app.storage.companions import Companion
from app.storage.database import Database
from app.storage.keeper_store import halt
from app.storage.ledger_store import LedgerStore, Receipt
from app.storage.sequencer_store import leading
from app.transparency.witness_policy import parse_policy
from tests.integration.states.lifeline import PATIENCE_SECONDS, Fate, Lifeline
from tests.support.databases import Roles, connect, execute
from tests.support.live_server import KEY_ITEMS
from tests.support.small_log import NoteKey

WITNESS = NoteKey("witness.test/w1", kind=4)
_LATER = timedelta(hours=24)  # keys end when the test says so
_UNPLACED = """
SELECT count(*) FROM record r WHERE NOT EXISTS (
  SELECT 1 FROM leaf l WHERE (l.tenant_id, l.run_id, l.seq) = (r.tenant_id, r.run_id, r.seq))
"""


class JournalCrashError(Exception):
    """The eraser died when all was done but the commit."""


class CrashingJournal(ErasureJournal):
    """A real journal whose process can die right after the entry is on the disk."""

    crashes = False

    def append(self, erasure_id: ErasureId, tenant_id: TenantId, note: JsonObject) -> None:
        super().append(erasure_id, tenant_id, note)
        if self.crashes:
            self.crashes = False
            raise JournalCrashError


class Witness:
    """A witness of the tests' own: the memory of an anchor file, and a cosignature."""

    name = "w1"

    def __init__(self, path: Path) -> None:
        self._memory = AnchorFile(path)
        self.newest = self._memory.newest

    async def publish(
        self, note: str, size: int, proof_from: Callable[[int], Awaitable[Sequence[bytes]]]
    ) -> str:
        await self._memory.publish(note, size, proof_from)
        text = note[: note.index("\n\n") + 1]
        return WITNESS.line(text.encode(), at=int(time.time())).decode()


class ReceiptBook(LedgerStore):
    """The real store; remembers what it was asked to write last and can lose the line over it."""

    def __init__(self, database: Database, line: Lifeline) -> None:
        super().__init__(database)
        self._line = line
        self.fate: Fate | None = None
        self.tried: dict[RunId, SealedAppend] = {}

    async def append(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        sealed: SealedAppend,
        companions: Sequence[Companion] = (),
    ) -> Receipt:
        self.tried[run_id] = sealed
        if self.fate is not None:
            self._line.cut_at(sealed.records[-1].chain, self.fate)
            self.fate = None
        receipt = await super().append(tenant_id, run_id, sealed, companions)
        last = sealed.records[-1]
        assert (receipt.seq, receipt.rc, receipt.chain) == (last.seq, last.rc, last.chain)
        return receipt


class Seat:
    """A process that writes runs."""

    def __init__(self, parts: LedgerParts, line: Lifeline) -> None:
        self.parts = parts
        self.line = line
        self.store = ReceiptBook(parts.database, line)
        self.recording = RecorderParts(
            store=self.store,
            keys=parts.run_keys,
            writer=parts.writer,
            scrubber=Scrubber([]),
            bell=Bell(),
            now=lambda: datetime.now(UTC),
            entropy=os.urandom,
            result_ttl_seconds=3600,
        )


class Deployment:
    """Everything of one database. `close` lets go of it."""

    def __init__(self, roles: Roles, directory: Path) -> None:
        self.roles = roles
        self.gate = DascGate(roster.rule_book())
        self._directory = directory
        roster_file = directory / "witnesses"
        roster_file.write_text(f"witness w1 {WITNESS.vkey}\nquorum w1\n", encoding="utf-8")
        self._witness = Witness(directory / "memory")
        self._lines: list[Lifeline] = []
        self._databases: list[Database] = []
        self._copies: list[str] = []
        self.office: LedgerParts
        self.eraser: EraserAtWork
        self.journal: CrashingJournal
        self.superuser: asyncpg.Connection
        self._keeping: KeeperParts
        self._offices: list[Database] = []

    def _settings(self, url: str) -> Settings:
        names = {
            "MESHFLOW_API_KEYS": KEY_ITEMS,
            "MESHFLOW_DATABASE_URL": url,
            "MESHFLOW_ERASER_DATABASE_URL": self.roles.eraser,
            "MESHFLOW_SEQUENCER_DATABASE_URL": self.roles.sequencer,
            "MESHFLOW_ERASURE_KEY_FILE": str(self._directory / "erasing" / "key"),
            "MESHFLOW_DATA_DIR": str(self._directory / "data"),
            "MESHFLOW_LEDGER_KEY_DIR": str(self._directory / "keys"),
            "MESHFLOW_WITNESSES": str(self._directory / "witnesses"),
            "MESHFLOW_DEPLOYMENT": "states.test",
        }
        return Settings.from_environ(names, uid=1000, home=self._directory)

    async def open(self) -> None:
        """The office: the eraser, the keeper of logs, and whoever reads.

        After a restore it finds that the witness has seen more, and opens a recovery.
        """
        settings = self._settings(self.roles.app)
        self.superuser = await connect(self.roles.superuser)
        self.office = ledger_parts(settings)
        places = eraser_places(settings)
        assert places is not None
        self.eraser = build_eraser(places, self.office.shared, rotate_every=_LATER)
        self.journal = CrashingJournal(places.journal)
        self.eraser.eraser._parts = replace(self.eraser.eraser._parts, journal=self.journal)
        # The witness is not asked over HTTP here: tests/integration/witness does that.
        keeper = log_keeper(replace(settings, witnesses=None), self.office)
        assert keeper is not None
        self._keeping = replace(
            keeper.keeper._parts,
            anchoring_of=lambda log: Anchoring([self._witness], keeper.database, log),
        )
        office = self.office
        self._offices = [office.database, office.heartbeat, self.eraser.database, keeper.database]
        await self._recover(settings)
        await self.office.enrolment.enrol()

    async def _recover(self, settings: Settings) -> None:
        """What the witness has seen of a longer log is declared lost.

        As a term of a leader does it: what there is has its place before it compares and halts.
        """
        parts = self._keeping
        operator = await parts.admin_log.operator_log_id()
        if await known_loss(parts, operator) is None:
            return
        async with leading(parts.database, operator) as leader:
            assert leader is not None
            sequencer = await Sequencer.start(leader, await parts.enrolment(), parts.origin_of)
            while (await sequencer.tick()).has_more:
                pass
            loss = await known_loss(parts, operator)
            assert loss is not None
            await halt(leader, operator, loss.reason)
        owner = Database(self.roles.owner, pool_size=2)
        try:
            await self.office.enrolment.register()
            desk = RecoveryDesk(
                owner=owner,
                admin_log=self.office.admin_log,
                anchoring=Anchoring([self._witness], owner, operator),
                continuity=_continuity(settings, self.office, operator),
                operator=operator,
                start=_verified_start(settings, self.office, operator),
            )
            await desk.open(max(loss.seen.size - loss.held, 0))
        finally:
            await owner.close()

    async def move_out(self, *, says_goodbye: bool) -> None:
        """The office is closed; what it knew by heart is forgotten."""
        if says_goodbye:
            await self.office.enrolment.leave()
        for database in self._offices:
            await database.close()
        self._offices = []
        await self.superuser.close()

    async def close(self) -> None:
        """Nothing of it is left open."""
        await self.move_out(says_goodbye=False)
        for database in self._databases:
            await database.close()
        for line in self._lines:
            await line.close()
        for name in self._copies:
            await execute(self._admin, f'DROP DATABASE "{name}" WITH (FORCE)')

    @property
    def _admin(self) -> str:
        return self.roles.named("postgres").superuser

    async def copied(self) -> Roles:
        """A copy of the database as it is, while nobody of the deployment is there."""
        source = urlsplit(self.roles.app).path.strip("/")
        name = f"mf_states_{token_hex(6)}"
        end = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE datname = '{source}' AND pid <> pg_backend_pid()"
        )
        make = f'CREATE DATABASE "{name}" TEMPLATE "{source}" OWNER mf_owner STRATEGY FILE_COPY'
        await execute(self._admin, end, make)
        self._copies.append(name)
        return self.roles.named(name)

    def _parts(self, settings: Settings) -> LedgerParts:
        parts = ledger_parts(settings)
        self._databases += [parts.database, parts.heartbeat]
        return parts

    async def seat(
        self, certifying: Callable[[], AbstractContextManager[SigningKey]] | None = None
    ) -> Seat:
        """One more process, with a key of its own and a line that can be cut.

        `certifying`: it has its certificate by this key, and no record says so.
        """
        line = Lifeline(self.roles.app)
        await line.open()
        self._lines.append(line)
        parts = self._parts(self._settings(line.url))
        if certifying is None:
            await parts.enrolment.enrol()
        else:
            parts.enrolment._certifying = certifying
            await parts.enrolment.register()
        return Seat(parts, line)

    async def tenant(self, name: str) -> TenantId:
        """The log of a tenant."""
        return await self.office.runs.ensure_tenant(name)

    def new_run_id(self) -> RunId:
        """Random: nothing here depends on its order."""
        return RunId(uuid4())

    async def rotate_enrolment_key(self, *, gone_seconds: float) -> KeyChange:
        """As `meshflow ledger rotate-key enrolment`, a process of its own."""
        parts = self._parts(self._settings(self.roles.app))
        keeping = self._keeping
        rotation = EnrolmentRotation(
            database=keeping.database,
            runs=parts.runs,
            admin_log=parts.admin_log,
            writer=parts.writer,
            signing=parts.signing,
            recorded=parts.logs.book.rotations,
            waiting=partial(waiting_requests, self._settings(self.roles.app)),
            settling=self._settling(),
            gone_seconds=gone_seconds,
        )
        return await rotation.rotate()

    async def rotate_erasure_key(self) -> KeyChange:
        """As `meshflow ledger rotate-key erasure`."""
        settings = self._settings(self.roles.app)
        assert settings.erasure_key_file is not None
        rotation = ErasureRotation(
            admin_log=self.office.admin_log,
            file=ErasureKeyFile(settings.erasure_key_file, os.urandom),
            publish=partial(publish_erasure_key, settings.ledger_key_dir),
            recorded=self.office.logs.book.rotations,
            settling=self._settling(),
        )
        return await rotation.rotate()

    def _settling(self) -> Settling:
        return Settling(
            database=self._keeping.database,
            enrolment=self._keeping.enrolment,
            origin_of=self._keeping.origin_of,
        )

    def add_log_key(self) -> None:
        """The next log key, which the leader takes up when it next signs."""
        self.office.signing.add(LOG)

    async def sequence(self) -> None:
        """A term of a leader: all that was written is placed, signed and shown to the witness."""
        parts = self._keeping
        operator = await parts.admin_log.operator_log_id()
        async with leading(parts.database, operator) as leader:
            assert leader is not None, "somebody else leads"
            may_write = asyncio.Event()
            may_write.set()
            term = _Term(parts, leader, operator, may_write)
            start = term._checkpoints._continuity._start
            assert start is not None
            start._save_every = 8  # so that a term begins where one of the last has verified to
            sequencer = await Sequencer.start(leader, await parts.enrolment(), parts.origin_of)
            await self._placed(sequencer)
            await term._compare()
            assert term._is_compared, "the witness has seen more"
            while not await term._checkpoints.read_on(leader):
                pass
            for _ in range(2):  # somebody's open transaction may keep what is signed out of its log
                await term._sign(sequencer)
                assert term._checkpoints.discontinuity is None, term._checkpoints.discontinuity
                if term._publishing is not None:
                    await term._publishing
                await term._collect()
                assert not term._is_owed, "the witness did not take it"
                await self._placed(sequencer)
            await term._look_after()

    async def _placed(self, sequencer: Sequencer) -> None:
        """Every record has its place."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            # A server that was hung up on still has to end its transaction.
            while (await sequencer.tick()).has_more or await self._unplaced():  # noqa: ASYNC110 - Postgres sends no event
                await asyncio.sleep(0.01)

    async def _unplaced(self) -> int:
        found: int = await self.superuser.fetchval(_UNPLACED)
        return found

    async def policy(self) -> bytes:
        """What a verifier pins who trusts these keys and this witness."""
        return (await self.office.key_lister.policy()).encode()

    async def swept(self) -> list[LogReport]:
        """All logs by the auditor's login and the key of the operator log."""
        database = Database(self.roles.audit, pool_size=1)
        try:
            pins = Pins.of(parse_policy(await self.policy()))
            key = await self.office.admin_log.operator_key()
            return await Sweep(database, pins, lambda *_: None, key).run(None)
        finally:
            await database.close()
