"""Which records go into which log, in what order, and which runs are left out from where on.

Pure: it is given what was read and says what to write. A batch counts when its writer is certified
and its signature holds over records that are all there; a run whose records are not gapless stops.

Source: docs/ledger-format.md sections 5, 8 and 9.

Threat: Ledger tampering
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from app.ledger.enrolment import is_certified
from app.ledger.hashing import batch_entry, batch_message, leaf_hash, merkle_tree_hash
from app.ledger.signatures import signature_holds
from app.storage.sequencer_store import (
    BatchRange,
    LeftOut,
    NewLeaf,
    PendingBatch,
    PendingRecord,
    RunPlace,
)

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
        own = [record for record in records if record.batch_id == batch.batch_id]
        fault = self._fault(batch, own)
        if fault is not None:
            self._condemn(batch, own, fault, plan)
            return
        at = 0
        for item in batch.ranges:
            part, at = own[at : at + item.count], at + item.count
            self._add(item, part, places, plan)

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

    def _fault(self, batch: PendingBatch, records: Sequence[PendingRecord]) -> str | None:
        """Why a batch does not count, or None."""
        spread = [(item.place[1], seq) for item in batch.ranges for seq in item.seqs]
        if len(spread) != batch.count or [(r.run, r.seq) for r in records] != spread:
            return "the records of a batch are not those that its ranges name"
        root = merkle_tree_hash([batch_entry(r.run, r.seq, r.chain) for r in records])
        if root != batch.tip:
            return "the tip of a batch does not match its records"
        key = batch.public_key
        if key is None or not is_certified(self._enrolment, batch.writer, key, batch.certificate):
            return "the writer of a batch is not certified"
        message = batch_message(batch.log, batch.batch_id, batch.count, root)
        if not signature_holds(key, batch.signature, message):
            return "the signature of a batch does not hold"
        return None

    def _condemn(
        self, batch: PendingBatch, records: Sequence[PendingRecord], reason: str, plan: Plan
    ) -> None:
        first: dict[bytes, int] = {}
        for record in records:
            first.setdefault(record.run, record.seq)
        for run, seq in (first or {NO_RUN: 0}).items():
            self._leave_out((batch.log, run), seq, reason, plan)

    def _leave_out(self, place: RunPlace, seq: int, reason: str, plan: Plan) -> None:
        if place not in self.left_out:
            self.left_out.add(place)
            plan.left_out.append(LeftOut(log=place[0], run=place[1], seq=seq, reason=reason))
