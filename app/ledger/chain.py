"""Verifies a run's stored records: the answer is a verified chain or the first break, named.

What is missing is a break unless a checked erasure statement names it with the hashes that are
stored; what such a statement names and is still there is one too.
Source: docs/ledger-format.md sections 8 and 12.

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
from app.ledger.erasure_statement import NOTHING, Erased
from app.ledger.hashing import batch_message, chain_hash, commitment, genesis, record_hash
from app.ledger.header import FIELD_NAMES, decode_header, encode_time
from app.ledger.sealing import RunSealer, SealError
from app.ledger.signatures import signature_holds
from app.ledger.writing import SealedField

FINAL_KIND = "run.finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """A row of `record`, believed by nobody yet. A deleted one has its hashes and nothing else."""

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
    erased: frozenset[str]  # fields that were lawfully taken away


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChain:
    """Proof that a run's stored records verify. Made here only; reads return nothing else."""

    records: tuple[VerifiedRecord, ...]
    head: Resume
    deleted: int = 0  # records of which lawfully only the hashes are left; then `records` is empty

    @property
    def is_erased(self) -> bool:
        """Whether anything was lawfully taken away."""
        return self.deleted > 0 or any(record.erased for record in self.records)


class _BrokenError(Exception):
    def __init__(self, seq: int, reason: str) -> None:
        super().__init__(reason)
        self.found = ChainBreak(seq=seq, reason=reason)


def verify_run(
    stored: StoredRun,
    run_key: bytes | None,
    enrolment: Collection[bytes],
    after: Resume | None = None,
    erased: Erased = NOTHING,
    *,
    placed: int = 0,
) -> VerifiedChain | ChainBreak:
    """The verified chain, or the first break in seq order. Never raises on hostile rows.

    Proves order, content and authorship by a writer whom one of the `enrolment` keys certified. A
    tail cut from an unfinished run is beyond it: that needs a witness. Without a run key no field
    opens, so one that is there is a break. The caller shows that the first `placed` records are in
    a tree which the log key signed: their batches were checked then.
    """
    try:
        verified = _verify(stored, run_key, after or _start(stored), erased)
        _check_batches(stored, enrolment, placed)
    except _BrokenError as broken:
        return broken.found
    return verified


def _start(stored: StoredRun) -> Resume:
    return Resume(next_seq=0, chain=genesis(stored.log, stored.run), epoch=0)


def _verify(
    stored: StoredRun, run_key: bytes | None, after: Resume, erased: Erased
) -> VerifiedChain:
    fields = _fields_by_seq(stored.fields)
    sealer = None if run_key is None else RunSealer(run_key, log=stored.log, run=stored.run)
    chain, epoch, deleted = after.chain, after.epoch, 0
    verified: list[VerifiedRecord] = []
    for expected, record in enumerate(stored.records, after.next_seq):
        if record.seq != expected:
            raise _BrokenError(expected, "a record is missing or out of order")
        gone = _taken(record, erased)
        if record.header is None:
            _check_deleted(record, erased)
            chain, deleted = _chained(record, chain), deleted + 1
            continue
        header = _header(stored, record, epoch)
        kind, at, epoch = _told(record)
        chain = _linked(record, chain)
        if erased.is_deleted:
            raise _BrokenError(record.seq, "a header is still there although it was erased")
        opened = _opened(stored, sealer, header, fields.pop(record.seq, []), gone)
        verified.append(
            VerifiedRecord(
                seq=record.seq,
                kind=kind,
                at=at,
                header=header,
                rc=record.rc,
                chain=record.chain,
                fields=opened,
                erased=gone,
            )
        )
    end = after.next_seq + len(verified) + deleted
    _check_length(stored, verified, end)
    if fields:
        raise _BrokenError(min(fields), "a payload belongs to no record")
    if erased and len(erased.records) != end:
        raise _BrokenError(end, f"an erased run of {len(erased.records)} records was cut")
    head = Resume(next_seq=end, chain=chain, epoch=epoch)
    return VerifiedChain(records=tuple(verified), head=head, deleted=deleted)


