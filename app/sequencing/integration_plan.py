"""Which records go into which log, in what order, and which runs are left out from where on.

Pure: it is given what was read and says what to write. A batch counts when its writer is certified
and its signature holds; of its runs, each counts whose records are those that were signed, so that
who changes one run's records stops that run alone. A run whose records are not gapless stops.

Source: docs/ledger-format.md sections 5, 8 and 9.

Threat: Ledger tampering
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from app.ledger.batches import BatchError, Span, batch_root, chains_of
from app.ledger.enrolment import is_certified
from app.ledger.hashing import batch_message, leaf_hash
from app.ledger.signatures import signature_holds
from app.storage.sequencer_store import (
    BatchRange,
    LeftOut,
    NewLeaf,
    PendingBatch,
    PendingRecord,
    RunPlace,
)

_OTHER_RECORDS = "the records of a batch are not those that its ranges name"
NO_RUN = bytes(16)  # stands for the run of a batch that no record belongs to


@dataclass(slots=True, kw_only=True)
class Plan:
    """What one transaction of the sequencer writes."""

    leaves: dict[bytes, list[NewLeaf]] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)
    deferred: list[PendingBatch] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many leaves it adds."""
        return sum(map(len, self.leaves.values()))


class Planner:
    """Plans for one leader, who remembers which runs are left out."""

    def __init__(self, enrolment: Collection[bytes], left_out: Iterable[RunPlace]) -> None:
        self._enrolment = enrolment
        self.left_out: set[RunPlace] = set(left_out)

    def plan(
        self,
        batches: Sequence[PendingBatch],
        records: Mapping[bytes, Sequence[PendingRecord]],
        next_seqs: Mapping[RunPlace, int],
        *,
        may_defer: bool = False,
    ) -> Plan:
        """The plan for whole transactions, oldest first; `records` by batch id, in range order.

        With `may_defer`, a batch whose predecessor is not among them waits instead of stopping its
        run: for a search that does not know the order in which batches were committed.
        """
        plan, places = Plan(), dict(next_seqs)
        for _, group in groupby(batches, key=lambda batch: batch.xid):
            waiting = list(group)
            while waiting:
                late = []
                for batch in waiting:
                    if self._is_next(batch, places):
                        self._take(batch, records.get(batch.batch_id, ()), places, plan)
                    else:
                        late.append(batch)
                if len(late) == len(waiting):
                    break
                waiting = late
            for batch in waiting:
                if may_defer:
                    plan.deferred.append(batch)
                else:
                    self._take(batch, records.get(batch.batch_id, ()), places, plan)
        return plan

    def _is_next(self, batch: PendingBatch, places: Mapping[RunPlace, int]) -> bool:
        return all(
            item.place in self.left_out or places.get(item.place, 0) >= item.first
            for item in batch.ranges
        )

    def _take(
        self,
        batch: PendingBatch,
        records: Sequence[PendingRecord],
        places: dict[RunPlace, int],
        plan: Plan,
    ) -> None:
        own: dict[bytes, list[PendingRecord]] = {}
        for record in records:
            if record.batch_id == batch.batch_id:
                own.setdefault(record.run, []).append(record)
        try:
            signed = self._signed_chains(batch, own)
        except BatchError as error:
            self._condemn(batch, own, str(error), plan)
            return
        at = 0
        for item in batch.ranges:
            part, chains = own.get(item.place[1], []), signed[at : at + item.count]
            at += item.count
            fault = _difference(item, part, chains)
            if fault is None:
                self._add(item, part, places, plan)
            else:
                self._leave_out(item.place, item.first, fault, plan)

    def _add(
        self,
        item: BatchRange,
        records: Sequence[PendingRecord],
        places: dict[RunPlace, int],
        plan: Plan,
    ) -> None:
        due = places.get(item.place, 0)
        if item.place in self.left_out or item.last < due:
            return  # known to be broken, or in the log already
        if item.first != due:
            self._leave_out(item.place, due, "a record is missing or out of order", plan)
            return
        log, run = item.place
        plan.leaves.setdefault(log, []).extend(
            NewLeaf(run=run, seq=record.seq, hash=leaf_hash(log, run, record.seq, record.chain))
            for record in records
        )
        places[item.place] = item.last + 1

    def _signed_chains(
        self, batch: PendingBatch, own: Mapping[bytes, Sequence[PendingRecord]]
    ) -> Sequence[bytes]:
        """The chain hashes that the writer signed. BatchError when the batch does not count."""
        spans, at = {}, 0
        for item in batch.ranges:
            spans[item.place[1]] = Span(item.place[1], item.first, item.last, at)
            at += item.count
        if not spans or at != batch.count:
            raise BatchError(_OTHER_RECORDS)
        records = own.get(batch.ranges[0].place[1], [])
        if batch.entries is None and len(records) != batch.count:
            raise BatchError(_OTHER_RECORDS)
        chains = chains_of(spans, batch.entries, [record.chain for record in records])
        root = batch_root(spans, chains)
        if root != batch.tip:
            raise BatchError("the tip of a batch does not match its records")
        key = batch.public_key
        if key is None or not is_certified(self._enrolment, batch.writer, key, batch.certificate):
            raise BatchError("the writer of a batch is not certified")
        message = batch_message(batch.log, batch.batch_id, batch.count, root)
        if not signature_holds(key, batch.signature, message):
            raise BatchError("the signature of a batch does not hold")
        return chains

    def _condemn(
        self,
        batch: PendingBatch,
        own: Mapping[bytes, Sequence[PendingRecord]],
        reason: str,
        plan: Plan,
    ) -> None:
        first = {run: records[0].seq for run, records in own.items()}
        for run, seq in (first or {NO_RUN: 0}).items():
            self._leave_out((batch.log, run), seq, reason, plan)

    def _leave_out(self, place: RunPlace, seq: int, reason: str, plan: Plan) -> None:
        if place not in self.left_out:
            self.left_out.add(place)
            plan.left_out.append(LeftOut(log=place[0], run=place[1], seq=seq, reason=reason))


def _difference(
    item: BatchRange, records: Sequence[PendingRecord], signed: Sequence[bytes]
) -> str | None:
    """Why the stored records of one run are not those that were signed, or None."""
    if [record.seq for record in records] != list(item.seqs):
        return _OTHER_RECORDS
    if [record.chain for record in records] != list(signed):
        return "the entries of a batch do not match its records"
    return None
