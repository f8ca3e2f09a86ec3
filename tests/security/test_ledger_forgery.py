"""A forger who owns the database, knows the format and hashes correctly is still named."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from app.keys.signing_keys import ENROLMENT, SigningKeys
from app.ledger.batches import SealedBatch, signed_batch
from app.ledger.canonical import canonical
from app.ledger.chain import FINAL_KIND
from app.ledger.enrolment import writer_statement
from app.ledger.hashing import (
    batch_entry,
    batch_message,
    chain_hash,
    genesis,
    merkle_tree_hash,
    record_hash,
)
from app.ledger.header import decode_header
from app.ledger.writing import ChainHead, Draft, RunWriter, WriterKey
from tests.security.tampering_scene import (
    Run,
    as_superuser,
    assert_broken,
    disarmed_server,
    verification,
    whole_run,
)
from tests.support.databases import Roles
from tests.support.live_server import LiveServer


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with disarmed_server(roles) as served:
        yield served


@pytest.fixture
def run(live: LiveServer) -> Run:
    return whole_run(live)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The last record of a run, as a forger finds it."""

    tenant_id: UUID
    seq: int
    epoch: int
    ts: datetime
    chain: bytes
    batch_id: UUID
    writer_id: UUID


async def _last(raw: asyncpg.Connection, run: Run) -> Row:
    found = await raw.fetchrow(
        "SELECT r.tenant_id, seq, epoch, ts, chain, batch_id, writer_id FROM record r"
        " JOIN batch b USING (tenant_id, batch_id) WHERE run_id = $1 ORDER BY seq DESC LIMIT 1",
        run.run_id,
    )
    return Row(**{name: found[name] for name in Row.__dataclass_fields__})


def _forged(run: Run, last: Row, writer: WriterKey, kind: str = FINAL_KIND) -> SealedBatch:
    """A record after the last one: every member lawful, every hash right, no payload."""
    maker = RunWriter(
        log=last.tenant_id.bytes,
        run=run.run_id.bytes,
        run_key=os.urandom(32),
        writer=writer,
        entropy=os.urandom,
    )
    head = ChainHead(next_seq=last.seq + 1, chain=last.chain)
    draft = Draft(kind=kind, actor="system", outcome="succeeded")
    sealed = maker.seal(head, [draft], epoch=last.epoch, at=last.ts)
    return signed_batch([sealed], os.urandom(16))


def enrolled(live: LiveServer, writer: WriterKey) -> bytes:
    """A certificate by the deployment's own enrolment key."""
    key = SigningKeys(live.keys, os.urandom).current(ENROLMENT)
    return key.sign(writer_statement(writer.writer_id, writer.public_key))


async def _insert(
    raw: asyncpg.Connection, run: Run, last: Row, forged: SealedBatch, batch_id: UUID
) -> None:
    (record,) = forged.records
    await raw.execute(
        "INSERT INTO record VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        last.tenant_id,
        run.run_id,
        record.seq,
        record.epoch,
        record.kind,
        record.at,
        record.header,
        record.rc,
        record.chain,
        batch_id,
    )
    await raw.execute("UPDATE runs SET entries = entries + 1 WHERE run_id = $1", run.run_id)


async def _insert_batch(
    raw: asyncpg.Connection, last: Row, forged: SealedBatch, writer: UUID
) -> None:
    await raw.execute(
        "INSERT INTO batch (tenant_id, batch_id, writer_id, n, ranges, tip, sig)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        last.tenant_id,
        UUID(bytes=forged.batch_id),
        writer,
        len(forged.records),
        forged.ranges,
        forged.tip,
        forged.signature,
    )


def test_a_chained_record_without_a_batch_is_named(live: LiveServer, run: Run) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        writer = WriterKey(os.urandom(32), last.writer_id.bytes)
        await _insert(raw, run, last, _forged(run, last, writer), uuid4())

    as_superuser(live.roles, act)
    assert_broken(live, run, 9, "the batch of a record is gone")


def test_a_chained_record_slipped_into_a_signed_batch_is_named(live: LiveServer, run: Run) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        writer = WriterKey(os.urandom(32), last.writer_id.bytes)
        forged = _forged(run, last, writer)
        await _insert(raw, run, last, forged, last.batch_id)

    as_superuser(live.roles, act)
    assert_broken(live, run, 7, "the ranges of a batch do not cover its records")


