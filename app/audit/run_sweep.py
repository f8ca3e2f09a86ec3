"""Sweeps the records of a log, run by run: headers, columns, chains, places, and no contents.

Contents stay sealed: it needs no key, and shows nothing.

Threat: Ledger tampering
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import lt
from types import MappingProxyType
from typing import Final
from uuid import UUID

from app.audit.sweep_report import LogReport
from app.ledger.canonical import CanonicalError
from app.ledger.chain import FINAL_KIND
from app.ledger.chain_walk import ChainWalk, Reached
from app.ledger.hashing import chain_hash, genesis, record_hash
from app.ledger.header import FIELD_NAMES, decode_header, encode_time
from app.storage.sweep_store import SweptPage, SweptRecord

_PART = 64

NOBODY: Final[Mapping[bytes, int]] = MappingProxyType({})


@dataclass(slots=True)
class _Run:
    run: UUID
    next_seq: int
    chain: bytes
    epoch: int = 0
    index: int = -1
    has_end: bool = False  # of its places in the log
    length: int | None = None
    kind: str | None = None

    @property
    def reached(self) -> Reached:
        return Reached(run=self.run, next_seq=self.next_seq, epoch=self.epoch, chain=self.chain)

    def faults(self) -> Iterator[tuple[str, int]]:
        """What its row says of its end that its records do not, and where."""
        if self.length is not None and self.length != self.next_seq:
            yield f"a finished run of {self.length} records was cut", self.next_seq
        if (self.kind == FINAL_KIND) != (self.length is not None) and self.kind is not None:
            reason = "the run's row and its last record do not agree that it ended"
            yield reason, self.next_seq - 1


class RunSweep:
    """Takes the records of one log in the order of runs and seqs.

    `retired`, `outlived`: writers and the first index at which each may not have signed, because
    it was retired or because the enrolment key that certified it had given way.
    """

    def __init__(
        self,
        log: bytes,
        report: LogReport,
        *,
        may_be_erased: bool,
        retired: Mapping[bytes, int] = NOBODY,
        outlived: Mapping[bytes, int] = NOBODY,
    ) -> None:
        self._log = log
        self._ends = (
            (retired, "the writer of this record had been retired"),
            (outlived, "the writer of this record rests on an enrolment key that had given way"),
        )
        self._first = {
            writer: min(ends[writer] for ends, _ in self._ends if writer in ends)
            for writer in retired.keys() | outlived.keys()
        }
        self._report = report
        self._may_be_erased = may_be_erased
        self._walk = ChainWalk(log)
        self._run: _Run | None = None

    def add(self, page: SweptPage) -> None:
        """The next records. Those that do not all hold at one look are looked at one by one."""
        if self._holds(page):
            return
        for start in range(0, len(page), _PART):
            part = page.part(start, start + _PART)
            if not self._holds(part):
                for swept in part.rows():
                    self.look(swept)

    def _holds(self, page: SweptPage) -> bool:
        """Takes all of a page in which there is nothing to tell; takes nothing of any other."""
        run, begun = self._run, 0
        if self._is_spent(page):
            return False
        walked = self._walk.over(page.records, None if run is None else run.reached)
        if walked is None or list(walked.fields) != list(page.fields) or not all(page.have_rows):
            return False
        for stretch in walked.stretches:
            reached = stretch.reached
            if run is None or run.run != reached.run:
                if run is not None and any(run.faults()):
                    return False
                run = _Run(reached.run, 0, b"", length=page.lengths[stretch.start])
                begun += 1
            places = _after(run, page.indexes[stretch.start : stretch.end])
            if places is None:
                return False
            run = _Run(
                run=reached.run,
                next_seq=reached.next_seq,
                chain=reached.chain,
                epoch=reached.epoch,
                index=places[0],
                has_end=places[1],
                length=run.length,
                kind=page.records.kinds[stretch.end - 1],
            )
        self._run = run
        self._report.runs += begun
        self._report.records += len(page)
        return True

    def _is_spent(self, page: SweptPage) -> bool:
        """Whether a writer signed where it may not have."""
        writers = page.records.writers
        present = {w for w in set(writers) if w is not None and w.bytes in self._first}
        return bool(present) and any(
            writer in present and (index is None or index >= self._first[writer.bytes])
            for writer, index in zip(writers, page.indexes, strict=True)
            if writer is not None
        )

    def look(self, swept: SweptRecord) -> None:
        """The next record alone: the rules themselves, and what is said where they do not hold."""
        run = self._run
        if run is None or run.run.bytes != swept.run:
            self.end()
            own = UUID(bytes=swept.run)
            run = self._run = _Run(own, 0, genesis(self._log, swept.run), length=swept.length)
            self._report.runs += 1
            if not swept.has_row and not self._may_be_erased:
                self._tell(swept, "the run's row is gone")
        self._report.records += 1
        if swept.seq != run.next_seq:
            self._tell(swept, "a record is missing before this one")
        for fault in (self._header_fault(run, swept), self._place_fault(run, swept)):
            if fault is not None:
                self._tell(swept, fault)
        if swept.chain != chain_hash(run.chain, swept.seq, swept.rc):
            self._tell(swept, "the chain hash does not match")
        if swept.writer is None:
            self._tell(swept, "the batch of a record is gone")
        for ends, reason in self._ends:
            end = ends.get(swept.writer or b"")
            if end is not None and (swept.index is None or swept.index >= end):
                self._tell(swept, reason)
        run.next_seq, run.chain, run.kind = swept.seq + 1, swept.chain, swept.kind

    def end(self) -> None:
        """The run is over: its length is what its row says."""
        run = self._run
        if run is not None:
            for reason, seq in run.faults():
                self._report.add("record", reason, run.run.bytes, seq)

    def _tell(self, swept: SweptRecord, reason: str) -> None:
        self._report.add("record", reason, swept.run, swept.seq)

    def _header_fault(self, run: _Run, swept: SweptRecord) -> str | None:
        if swept.header is None:
            if not self._may_be_erased:
                return "the header is gone without a recorded erasure"
            self._report.erased += 1
            return None
        if record_hash(swept.header) != swept.rc:
            return "the record hash does not match the header"
        try:
            header = decode_header(swept.header)
        except CanonicalError as error:
            return f"the header is malformed: {error}"
        columns = {
            "log": self._log.hex(),
            "run": swept.run.hex(),
            "seq": swept.seq,
            "epoch": swept.epoch,
            "kind": swept.kind,
            "ts": None if swept.at is None else encode_time(swept.at),
            "writer": None if swept.writer is None else swept.writer.hex(),
        }
        for name, value in columns.items():
            if header[name] != value:
                return f"column '{name}' differs from the header"
        if swept.epoch is not None and swept.epoch < run.epoch:
            return "the epoch fell"
        run.epoch = swept.epoch or 0
        commits = header["commit"]
        names = set(commits) if isinstance(commits, dict) else set()
        return self._field_fault(names, {FIELD_NAMES.get(number) for number in swept.fields})

    def _field_fault(self, committed: set[str], there: set[str | None]) -> str | None:
        if there - committed:
            return "a payload field was never committed to"
        if committed - there:
            if not self._may_be_erased:
                return "a payload is gone without a recorded erasure"
            self._report.erased += len(committed - there)
        return None

    @staticmethod
    def _place_fault(run: _Run, swept: SweptRecord) -> str | None:
        if swept.index is None:
            run.has_end = True
            return None
        if run.has_end:
            return "a record has a place in the log, but the one before it has none"
        if swept.index <= run.index:
            return "a record stands in the log before the one before it"
        run.index = swept.index
        return None


def _after(run: _Run, indexes: Sequence[int | None]) -> tuple[int, bool] | None:
    """The last place of a run that has these next ones, and whether that is its last of all.

    None when a place is missing before another one, or the places do not grow.
    """
    present = [index for index in indexes if index is not None]
    if (present and run.has_end) or None in indexes[: len(present)]:
        return None
    if not all(map(lt, [run.index, *present], present)):
        return None
    return (present[-1] if present else run.index), run.has_end or len(present) < len(indexes)
