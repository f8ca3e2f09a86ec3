"""Verifies a run's stored records: the answer is a verified chain or the first break, named.

Source: docs/ledger-format.md section 8.

Threat: Ledger tampering
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.errors import ChainBreak
from app.domain.run import JsonObject
from app.ledger.batches import BatchError, root_over
from app.ledger.canonical import CanonicalError
from app.ledger.enrolment import is_certified
from app.ledger.hashing import batch_message, chain_hash, commitment, genesis, record_hash
from app.ledger.header import FIELD_NAMES, decode_header, encode_time
from app.ledger.sealing import RunSealer, SealError
from app.ledger.signatures import signature_holds
from app.ledger.writing import SealedField

FINAL_KIND = "run.finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A row of `record`, believed by nobody yet."""

    seq: int
    epoch: int | None
    kind: str | None
    at: datetime | None
    header: bytes | None
    rc: bytes
    chain: bytes
    batch_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBatch:
    """A row of `batch` with the public key and certificate of its writer, if they are known."""

    batch_id: bytes
    writer: bytes
    count: int
    ranges: bytes
    entries: bytes | None
    tip: bytes
    signature: bytes
    public_key: bytes | None
    certificate: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """Everything stored of one run's ledger, and what its row says of its end and length."""

    log: bytes
    run: bytes
    records: Sequence[StoredRecord]
    fields: Sequence[SealedField]
    batches: Mapping[bytes, StoredBatch]
    ended: bool  # whether the run's row says that it is over
    entries: int | None  # fixed when the run ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """How far a reader has verified already: what follows is checked from there."""

    next_seq: int
    chain: bytes
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedRecord:
    """A record that proved itself: header members, hashes, opened fields."""

    seq: int
    kind: str
    at: datetime
    header: JsonObject
    rc: bytes
    chain: bytes
    fields: Mapping[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain:
    """Proof that a run's stored records verify. Made here only; reads return nothing else."""

    records: tuple[VerifiedRecord, ...]
    head: Resume


class _BrokenError(Exception):
    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(reason)
        self.found = ChainBreak(seq=seq, reason=reason)


def verify_run(
    stored: StoredRun,
    run_key: bytes,
    enrolment: Collection[bytes],
    after: Resume | None = None,
    *,
    placed: int = 0,
) -> VerifiedChain | ChainBreak:
    """The verified chain, or the first break in seq order. Never raises on hostile rows.

    Proves order, content and authorship by a writer whom one of the `enrolment` keys certified. A
    tail cut from an unfinished run is beyond it: that needs a witness. The caller shows that the
    first `placed` records are in a tree which the log key signed: their batches were checked then.
    """
    try:
        verified = _verify(stored, run_key, after or _start(stored))
        _check_batches(stored, enrolment, placed)
    except _BrokenError as broken:
        return broken.found
    return verified


def _start(stored: StoredRun) -> Resume:
    return Resume(next_seq=0, chain=genesis(stored.log, stored.run), epoch=0)


def _verify(stored: StoredRun, run_key: bytes, after: Resume) -> VerifiedChain:
    fields = _fields_by_seq(stored.fields)
    sealer = RunSealer(run_key, log=stored.log, run=stored.run)
    chain, epoch = after.chain, after.epoch
    verified: list[VerifiedRecord] = []
    for expected, record in enumerate(stored.records, after.next_seq):
        if record.seq != expected:
            raise _BrokenError(expected, "a record is missing or out of order")
        header = _header(stored, record, epoch)
        kind, at, epoch = _told(record)
        chain = _linked(record, chain)
        opened = _opened(stored, sealer, record.seq, header, fields.pop(record.seq, []))
        verified.append(
            VerifiedRecord(
                seq=record.seq,
                kind=kind,
                at=at,
                header=header,
                rc=record.rc,
                chain=record.chain,
                fields=opened,
            )
        )
    end = after.next_seq + len(verified)
    _check_length(stored, verified, end)
    if fields:
        raise _BrokenError(min(fields), "a payload belongs to no record")
    head = Resume(next_seq=end, chain=chain, epoch=epoch)
    return VerifiedChain(records=tuple(verified), head=head)


def _fields_by_seq(fields: Sequence[SealedField]) -> dict[int, list[SealedField]]:
    by_seq: dict[int, list[SealedField]] = {}
    for item in fields:
        by_seq.setdefault(item.seq, []).append(item)
    return by_seq


def _header(stored: StoredRun, record: StoredRecord, epoch: int) -> JsonObject:
    if record.header is None:
        raise _BrokenError(record.seq, "the header is gone without a recorded erasure")
    try:
        header = decode_header(record.header)
    except CanonicalError as error:
        raise _BrokenError(record.seq, f"the header is malformed: {error}") from error
    columns: JsonObject = {
        "log": stored.log.hex(),
        "run": stored.run.hex(),
        "seq": record.seq,
        "epoch": record.epoch,
        "kind": record.kind,
        "ts": None if record.at is None else encode_time(record.at),
    }
    for name, value in columns.items():
        if header[name] != value:
            raise _BrokenError(record.seq, f"column '{name}' differs from the header")
    if record.epoch is not None and record.epoch < epoch:
        raise _BrokenError(record.seq, "the epoch fell")
    return header


def _told(record: StoredRecord) -> tuple[str, datetime, int]:
    """What the columns say, none of them empty while there is a header."""
    if record.kind is None or record.at is None or record.epoch is None:
        raise _BrokenError(record.seq, "a column is gone without a recorded erasure")
    return record.kind, record.at, record.epoch


def _linked(record: StoredRecord, previous: bytes) -> bytes:
    if record.header is None or record_hash(record.header) != record.rc:
        raise _BrokenError(record.seq, "the record hash does not match the header")
    chain = chain_hash(previous, record.seq, record.rc)
    if chain != record.chain:
        raise _BrokenError(record.seq, "the chain hash does not match")
    return chain


def _opened(
    stored: StoredRun,
    sealer: RunSealer,
    seq: int,
    header: JsonObject,
    fields: Sequence[SealedField],
) -> dict[str, bytes]:
    commits = header["commit"]
    if not isinstance(commits, dict):
        raise _BrokenError(seq, "the header has no commitments")
    opened: dict[str, bytes] = {}
    for item in fields:
        name = FIELD_NAMES.get(item.field)
        if name is None or name not in commits or name in opened:
            raise _BrokenError(seq, "a payload field was never committed to")
        try:
            salt, value = sealer.open(seq=seq, field=item.field, blob=item.blob)
        except SealError as error:
            raise _BrokenError(seq, f"payload '{name}' does not open") from error
        if commitment(stored.log, stored.run, seq, name, salt, value).hex() != commits[name]:
            raise _BrokenError(seq, f"payload '{name}' differs from its commitment")
        opened[name] = value
    for name in commits:
        if name not in opened:
            raise _BrokenError(seq, f"payload '{name}' is gone without a recorded erasure")
    return opened


def _check_length(stored: StoredRun, verified: Sequence[VerifiedRecord], end: int) -> None:
    if end == 0:
        raise _BrokenError(0, "a run without records")
    # A row that says "not over yet" must not hide that the end was written, or that it was cut.
    if stored.ended and stored.entries is None:
        raise _BrokenError(end - 1, "a finished run does not say how long it is")
    if stored.entries is not None and not stored.ended:
        raise _BrokenError(end - 1, "an unfinished run says how long it is")
    if stored.entries is None:
        if verified and verified[-1].kind == FINAL_KIND:
            raise _BrokenError(end - 1, "a run that ended is said to go on")
        return
    if end != stored.entries:
        raise _BrokenError(end, f"a finished run of {stored.entries} records was cut")
    if verified and verified[-1].kind != FINAL_KIND:
        raise _BrokenError(end - 1, "a finished run does not end with its final record")


def _check_batches(stored: StoredRun, enrolment: Collection[bytes], placed: int) -> None:
    members: dict[bytes, list[StoredRecord]] = {}
    for record in stored.records:
        members.setdefault(record.batch_id, []).append(record)
    for batch_id, records in members.items():
        if records[-1].seq < placed:
            continue
        batch = stored.batches.get(batch_id)
        seq = records[0].seq
        if batch is None:
            raise _BrokenError(seq, "the batch of a record is gone")
        if batch.public_key is None:
            raise _BrokenError(seq, "the writer of a batch is unknown")
        if not is_certified(enrolment, batch.writer, batch.public_key, batch.certificate):
            raise _BrokenError(seq, "the writer of a batch is not certified")
        _check_batch(stored, batch, records)


def _check_batch(stored: StoredRun, batch: StoredBatch, records: Sequence[StoredRecord]) -> None:
    seq = records[0].seq
    try:
        shape = (batch.ranges, batch.count, batch.entries)
        root = root_over(shape, stored.run, seq, [record.chain for record in records])
    except BatchError as error:
        raise _BrokenError(seq, str(error)) from error
    if root != batch.tip:
        raise _BrokenError(seq, "the tip of a batch does not match its records")
    for record in records:
        header = decode_header(record.header or b"")
        if header["writer"] != batch.writer.hex():
            raise _BrokenError(record.seq, "a record names another writer than its batch")
    message = batch_message(stored.log, batch.batch_id, batch.count, root)
    if not signature_holds(batch.public_key or b"", batch.signature, message):
        raise _BrokenError(seq, "the signature of a batch does not hold")
