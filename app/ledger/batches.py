"""One signature for all that is written together: makes batches, and checks what is stored of them.

A batch may hold records of several runs of one log. `entries` then keeps the chain hashes of all of
them, so that a reader of one run checks the signature without a look at anybody else's records.

Source: docs/ledger-format.md sections 5 and 7.

Threat: Ledger tampering
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.domain.receipt import BatchShare
from app.ledger.hashing import HASH_BYTES, batch_entry, batch_message, merkle_tree_hash, u64be
from app.ledger.writing import SealedAppend, SealedField, SealedRecord
from app.transparency.merkle_tree import hash_leaf
from app.transparency.whole_tree import WholeTree

_ID_BYTES = 16
_RANGE_BYTES = 32


class BatchError(ValueError):
    """What is stored of a batch does not fit together; the text says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBatch:
    """What one transaction writes into one log, signed."""

    batch_id: bytes
    log: bytes
    writer: bytes
    ranges: bytes
    entries: bytes | None  # None when the batch holds records of one run alone
    tree: WholeTree
    signature: bytes
    appends: tuple[SealedAppend, ...]

    @property
    def tip(self) -> bytes:
        """The root of the tree over its entries."""
        return self.tree.root

    def share(self, run: bytes, seq: int) -> BatchShare:
        """What ties a record of a run in it to the signature. ValueError without that record."""
        index = 0
        for append in self.appends:
            after = seq - append.records[0].seq
            if append.run == run and 0 <= after < len(append.records):
                return BatchShare(
                    batch_id=self.batch_id,
                    writer=append.writer.writer_id,
                    public_key=append.writer.public_key,
                    count=self.tree.size,
                    index=index + after,
                    proof=self.tree.path(index + after),
                    signature=self.signature,
                )
            index += len(append.records)
        raise ValueError("the batch holds no such record")

    @property
    def records(self) -> tuple[SealedRecord, ...]:
        """All records, in the order of `ranges`."""
        return tuple(record for append in self.appends for record in append.records)

    @property
    def fields(self) -> tuple[SealedField, ...]:
        """All payload fields, in the same order."""
        return tuple(item for append in self.appends for item in append.fields)


def signed_batch(appends: Sequence[SealedAppend], batch_id: bytes) -> SealedBatch:
    """One batch of appends to different runs of one log by one writer, in the order of run ids."""
    ordered = tuple(sorted(appends, key=lambda append: append.run))
    log, writer = ordered[0].log, ordered[0].writer
    chains: list[bytes] = []
    leaves: list[bytes] = []
    ranges: list[bytes] = []
    for append in ordered:
        run, records = append.run, append.records
        ranges.append(run + u64be(records[0].seq) + u64be(records[-1].seq))
        for record in records:
            chains.append(record.chain)
            leaves.append(hash_leaf(batch_entry(run, record.seq, record.chain)))
    tree = WholeTree(leaves)
    return SealedBatch(
        batch_id=batch_id,
        log=log,
        writer=writer.writer_id,
        ranges=b"".join(ranges),
        entries=None if len(ordered) == 1 else b"".join(chains),
        tree=tree,
        signature=writer.sign(batch_message(log, batch_id, len(leaves), tree.root)),
        appends=ordered,
    )


@dataclass(frozen=True, slots=True)
class Span:
    """The records of one run in a batch: their first and last seq, and the place of the first."""

    run: bytes
    first: int
    last: int
    place: int

    @property
    def count(self) -> int:
        """How many records."""
        return self.last - self.first + 1


def spans_of(ranges: bytes) -> dict[bytes, Span]:
    """The spans of stored `ranges`, by run; none when they are malformed. Never raises."""
    spans: dict[bytes, Span] = {}
    place = 0
    for at in range(0, len(ranges), _RANGE_BYTES):
        run, rest = ranges[at : at + _ID_BYTES], ranges[at + _ID_BYTES : at + _RANGE_BYTES]
        span = Span(run, int.from_bytes(rest[:8], "big"), int.from_bytes(rest[8:], "big"), place)
        if len(rest) != _RANGE_BYTES - _ID_BYTES or span.count < 1 or run in spans:
            return {}
        spans[run] = span
        place += span.count
    return spans


def root_over(
    batch: tuple[bytes, int, bytes | None], run: bytes, first: int, own: Sequence[bytes]
) -> bytes:
    """The tree hash of a stored batch (ranges, n, entries) that holds `own` of `run` from `first`.

    Whoever reads one run has no business with other runs' records: what stands for them is stored
    with the batch, and the signature says whether it is what was written. BatchError when ranges,
    entries and records do not fit together.
    """
    ranges, count, entries = batch
    spans = spans_of(ranges)
    span = spans.get(run)
    if span is None or (span.first, span.count) != (first, len(own)):
        raise BatchError("the ranges of a batch do not cover its records")
    chains = chains_of(spans, entries, own)
    if chains[span.place : span.place + span.count] != list(own):
        raise BatchError("the entries of a batch do not match its records")
    if count != len(chains):
        raise BatchError("the tip of a batch does not match its records")
    return batch_root(spans, chains)


def chains_of(
    spans: Mapping[bytes, Span], entries: bytes | None, own: Sequence[bytes] = ()
) -> list[bytes]:
    """The chain hashes of a whole batch; `own` if it holds one run. BatchError when malformed."""
    count = sum(span.count for span in spans.values())
    if entries is None and len(spans) == 1 and len(own) == count:
        return list(own)
    if entries is None:
        raise BatchError("the entries of a batch are gone")
    if len(entries) != HASH_BYTES * count:
        raise BatchError("the entries of a batch do not match its records")
    return [entries[at : at + HASH_BYTES] for at in range(0, len(entries), HASH_BYTES)]


def batch_root(spans: Mapping[bytes, Span], chains: Sequence[bytes]) -> bytes:
    """The tree hash over the chain hashes of a batch, one for each record that `spans` name."""
    return merkle_tree_hash(
        [
            batch_entry(span.run, seq, chains[at])
            for span in spans.values()
            for at, seq in enumerate(range(span.first, span.last + 1), span.place)
        ]
    )
