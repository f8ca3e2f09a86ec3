"""A ledger without a server: a store, a writer, and runs whose batches the test seals itself."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg

from app.domain.run import RunId, RunKind, RunStatus, TenantId, Usage
from app.domain.verdict import Scrubbed, ScrubBlock
from app.keys.signing_keys import SigningKey
from app.ledger.chain import StoredRun, VerifiedChain, verify_run
from app.ledger.enrolment import writer_statement
from app.ledger.writing import ChainHead, Draft, RunWriter, SealedAppend, WriterKey
from app.storage.companions import Change, Companion, NewRun, WrappedKey
from app.storage.database import Database
from app.storage.ledger_store import LedgerStore, Receipt
from app.storage.run_store import RunStore
from tests.support.databases import Roles

AT = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)
BLOCK = ScrubBlock(
    engine="test/1",
    rules="sha256:" + "0" * 64,
    policy="default",
    mode="mask",
    status="ok",
    counts={"secret": 0},
    unscanned=0,
)
NO_KEY = WrappedKey(kek_id="kept/by/the/test", wrapped=b"wrapped")

_ENROLMENT = SigningKey(b"enrolment of the storage tests..")
ENROLMENT = frozenset({_ENROLMENT.public_key})


def certified(writer: WriterKey) -> bytes:
    """The certificate of a writer of these tests."""
    return _ENROLMENT.sign(writer_statement(writer.writer_id, writer.public_key))


def words(text: str) -> Scrubbed:
    """A payload as the scrubber would hand it on."""
    return Scrubbed(value=text.encode(), block=BLOCK)


def step(kind: str = "step.taken", text: str = '"said"') -> Draft:
    """A record with one field."""
    return Draft(kind=kind, actor="system", fields={"note": words(text)})


@dataclass(slots=True)
class Author:
    """One run as its owner sees it: what it seals, under which epoch, after which head."""

    tenant_id: TenantId
    run_id: RunId
    writer: WriterKey
    run_key: bytes
    head: ChainHead = field(init=False)
    epoch: int = 1

    def __post_init__(self) -> None:
        self.head = ChainHead.empty(self.tenant_id.bytes, self.run_id.bytes)

    def seal(self, *drafts: Draft, at: datetime = AT) -> SealedAppend:
        """Records after the present head, which does not move."""
        writer = RunWriter(
            log=self.tenant_id.bytes,
            run=self.run_id.bytes,
            run_key=self.run_key,
            writer=self.writer,
            entropy=os.urandom,
        )
        return writer.seal(self.head, drafts or (step(),), epoch=self.epoch, at=at)

    def new_run(self, status: RunStatus = RunStatus.QUEUED) -> NewRun:
        """The companion that brings the run's row."""
        return NewRun(
            kind=RunKind.AGENT,
            status=status,
            provider="offline",
            model="offline",
            agent=None,
            policy_digest="0" * 64,
            created_at=AT,
            key=NO_KEY,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A process as the ledger sees it: its pool and its key."""

    database: Database
    store: LedgerStore
    runs: RunStore
    writer: WriterKey
    tenant_id: TenantId

    def author(self, run_id: RunId | None = None, run_key: bytes | None = None) -> Author:
        """The owner of a run, new unless it is named."""
        return Author(
            self.tenant_id, run_id or RunId(uuid4()), self.writer, run_key or os.urandom(32)
        )

    async def write(self, author: Author, batch: SealedAppend, *companions: Companion) -> Receipt:
        """Append, and let the author's head follow."""
        receipt = await self.store.append(author.tenant_id, author.run_id, batch, companions)
        author.head = batch.head
        return receipt

    async def begun(self, status: RunStatus = RunStatus.QUEUED) -> Author:
        """A run with its first record."""
        author = self.author()
        await self.write(author, author.seal(), author.new_run(status))
        return author

    async def head(self, author: Author) -> ChainHead:
        """Where the database says that the run's next record goes."""
        async with self.database.snapshot(author.tenant_id) as raw:
            row = await raw.fetchrow(
                "SELECT seq, chain FROM record WHERE tenant_id = $1 AND run_id = $2"
                " ORDER BY seq DESC LIMIT 1",
                author.tenant_id,
                author.run_id,
            )
        return ChainHead(next_seq=row["seq"] + 1, chain=row["chain"])

    async def stored(self, author: Author) -> StoredRun:
        """What the database holds of a run."""
        async with self.database.snapshot(author.tenant_id) as raw:
            row = await self.runs.find(raw, author.tenant_id, author.run_id)
            assert row is not None
            found, _ = await self.store.read(raw, row)
            return found

    async def verified(self, author: Author) -> VerifiedChain:
        """The run's chain, which must hold."""
        checked = verify_run(await self.stored(author), author.run_key, ENROLMENT)
        assert isinstance(checked, VerifiedChain), checked
        return checked


def ending(author: Author, batch: SealedAppend, status: RunStatus = RunStatus.SUCCEEDED) -> Change:
    """The companion of a final record."""
    assert batch.head.next_seq > author.head.next_seq
    return Change(status=status, usage=Usage(), finished_at=AT, entries=batch.head.next_seq)


@asynccontextmanager
async def scene_on(
    roles: Roles, *, tenant: str = "acme", pool_size: int = 10
) -> AsyncIterator[Scene]:
    """A process with a key of its own on the database of `roles`."""
    database = Database(roles.app, pool_size=pool_size)
    runs = RunStore(database)
    writer = WriterKey(os.urandom(32), uuid4().bytes)
    try:
        await runs.register_writer(
            UUID(bytes=writer.writer_id), writer.public_key, certified(writer)
        )
        tenant_id = await runs.ensure_tenant(tenant)
        yield Scene(
            database=database,
            store=LedgerStore(database),
            runs=runs,
            writer=writer,
            tenant_id=tenant_id,
        )
    finally:
        await database.close()


async def count(raw: asyncpg.Connection, table: str, run_id: UUID) -> int:
    """Rows of one run."""
    found: int = await raw.fetchval(f"SELECT count(*) FROM {table} WHERE run_id = $1", run_id)
    return found


def seqs(chain: VerifiedChain) -> Sequence[int]:
    """The positions in a verified chain."""
    return [record.seq for record in chain.records]
