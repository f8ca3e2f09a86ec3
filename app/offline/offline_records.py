"""The records of the run in a bundle: headers, chain, disclosed fields, and places in the log.

Every check says what does not hold and goes on with what is stored, so that one bad record is one
finding and not as many as records follow it.

Threat: Ledger tampering
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from app.offline.bundle_reader import PAYLOADS, RECORDS, lines_of
from app.offline.offline_headers import (
    FIELD_NAMES,
    Header,
    chain_hash,
    check_field,
    genesis,
    leaf_data,
    read_header,
    record_hash,
)
from app.offline.offline_merkle import is_included, leaf_hash
from app.offline.offline_notes import Checkpoint
from app.offline.strict_json import BrokenError, Row, parse_canonical

# where, seq, reason: something that does not hold.
Break = Callable[[str, int | None, str], None]

_COLUMNS = ("batch_id", "chain", "epoch", "header", "index", "kind", "proof", "rc", "seq", "ts")
_WITH_HEADER = ("epoch", "kind", "ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """One row of records.jsonl; `erased` says that it claims a deletion took the header.

    `header` is None then, and also when what is stored as the header is none (a break by itself).
    """

    seq: int
    erased: bool
    header: Header | None
    rc: bytes
    chain: bytes
    batch_id: bytes
    index: int | None


@dataclass(slots=True, kw_only=True)
class RunRecords:
    """The rows in order, and the fields that are disclosed: (seq, name)."""

    log: bytes
    run: bytes
    rows: list[StoredRecord] = field(default_factory=list)
    disclosed: set[tuple[int, str]] = field(default_factory=set)

    def committed(self) -> Iterator[tuple[int, str]]:
        """Every field that a header commits to."""
        for row in self.rows:
            if row.header is not None:
                yield from ((row.seq, name) for name in row.header.commit)


def read_records(
    members: Mapping[str, bytes],
    log: bytes,
    run: bytes,
    checkpoint: Checkpoint | None,
    broken: Break,
) -> RunRecords:
    """The run, each row checked against the one before it and against the checkpoint's tree."""
    found = RunRecords(log=log, run=run)
    head, epoch, index = genesis(log, run), 0, -1
    seq = 0
    try:
        for seq, line in enumerate(lines_of(members[RECORDS])):
            row, proof = _record(line, seq, broken)
            for reason in _header_faults(row, log, run, epoch):
                broken(RECORDS, seq, reason)
            if row.chain != chain_hash(head, seq, row.rc):
                broken(RECORDS, seq, "chain does not follow from the record before")
            fault = _place_fault(row, proof, found, index, checkpoint)
            if fault is not None:
                broken(RECORDS, seq, fault)
            found.rows.append(row)
            head = row.chain
            epoch = epoch if row.header is None else row.header.epoch
            index = index if row.index is None else row.index
    except BrokenError as error:
        # What a row says cannot be told, so nothing can be said of the rows after it.
        broken(RECORDS, seq, error.reason)
    if not found.rows:
        broken(RECORDS, None, "there is no record: an unknown run is not a valid one")
    return found


def _record(line: bytes, seq: int, broken: Break) -> tuple[StoredRecord, tuple[bytes, ...]]:
    row = Row(parse_canonical(line), _COLUMNS)
    if row.integer("seq") != seq:
        raise BrokenError("seq has a gap or does not start at 0")
    rc = row.hexadecimal("rc", 32)
    header: Header | None = None
    try:
        header = _header(row, rc)
    except BrokenError as error:
        broken(RECORDS, seq, error.reason)
    if row.is_null("index") != row.is_null("proof"):
        raise BrokenError("has an index or a proof, but not both")
    placed = not row.is_null("index")
    stored = StoredRecord(
        seq=seq,
        erased=row.is_null("header"),
        header=header,
        rc=rc,
        chain=row.hexadecimal("chain", 32),
        batch_id=row.hexadecimal("batch_id", 16),
        index=row.integer("index") if placed else None,
    )
    return stored, row.path("proof") if placed else ()


def _header(row: Row, rc: bytes) -> Header | None:
    if row.is_null("header"):
        if not all(row.is_null(name) for name in _WITH_HEADER):
            raise BrokenError("the header is gone, but not all columns that say what it said")
        return None
    raw = row.raw("header")
    if record_hash(raw) != rc:
        raise BrokenError("rc is not the hash of the header")
    header = read_header(raw)
    if row.integer("epoch") != header.epoch:
        raise BrokenError("epoch and header do not agree")
    if row.text("kind") != header.kind or row.text("ts") != header.ts:
        raise BrokenError("kind or ts and header do not agree")
    return header


def _header_faults(row: StoredRecord, log: bytes, run: bytes, epoch: int) -> Iterator[str]:
    if row.header is None:
        return
    if (row.header.log, row.header.run, row.header.seq) != (log, run, row.seq):
        yield "header is of another log, run or seq"
    if row.header.epoch < epoch:
        yield "epoch falls"


def _place_fault(
    row: StoredRecord,
    proof: tuple[bytes, ...],
    before: RunRecords,
    index: int,
    checkpoint: Checkpoint | None,
) -> str | None:
    if row.index is None:
        return None
    if checkpoint is None:
        return "has a place in a tree of which no checkpoint is here"
    if before.rows and before.rows[-1].index is None:
        return "has a place in the log, but the record before it has none"
    if row.index <= index:
        return "stands in the log before the record before it"
    data = leaf_data(before.log, before.run, row.seq, row.chain)
    size, root = checkpoint.size, checkpoint.root
    if not is_included(leaf_hash(data), row.index, size, proof, root):
        return "is not at its place in the tree of the checkpoint"
    return None


def read_payloads(members: Mapping[str, bytes], found: RunRecords, broken: Break) -> None:
    """Every disclosed field is what its header commits to."""
    last, seq = (-1, 0), None
    try:
        for line in lines_of(members[PAYLOADS]):
            row = Row(parse_canonical(line), ("field", "salt", "seq", "value"))
            seq = row.integer("seq")
            number = row.integer("field")
            if (seq, number) <= last:
                broken(PAYLOADS, seq, "fields are not in order, or one is there twice")
            last = (seq, number)
            try:
                found.disclosed.add(_disclosed(row, seq, number, found))
            except BrokenError as error:
                broken(PAYLOADS, seq, error.reason)
    except BrokenError as error:
        broken(PAYLOADS, seq, error.reason)


def _disclosed(row: Row, seq: int, number: int, found: RunRecords) -> tuple[int, str]:
    name = FIELD_NAMES.get(number)
    if name is None:
        raise BrokenError("a field has a number that is none")
    if seq >= len(found.rows):
        raise BrokenError(f"field {name} belongs to no record")
    header = found.rows[seq].header
    if header is None:
        raise BrokenError(f"field {name} belongs to a record whose header is gone")
    found.disclosed.add((seq, name))
    check_field(header, name, row.raw("salt", 32), row.raw("value"))
    return seq, name