def test_a_signed_batch_stretched_over_a_forged_record_is_named(live: LiveServer, run: Run) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        writer = WriterKey(os.urandom(32), last.writer_id.bytes)
        forged = _forged(run, last, writer)
        await _insert(raw, run, last, forged, last.batch_id)
        rows = await raw.fetch(
            "SELECT seq, chain FROM record WHERE batch_id = $1 ORDER BY seq", last.batch_id
        )
        entries = [batch_entry(run.run_id.bytes, row["seq"], row["chain"]) for row in rows]
        await raw.execute(
            "UPDATE batch SET n = $2, tip = $3, ranges = overlay(ranges placing $4 from 25)"
            " WHERE batch_id = $1",
            last.batch_id,
            len(rows),
            merkle_tree_hash(entries),
            forged.ranges[24:],
        )

    as_superuser(live.roles, act)
    assert_broken(live, run, 7, "the signature of a batch does not hold")


def test_a_record_signed_in_the_name_of_the_real_writer_is_named(
    live: LiveServer, run: Run
) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        forged = _forged(run, last, WriterKey(os.urandom(32), last.writer_id.bytes))
        await _insert_batch(raw, last, forged, last.writer_id)
        await _insert(raw, run, last, forged, UUID(bytes=forged.batch_id))

    as_superuser(live.roles, act)
    assert_broken(live, run, 9, "the signature of a batch does not hold")


def test_a_replayed_signature_of_the_real_writer_is_named(live: LiveServer, run: Run) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        forged = _forged(run, last, WriterKey(os.urandom(32), last.writer_id.bytes))
        old = await raw.fetchval("SELECT sig FROM batch WHERE batch_id = $1", last.batch_id)
        replayed = replace(forged, signature=old)
        await _insert_batch(raw, last, replayed, last.writer_id)
        await _insert(raw, run, last, replayed, UUID(bytes=forged.batch_id))

    as_superuser(live.roles, act)
    assert_broken(live, run, 9, "the signature of a batch does not hold")


def test_a_record_by_a_writer_that_nobody_knows_is_named(live: LiveServer, run: Run) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        stranger = WriterKey(os.urandom(32), uuid4().bytes)
        forged = _forged(run, last, stranger)
        await _insert_batch(raw, last, forged, UUID(bytes=stranger.writer_id))
        await _insert(raw, run, last, forged, UUID(bytes=forged.batch_id))

    as_superuser(live.roles, act)
    assert_broken(live, run, 9, "the writer of a batch is unknown")


def test_a_record_that_names_another_writer_than_signed_it_is_named(
    live: LiveServer, run: Run
) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        seed = os.urandom(32)
        own = WriterKey(seed, uuid4().bytes)
        forged = _forged(run, last, WriterKey(seed, last.writer_id.bytes))
        await raw.execute(
            "INSERT INTO writer_key (writer_id, public_key, certificate) VALUES ($1, $2, $3)",
            UUID(bytes=own.writer_id),
            own.public_key,
            enrolled(live, own),
        )
        await _insert_batch(raw, last, forged, UUID(bytes=own.writer_id))
        await _insert(raw, run, last, forged, UUID(bytes=forged.batch_id))

    as_superuser(live.roles, act)
    assert_broken(live, run, 9, "a record names another writer than its batch")


@pytest.mark.parametrize("certificate", [None, bytes(64)])
def test_a_writer_that_registered_itself_is_named(
    live: LiveServer, run: Run, certificate: bytes | None
) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        own = WriterKey(os.urandom(32), uuid4().bytes)
        forged = _forged(run, last, own)
        await raw.execute(
            "INSERT INTO writer_key (writer_id, public_key, certificate) VALUES ($1, $2, $3)",
            UUID(bytes=own.writer_id),
            own.public_key,
            certificate,
        )
        await _insert_batch(raw, last, forged, UUID(bytes=own.writer_id))
        await _insert(raw, run, last, forged, UUID(bytes=forged.batch_id))

    as_superuser(live.roles, act)
    assert_broken(live, run, 9, "the writer of a batch is not certified")


