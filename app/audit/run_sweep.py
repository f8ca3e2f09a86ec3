"""Sweeps the records of a log, run by run: headers, columns, chains, places, and no contents.

Contents stay sealed: it needs no key, and shows nothing.

Threat: Ledger tampering
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from app.audit.sweep_report import LogReport
from app.ledger.canonical import CanonicalError
from app.ledger.chain import FINAL_KIND
from app.ledger.hashing import chain_hash, genesis, record_hash
from app.ledger.header import FIELD_NAMES, decode_header, encode_time
from app.storage.sweep_store import SweptRecord

NOBODY: Final[Mapping[bytes, int]] = MappingProxyType({})


@dataclass(slots=True)
class _Run:
    run: bytes
    next_seq: int
    chain: bytes
    epoch: int = 0
    index: int = -1
    has_end: bool = False  # of its places in the log
    length: int | None = None
    kind: str | None = None


class RunSweep:
    """Takes the records of one log in the order of runs and seqs.

    `retired`: writers and the first index at which each may not have signed.
    """

    def __init__(
        self,
        log: bytes,
        report: LogReport,
        *,
        may_be_erased: bool,
        retired: Mapping[bytes, int] = NOBODY,
    ) -> None:
        self._log = log
        self._retired = retired
        self._report = report
        self._may_be_erased = may_be_erased
        self._run: _Run | None = None

    def add(self, swept: SweptRecord) -> None:
        """The next record."""
        run = self._run
        if run is None or run.run != swept.run:
            self.end()
            run = self._run = _Run(swept.run, 0, genesis(self._log, swept.run))
            run.length = swept.length
            self._report.runs += 1
            if not swept.has_row and not self._may_be_erased:
                self._tell(swept, "the run's row is gone")
        self._report.records += 1
        record = swept.record
        if record.seq != run.next_seq:
            self._tell(swept, "a record is missing before this one")
        for fault in (self._header_fault(run, swept), self._place_fault(run, swept)):
            if fault is not None:
                self._tell(swept, fault)
        if record.chain != chain_hash(run.chain, record.seq, record.rc):
            self._tell(swept, "the chain hash does not match")
        if swept.writer is None:
            self._tell(swept, "the batch of a record is gone")
        elif swept.writer in self._retired and (
            swept.index is None or swept.index >= self._retired[swept.writer]
        ):
            self._tell(swept, "the writer of this record had been retired")
        run.next_seq, run.chain, run.kind = record.seq + 1, record.chain, record.kind

    def end(self) -> None:
        """The run is over: its length is what its row says."""
        run = self._run
        if run is None:
            return
        if run.length is not None and run.length != run.next_seq:
            reason = f"a finished run of {run.length} records was cut"
            self._report.add("record", reason, run.run, run.next_seq)
        if (run.kind == FINAL_KIND) != (run.length is not None) and run.kind is not None:
            reason = "the run's row and its last record do not agree that it ended"
            self._report.add("record", reason, run.run, run.next_seq - 1)

    def _tell(self, swept: SweptRecord, reason: str) -> None:
        self._report.add("record", reason, swept.run, swept.record.seq)

    def _header_fault(self, run: _Run, swept: SweptRecord) -> str | None:
        record = swept.record
        if record.header is None:
            if not self._may_be_erased:
                return "the header is gone without a recorded erasure"
            self._report.erased += 1
            return None
        if record_hash(record.header) != record.rc:
            return "the record hash does not match the header"
        try:
            header = decode_header(record.header)
        except CanonicalError as error:
            return f"the header is malformed: {error}"
        columns = {
            "log": self._log.hex(),
            "run": swept.run.hex(),
            "seq": record.seq,
            "epoch": record.epoch,
            "kind": record.kind,
            "ts": None if record.at is None else encode_time(record.at),
            "writer": None if swept.writer is None else swept.writer.hex(),
        }
        for name, value in columns.items():
            if header[name] != value:
                return f"column '{name}' differs from the header"
        if record.epoch is not None and record.epoch < run.epoch:
            return "the epoch fell"
        run.epoch = record.epoch or 0
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
