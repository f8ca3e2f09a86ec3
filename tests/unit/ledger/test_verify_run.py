"""The verifier alone: it accepts what the writer made and names the first break of all else."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.errors import ChainBreak
from app.domain.verdict import Scrubbed, ScrubBlock
from app.keys.signing_keys import SigningKey
from app.ledger.batches import SealedBatch, signed_batch
from app.ledger.chain import (
    Resume,
    StoredBatch,
    StoredRecord,
    StoredRun,
    VerifiedChain,
    verify_run,
)
from app.ledger.enrolment import writer_statement
from app.ledger.hashing import chain_hash, record_hash
from app.ledger.sealing import RunSealer, SealError
from app.ledger.writing import ChainHead, Draft, RunWriter, SealedField, WriterKey

LOG, RUN, KEY = bytes(range(16)), bytes(range(16, 32)), bytes(range(32))
ENROLMENT = SigningKey(b"e" * 32)
OTHER_KEY = WriterKey(b"o" * 32, b"w" * 16).public_key
AT = datetime(2026, 11, 24, 12, 0, 0, 5, tzinfo=UTC)
BLOCK = ScrubBlock(
    engine="test/1",
    rules="sha256:" + "0" * 64,
    policy="default",
    mode="mask",
    status="ok",
    counts={},
    unscanned=0,
)


def certificate(writer: bytes, public_key: bytes) -> bytes:
    return ENROLMENT.sign(writer_statement(writer, public_key))


def _entropy(seed: str) -> Callable[[int], bytes]:
    """A stream that gives the same bytes each time."""
    counter = iter(range(1 << 30))
    return lambda length: hashlib.shake_128(f"{seed} {next(counter)}".encode()).digest(length)


def _words(text: str) -> Scrubbed:
    return Scrubbed(value=text.encode(), block=BLOCK)


@dataclass(slots=True)
class Book:
    """A run as its writer makes it."""

    writer: WriterKey = field(default_factory=lambda: WriterKey(b"k" * 32, b"w" * 16))
    batches: list[SealedBatch] = field(default_factory=list)
    epoch: int = 1

    def add(self, *drafts: Draft, at: datetime = AT) -> None:
        head = self.batches[-1].appends[0].head if self.batches else ChainHead.empty(LOG, RUN)
        entropy = _entropy(f"batch {len(self.batches)}")
        maker = RunWriter(
            log=LOG,
            run=RUN,
            run_key=KEY,
            writer=self.writer,
            entropy=entropy,
        )
        sealed = maker.seal(head, drafts, epoch=self.epoch, at=at)
        self.batches.append(signed_batch([sealed], entropy(16)))

    def stored(self, *, ended: bool = True) -> StoredRun:
        records = [
            StoredRecord(
                seq=r.seq,
                epoch=r.epoch,
                kind=r.kind,
                at=r.at,
                header=r.header,
                rc=r.rc,
                chain=r.chain,
                batch_id=batch.batch_id,
            )
            for batch in self.batches
            for r in batch.records
        ]
        return StoredRun(
            log=LOG,
            run=RUN,
            records=records,
            fields=[item for batch in self.batches for item in batch.fields],
            batches={batch.batch_id: self._batch(batch) for batch in self.batches},
            ended=ended,
            entries=len(records) if ended else None,
        )

    def _batch(self, batch: SealedBatch) -> StoredBatch:
        return StoredBatch(
            batch_id=batch.batch_id,
            writer=batch.writer,
            count=len(batch.records),
            ranges=batch.ranges,
            entries=batch.entries,
            tip=batch.tip,
            signature=batch.signature,
            public_key=self.writer.public_key,
            certificate=certificate(self.writer.writer_id, self.writer.public_key),
        )


def _book() -> Book:
    book = Book()
    book.add(Draft(kind="run.submitted", actor="system", fields={"task": _words('"do"')}))
    book.epoch = 2
    book.add(
        Draft(kind="llm.requested", actor="system", fields={"request": _words("1")}),
        Draft(kind="llm.responded", actor="model", intent=1, fields={"reply": _words('"so"')}),
        at=AT + timedelta(seconds=1),
    )
    book.add(
        Draft(kind="run.finished", actor="system", fields={"output": _words('"done"')}),
        at=AT + timedelta(seconds=2),
    )
    return book


WHOLE = _book().stored()


def _broken(stored: StoredRun, key: bytes = KEY, after: Resume | None = None) -> tuple[int, str]:
    found = verify_run(stored, key, {ENROLMENT.public_key}, after)
    assert isinstance(found, ChainBreak), "not noticed"
    return found.seq, found.reason


def _with(at: int, /, **changes: object) -> StoredRun:
    records = list(WHOLE.records)
    records[at] = replace(records[at], **changes)  # type: ignore[arg-type]  # the test names the fields
    return replace(WHOLE, records=records)


def _with_batch(at: int, /, **changes: object) -> StoredRun:
    batch = WHOLE.batches[WHOLE.records[at].batch_id]
    other = replace(batch, **changes)  # type: ignore[arg-type]  # the test names the fields
    return replace(WHOLE, batches={**WHOLE.batches, batch.batch_id: other})


def test_what_the_writer_made_verifies_and_opens() -> None:
    chain = verify_run(WHOLE, KEY, {ENROLMENT.public_key})
    assert isinstance(chain, VerifiedChain)
    assert [record.seq for record in chain.records] == [0, 1, 2, 3]
    assert [dict(record.fields) for record in chain.records] == [
        {"task": b'"do"'},
        {"request": b"1"},
        {"reply": b'"so"'},
        {"output": b'"done"'},
    ]
    assert chain.head == Resume(next_seq=4, chain=WHOLE.records[3].chain, epoch=2)


@pytest.mark.parametrize("split", [1, 3])
def test_a_reader_goes_on_from_where_it_verified(split: int) -> None:
    book = _book()
    first = replace(
        book.stored(ended=False),
        records=WHOLE.records[:split],
        fields=[item for item in WHOLE.fields if item.seq < split],
    )
    begun = verify_run(first, KEY, {ENROLMENT.public_key})
    assert isinstance(begun, VerifiedChain)
    rest = replace(
        WHOLE,
        records=WHOLE.records[split:],
        fields=[item for item in WHOLE.fields if item.seq >= split],
    )
    done = verify_run(rest, KEY, {ENROLMENT.public_key}, begun.head)
    assert isinstance(done, VerifiedChain)
    assert done.head.next_seq == 4
    wrong = replace(begun.head, chain=bytes(32))
    assert _broken(rest, after=wrong) == (split, "the chain hash does not match")
    later = replace(begun.head, epoch=3)
    assert _broken(rest, after=later) == (split, "the epoch fell")


Case = tuple[StoredRun, int, str]


def _writer_cases() -> Iterator[tuple[str, Case]]:
    yield "certificate", (_with_batch(1, certificate=None), 1, "not certified")
    yield "certificate short", (_with_batch(1, certificate=b"x"), 1, "not certified")
    yield "key of nobody", (_with_batch(1, public_key=OTHER_KEY), 1, "not certified")
    yield "writer of nobody", (_with_batch(1, writer=b"o" * 16), 1, "not certified")
    signed = certificate(b"w" * 16, b"x")
    yield "key short", (_with_batch(1, public_key=b"x", certificate=signed), 1, "the signature")
    signed = certificate(b"w" * 16, OTHER_KEY)
    yield "key", (_with_batch(1, public_key=OTHER_KEY, certificate=signed), 1, "the signature")
    signed = certificate(b"o" * 16, WriterKey(b"k" * 32, b"w" * 16).public_key)
    yield "writer", (_with_batch(1, writer=b"o" * 16, certificate=signed), 1, "another writer")


def _cases() -> Iterator[tuple[str, Case]]:
    records, fields = list(WHOLE.records), list(WHOLE.fields)
    gap = "a record is missing or out of order"
    yield "first gone", (replace(WHOLE, records=records[1:]), 0, gap)
    yield "middle gone", (replace(WHOLE, records=[*records[:1], *records[2:]]), 1, gap)
    yield "doubled", (replace(WHOLE, records=[*records[:2], *records[1:]]), 2, gap)
    yield "reordered", (replace(WHOLE, records=[records[1], records[0], *records[2:]]), 0, gap)
    yield "tail cut", (replace(WHOLE, records=records[:3], fields=fields[:3]), 3, "was cut")
    yield "no records", (replace(WHOLE, records=[], fields=[]), 0, "a run without records")
    short = replace(WHOLE, records=records[:3], fields=fields[:3], entries=3)
    yield "cut and counted", (short, 2, "does not end with its final record")
    yield "no length", (replace(WHOLE, entries=None), 3, "does not say how long")
    yield "length too soon", (replace(WHOLE, ended=False), 3, "says how long it is")
    goes_on = replace(WHOLE, ended=False, entries=None)
    yield "said to go on", (goes_on, 3, "a run that ended is said to go on")
    yield "header gone", (_with(1, header=None), 1, "the header is gone")
    yield "header empty", (_with(1, header=b""), 1, "malformed")
    yield "header an array", (_with(1, header=b"[]"), 1, "malformed")
    for name, value in (
        ("epoch", 3),
        ("kind", "x"),
        ("at", AT),
    ):
        column = "ts" if name == "at" else name
        yield name, (_with(1, **{name: value}), 1, f"column '{column}' differs")
    yield "rc", (_with(1, rc=bytes(32)), 1, "the record hash")
    yield "rc short", (_with(1, rc=b""), 1, "the record hash")
    yield "chain", (_with(1, chain=bytes(32)), 1, "the chain hash")
    yield "chain short", (_with(1, chain=records[1].chain[:31]), 1, "the chain hash")
    yield "batch gone", (_with(1, batch_id=bytes(16)), 1, "the batch of a record is gone")
    yield "no batches", (replace(WHOLE, batches={}), 0, "the batch of a record is gone")
    yield "writer unknown", (_with_batch(1, public_key=None), 1, "unknown")
    yield from _writer_cases()
    yield "ranges", (_with_batch(1, ranges=b""), 1, "the ranges")
    yield "count", (_with_batch(1, count=3), 1, "the tip")
    yield "tip", (_with_batch(1, tip=bytes(32)), 1, "the tip")
    yield "sig", (_with_batch(1, signature=bytes(64)), 1, "the signature")
    yield "sig short", (_with_batch(1, signature=b""), 1, "the signature")
    yield "field gone", (replace(WHOLE, fields=fields[1:]), 0, "payload 'task' is gone")
    yield "field twice", (replace(WHOLE, fields=[*fields, fields[0]]), 0, "never committed")
    extra = SealedField(seq=4, field=1, blob=fields[0].blob)
    yield "field of nothing", (replace(WHOLE, fields=[*fields, extra]), 4, "belongs to no record")
    odd = [replace(fields[0], field=99), *fields[1:]]
    yield "field unknown", (replace(WHOLE, fields=odd), 0, "never committed")
    cut = [replace(fields[0], blob=fields[0].blob[:20]), *fields[1:]]
    yield "field short", (replace(WHOLE, fields=cut), 0, "does not open")
    empty = [replace(fields[0], blob=b""), *fields[1:]]
    yield "field empty", (replace(WHOLE, fields=empty), 0, "does not open")
    yield "other log", (replace(WHOLE, log=b"x" * 16), 0, "column 'log'")
    yield "other run", (replace(WHOLE, run=b"x" * 16), 0, "column 'run'")


CASES = dict(_cases())


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_break_is_named_at_its_place(name: str) -> None:
    stored, seq, reason = CASES[name]
    found = _broken(stored)
    assert found[0] == seq, found
    assert reason in found[1], found


def test_content_resealed_under_the_run_key_breaks_its_commitment() -> None:
    """Whoever holds the run key can make a blob that opens, but not the one committed to."""
    salt = bytes(32)
    blob = RunSealer(KEY, log=LOG, run=RUN).seal(
        seq=0, field=1, salt=salt, value=b'"undo"', nonce=bytes(12)
    )
    fields = [replace(WHOLE.fields[0], blob=blob), *WHOLE.fields[1:]]
    found = _broken(replace(WHOLE, fields=fields))
    assert found == (0, "payload 'task' differs from its commitment")


def test_an_epoch_that_falls_is_named_even_when_everything_is_signed() -> None:
    book = Book(epoch=2)
    book.add(Draft(kind="run.submitted", actor="system"))
    book.epoch = 1
    book.add(Draft(kind="run.finished", actor="system"))
    assert _broken(book.stored()) == (1, "the epoch fell")


def test_the_wrong_run_key_opens_nothing() -> None:
    assert _broken(WHOLE, bytes(32)) == (0, "payload 'task' does not open")


@pytest.mark.parametrize(("seq", "number"), [(1, 1), (0, 2), (1, 2)])
def test_a_sealed_field_opens_only_in_its_place(seq: int, number: int) -> None:
    sealer = RunSealer(KEY, log=LOG, run=RUN)
    blob = sealer.seal(seq=0, field=1, salt=bytes(32), value=b"v", nonce=bytes(12))
    assert sealer.open(seq=0, field=1, blob=blob) == (bytes(32), b"v")
    with pytest.raises(SealError):
        sealer.open(seq=seq, field=number, blob=blob)
    for log, run in ((RUN, RUN), (LOG, LOG)):
        with pytest.raises(SealError):
            RunSealer(KEY, log=log, run=run).open(seq=0, field=1, blob=blob)


def _rechained(records: Sequence[StoredRecord], at: int, header: bytes) -> list[StoredRecord]:
    """The records with one header replaced and every later hash computed anew."""
    done = list(records)
    done[at] = replace(done[at], header=header)
    chain = done[at - 1].chain
    for index in range(at, len(done)):
        rc = record_hash(done[index].header or b"")
        chain = chain_hash(chain, index, rc)
        done[index] = replace(done[index], rc=rc, chain=chain)
    return done


@settings(max_examples=200, deadline=None, database=None)
@given(st.integers(1, 3), st.data())
def test_no_changed_header_byte_passes_even_with_its_hashes_recomputed(
    at: int, data: st.DataObject
) -> None:
    header = WHOLE.records[at].header or b""
    place = data.draw(st.integers(0, len(header) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(header)
    changed[place] ^= 1 << bit
    records = _rechained(WHOLE.records, at, bytes(changed))
    seq, _ = _broken(replace(WHOLE, records=records))
    assert seq in (at, WHOLE.records[at].seq if at != 2 else 1)


@settings(max_examples=200, deadline=None, database=None)
@given(st.integers(0, 3), st.data())
def test_no_changed_payload_byte_passes(at: int, data: st.DataObject) -> None:
    blob = bytearray(WHOLE.fields[at].blob)
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    fields = list(WHOLE.fields)
    fields[at] = replace(fields[at], blob=bytes(blob))
    seq, reason = _broken(replace(WHOLE, fields=fields))
    assert (seq, "does not open" in reason) == (at, True)


@settings(max_examples=200, deadline=None, database=None)
@given(
    header=st.none() | st.binary(max_size=200),
    rc=st.binary(max_size=40),
    chain=st.binary(max_size=40),
    signature=st.binary(max_size=70),
    public_key=st.none() | st.binary(max_size=40),
    blob=st.binary(max_size=100),
    number=st.integers(-(2**15), 2**15 - 1),
)
def test_hostile_rows_are_named_and_never_raise(
    header: bytes | None,
    rc: bytes,
    chain: bytes,
    signature: bytes,
    public_key: bytes | None,
    blob: bytes,
    number: int,
) -> None:
    wrong = [
        _with(2, header=header),
        _with(2, rc=rc),
        _with(2, chain=chain),
        _with_batch(2, signature=signature),
        _with_batch(2, public_key=public_key),
        replace(WHOLE, fields=[SealedField(seq=0, field=number, blob=blob), *WHOLE.fields[1:]]),
    ]
    for stored in wrong:
        assert isinstance(verify_run(stored, KEY, {ENROLMENT.public_key}), ChainBreak)