@pytest.mark.parametrize("place", [1, 4, 8])
def test_a_record_forged_into_the_middle_is_named(live: LiveServer, run: Run, place: int) -> None:
    async def act(raw: asyncpg.Connection) -> None:
        last = await _last(raw, run)
        before = await raw.fetchrow(
            "SELECT chain, epoch FROM record WHERE run_id = $1 AND seq = $2", run.run_id, place - 1
        )
        for table in ("record", "payload"):
            for step in ("seq + 1000", "seq - 999"):
                await raw.execute(
                    f"UPDATE {table} SET seq = {step} WHERE run_id = $1 AND seq >= $2",
                    run.run_id,
                    place,
                )
        earlier = replace(last, seq=place - 1, chain=before["chain"], epoch=before["epoch"])
        writer = WriterKey(os.urandom(32), last.writer_id.bytes)
        forged = _forged(run, earlier, writer, "tool.finished")
        await _insert(raw, run, last, forged, last.batch_id)

    as_superuser(live.roles, act)
    assert_broken(live, run, place + 1, "column 'seq' differs from the header")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehashed:
    """How far the forger recomputes after changing what a record says."""

    tips: bool
    signatures: bool


@pytest.mark.parametrize(
    ("depth", "seq", "reason"),
    [
        (Rehashed(tips=False, signatures=False), 3, "the tip of a batch does not match"),
        (Rehashed(tips=True, signatures=False), 3, "the signature of a batch does not hold"),
        # With a key of the forger's own even the batches before the change fail.
        (Rehashed(tips=True, signatures=True), 0, "the signature of a batch does not hold"),
    ],
)
def test_a_changed_record_with_every_later_hash_recomputed_is_named(
    live: LiveServer, run: Run, depth: Rehashed, seq: int, reason: str
) -> None:
    """The refusal of a call becomes something else, and the whole chain follows."""

    async def act(raw: asyncpg.Connection) -> None:
        await _rewrite(raw, run)
        if depth.tips:
            await _retip(raw, run, sign=depth.signatures)

    as_superuser(live.roles, act)
    assert_broken(live, run, seq, reason)


async def _rewrite(raw: asyncpg.Connection, run: Run) -> None:
    rows = await raw.fetch(
        "SELECT tenant_id, seq, header FROM record WHERE run_id = $1 ORDER BY seq", run.run_id
    )
    chain = genesis(rows[0]["tenant_id"].bytes, run.run_id.bytes)
    for row in rows:
        header = row["header"]
        if row["seq"] == 4:
            header = canonical({**decode_header(header), "outcome": "forged"})
        rc = record_hash(header)
        chain = chain_hash(chain, row["seq"], rc)
        await raw.execute(
            "UPDATE record SET header = $3, rc = $4, chain = $5 WHERE run_id = $1 AND seq = $2",
            run.run_id,
            row["seq"],
            header,
            rc,
            chain,
        )


async def _retip(raw: asyncpg.Connection, run: Run, *, sign: bool) -> None:
    rows = await raw.fetch(
        "SELECT tenant_id, batch_id, seq, chain FROM record WHERE run_id = $1 ORDER BY seq",
        run.run_id,
    )
    forger = WriterKey(os.urandom(32), os.urandom(16))
    for batch_id in {row["batch_id"] for row in rows}:
        mine = [row for row in rows if row["batch_id"] == batch_id]
        entries = [batch_entry(run.run_id.bytes, row["seq"], row["chain"]) for row in mine]
        tip = merkle_tree_hash(entries)
        await raw.execute("UPDATE batch SET tip = $2 WHERE batch_id = $1", batch_id, tip)
        if sign:
            message = batch_message(mine[0]["tenant_id"].bytes, batch_id.bytes, len(mine), tip)
            signature = forger.sign(message)
            await raw.execute("UPDATE batch SET sig = $2 WHERE batch_id = $1", batch_id, signature)


def test_a_rewrite_that_changes_nothing_raises_no_alarm(live: LiveServer, run: Run) -> None:
    """The forger's own tools are right: what fails above fails for the forgery, not for a slip."""

    async def act(raw: asyncpg.Connection) -> None:
        await _retip(raw, run, sign=False)

    as_superuser(live.roles, act)
    assert verification(live, run).verdict == "valid"