def _told(record: StoredRecord) -> tuple[str, datetime, int]:
    """What the columns say, none of them empty while there is a header."""
    if record.kind is None or record.at is None or record.epoch is None:
        raise _BrokenError(record.seq, "a column is gone without a recorded erasure")
    return record.kind, record.at, record.epoch


def _taken(record: StoredRecord, erased: Erased) -> frozenset[str]:
    """The fields that statements take from this record, which they must all know as it is."""
    if not erased:
        return frozenset()
    taken = erased.records.get(record.seq)
    if taken is None:
        raise _BrokenError(record.seq, "a record came after the run was erased")
    if taken.hashes != {(record.rc, record.chain)}:
        raise _BrokenError(record.seq, "an erasure statement names another record")
    return taken.fields


def _check_deleted(record: StoredRecord, erased: Erased) -> None:
    if not erased.is_deleted:
        raise _BrokenError(record.seq, "the header is gone without a recorded erasure")
    if (record.kind, record.at, record.epoch) != (None, None, None):
        raise _BrokenError(record.seq, "a deleted record still says what it was")


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
    if record.epoch is None or record.epoch < epoch:
        raise _BrokenError(record.seq, "the epoch fell")
    return header


def _linked(record: StoredRecord, previous: bytes) -> bytes:
    if record.header is None or record_hash(record.header) != record.rc:
        raise _BrokenError(record.seq, "the record hash does not match the header")
    return _chained(record, previous)


def _chained(record: StoredRecord, previous: bytes) -> bytes:
    chain = chain_hash(previous, record.seq, record.rc)
    if chain != record.chain:
        raise _BrokenError(record.seq, "the chain hash does not match")
    return chain


def _opened(
    stored: StoredRun,
    sealer: RunSealer | None,
    header: JsonObject,
    fields: Sequence[SealedField],
    gone: frozenset[str],
) -> dict[str, bytes]:
    commits, seq = header["commit"], header["seq"]
    if not isinstance(commits, dict) or not isinstance(seq, int):
        raise _BrokenError(0, "the header has no commitments")
    opened: dict[str, bytes] = {}
    for item in fields:
        name = FIELD_NAMES.get(item.field)
        if name is None or name not in commits or name in opened:
            raise _BrokenError(seq, "a payload field was never committed to")
        if sealer is None:
            raise _BrokenError(seq, "the key of the run is gone")
        try:
            salt, value = sealer.open(seq=seq, field=item.field, blob=item.blob)
        except SealError as error:
            raise _BrokenError(seq, f"payload '{name}' does not open") from error
        if commitment(stored.log, stored.run, seq, name, salt, value).hex() != commits[name]:
            raise _BrokenError(seq, f"payload '{name}' differs from its commitment")
        opened[name] = value
    _check_gaps(seq, commits, opened, gone)
    return opened


def _check_gaps(
    seq: int, commits: JsonObject, opened: Mapping[str, bytes], gone: frozenset[str]
) -> None:
    """Every field that was committed to is there or was erased, and never both."""
    for name in commits:
        if name in opened and name in gone:
            raise _BrokenError(seq, f"payload '{name}' is still there although it was erased")
        if name not in opened and name not in gone:
            raise _BrokenError(seq, f"payload '{name}' is gone without a recorded erasure")
    if not gone <= commits.keys():
        raise _BrokenError(seq, "an erasure statement names a field that never was")


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
        if record.header is None:
            continue  # deleted: the batch's own signature is what is left to hold
        header = decode_header(record.header)
        if header["writer"] != batch.writer.hex():
            raise _BrokenError(record.seq, "a record names another writer than its batch")
    message = batch_message(stored.log, batch.batch_id, batch.count, root)
    if not signature_holds(batch.public_key or b"", batch.signature, message):
        raise _BrokenError(seq, "the signature of a batch does not hold")
