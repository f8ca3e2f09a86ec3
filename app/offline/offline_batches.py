"""The batches that wrote the run: what they signed, by whom, and what certifies the writer.

Threat: Ledger tampering
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from app.offline.bundle_reader import BATCHES, WRITERS, lines_of
from app.offline.offline_headers import batch_entry, batch_message
from app.offline.offline_merkle import is_included, leaf_hash, tree_root
from app.offline.offline_notes import is_signed
from app.offline.offline_records import Break, RunRecords, StoredRecord
from app.offline.strict_json import BrokenError, Json, Row, parse_canonical

_COLUMNS = ("batch_id", "entries", "n", "ranges", "sig", "tip", "writer_id")
_RANGE = 32
_LARGEST_BATCH = 2**32 - 1
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """A key that signs batches; the certificate is not checked yet."""

    writer_id: bytes
    public: bytes
    certificate: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    batch_id: bytes
    writer_id: bytes
    count: int
    ranges: bytes
    tip: bytes
    signature: bytes
    entries: list[Json] | None


def read_writers(members: Mapping[str, bytes], broken: Break) -> dict[bytes, Writer]:
    """Every writer of writers.jsonl by its id."""
    found: dict[bytes, Writer] = {}
    try:
        for line in lines_of(members[WRITERS]):
            row = Row(parse_canonical(line), ("certificate", "public_key", "writer_id"))
            writer = Writer(
                writer_id=row.hexadecimal("writer_id", 16),
                public=row.raw("public_key", 32),
                certificate=None if row.is_null("certificate") else row.raw("certificate", 64),
            )
            _add_once(found, writer.writer_id, writer)
    except BrokenError as error:
        broken(WRITERS, None, error.reason)
    return found


def check_batches(
    members: Mapping[str, bytes],
    found: RunRecords,
    writers: Mapping[bytes, Writer],
    broken: Break,
) -> dict[bytes, list[StoredRecord]]:
    """Every record is in a batch whose signature holds; answers which writer signed which."""
    batches = _read_batches(members, broken)
    by_batch: dict[bytes, list[StoredRecord]] = {}
    for row in found.rows:
        by_batch.setdefault(row.batch_id, []).append(row)
    signed: dict[bytes, list[StoredRecord]] = {}
    for batch_id, rows in by_batch.items():
        first, batch = rows[0].seq, batches.pop(batch_id, None)
        if batch is None:
            broken(BATCHES, first, "the batch of this record is not here")
            continue
        writer = writers.get(batch.writer_id)
        if writer is None:
            broken(WRITERS, first, "the writer of this record's batch is not here")
            continue
        try:
            _check_batch(batch, rows, found)
            _check_signature(batch, writer, found.log)
        except BrokenError as error:
            broken(BATCHES, first, error.reason)
        for row in _written_by_another(rows, batch.writer_id):
            broken(BATCHES, row.seq, "the header names another writer than its batch")
        signed.setdefault(batch.writer_id, []).extend(rows)
    if batches:
        broken(BATCHES, None, "there is a batch that no record belongs to")
    if writers.keys() - signed.keys():
        broken(WRITERS, None, "there is a writer that signed no batch of this run")
    return signed


def _written_by_another(rows: Sequence[StoredRecord], writer: bytes) -> Iterator[StoredRecord]:
    return (row for row in rows if row.header is not None and row.header.writer != writer)


def _read_batches(members: Mapping[str, bytes], broken: Break) -> dict[bytes, _Batch]:
    found: dict[bytes, _Batch] = {}
    try:
        for line in lines_of(members[BATCHES]):
            row = Row(parse_canonical(line), _COLUMNS)
            batch = _Batch(
                batch_id=row.hexadecimal("batch_id", 16),
                writer_id=row.hexadecimal("writer_id", 16),
                count=row.integer("n"),
                ranges=row.raw("ranges"),
                tip=row.hexadecimal("tip", 32),
                signature=row.raw("sig", 64),
                entries=None if row.is_null("entries") else row.items("entries"),
            )
            _add_once(found, batch.batch_id, batch)
    except BrokenError as error:
        broken(BATCHES, None, error.reason)
    return found


def _add_once(found: dict[bytes, _Row], key: bytes, row: _Row) -> None:
    if key in found:
        raise BrokenError("one id is there twice")
    found[key] = row


def _check_signature(batch: _Batch, writer: Writer, log: bytes) -> None:
    message = batch_message(log, batch.batch_id, batch.count, batch.tip)
    if not is_signed(writer.public, batch.signature, message):
        raise BrokenError("the signature of the batch does not hold")


def _check_batch(batch: _Batch, rows: Sequence[StoredRecord], found: RunRecords) -> None:
    first, last, before = _place_in_batch(batch, found.run)
    if len(rows) != last - first + 1 or rows[0].seq != first or rows[-1].seq != last:
        raise BrokenError("the batch says it holds other records of this run than are here")
    entries = [batch_entry(found.run, row.seq, row.chain) for row in rows]
    alone = batch.count == len(rows)
    if alone != (batch.entries is None):
        raise BrokenError("the batch has paths though it needs none, or needs them and has none")
    if batch.entries is None:
        if tree_root([leaf_hash(entry) for entry in entries]) != batch.tip:
            raise BrokenError("the records are not what the batch's tip covers")
        return
    if len(batch.entries) != len(entries):
        raise BrokenError("the batch has not one path for each record")
    for place_of, (entry, item) in enumerate(zip(entries, batch.entries, strict=True), before):
        row = Row(item, ("index", "proof"))
        index, path = row.integer("index"), row.path("proof")
        if index != place_of or not is_included(
            leaf_hash(entry), index, batch.count, path, batch.tip
        ):
            raise BrokenError("a record is not at its place under the batch's tip")


def _place_in_batch(batch: _Batch, run: bytes) -> tuple[int, int, int]:
    """First and last seq of the run in the batch, and how many entries stand before it."""
    if not batch.ranges or len(batch.ranges) % _RANGE:
        raise BrokenError("the ranges of the batch are none")
    seen: set[bytes] = set()
    found: tuple[int, int, int] | None = None
    total = 0
    for at in range(0, len(batch.ranges), _RANGE):
        item = batch.ranges[at : at + _RANGE]
        first, last = int.from_bytes(item[16:24], "big"), int.from_bytes(item[24:], "big")
        if last < first or item[:16] in seen:
            raise BrokenError("the ranges of the batch run backwards or name a run twice")
        seen.add(item[:16])
        if item[:16] == run:
            found = (first, last, total)
        total += last - first + 1
    if total != batch.count or total > _LARGEST_BATCH:
        raise BrokenError("the ranges of the batch hold another number of records than it says")
    if found is None:
        raise BrokenError("the ranges of the batch do not cover this run")
    return found
