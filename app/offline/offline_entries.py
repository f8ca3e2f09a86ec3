"""Entry proofs: records of an administration run, for readers who do not have that run.

Threat: Ledger tampering
"""

from bisect import bisect_left
from dataclasses import dataclass, field

from app.offline.offline_headers import (
    chain_hash,
    check_field,
    genesis,
    leaf_data,
    read_header,
    record_hash,
)
from app.offline.offline_merkle import is_included, leaf_hash
from app.offline.offline_notes import Checkpoint
from app.offline.strict_json import BrokenError, Json, Row, parse_canonical

_MEMBERS = (
    "field",
    "header",
    "index",
    "log",
    "previous",
    "proof",
    "run",
    "salt",
    "seq",
    "size",
    "value",
)
_NOTE = 8
_OPENED = "admin.opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record of an administration run and what its note says; its tree is not yet checked."""

    log: bytes
    run: bytes
    seq: int
    kind: str
    index: int
    size: int
    path: tuple[bytes, ...]
    leaf: bytes
    note: Json

    def check_place(self, checkpoint: Checkpoint | None) -> None:
        """BrokenError unless the record stands in the tree of this checkpoint."""
        if checkpoint is None or checkpoint.log != self.log.hex():
            raise BrokenError("is in a log of which no checkpoint is here")
        if self.size != checkpoint.size:
            raise BrokenError("leads to a checkpoint of another size")
        if not is_included(self.leaf, self.index, self.size, self.path, checkpoint.root):
            raise BrokenError("is not at its place in the tree of the checkpoint")


@dataclass(slots=True, kw_only=True)
class AdministrationRun:
    """The one administration run of a log, as far as entries of it are known."""

    run: bytes
    _places: list[tuple[int, int]] = field(default_factory=list)  # seq and index, in order

    def take(self, entry: Entry) -> None:
        """One more entry. BrokenError unless all of them can be records of one run in one log.

        No two are of one record, each follows the one before it with room for what is between them,
        and the first record of the run is `admin.opened`.
        """
        if entry.run != self.run:
            raise BrokenError("one log has two administration runs")
        if entry.seq == 0 and entry.kind != _OPENED:
            raise BrokenError("is the first of an administration run and does not open it")
        place = (entry.seq, entry.index)
        at = bisect_left(self._places, (entry.seq, -1))
        before = self._places[at - 1] if at else (0, 0)
        after = self._places[at] if at < len(self._places) else None
        if after is not None and after[0] == entry.seq:
            raise BrokenError("is the second entry of one record")
        if not _has_room(before, place) or (after is not None and not _has_room(place, after)):
            raise BrokenError("stands in the log out of the order of its run")
        self._places.insert(at, place)


def _has_room(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether the records between two entries have places between theirs."""
    return after[1] - before[1] >= after[0] - before[0]


def read_entry(value: Json) -> Entry:
    """The entry, checked from the note's commitment out to the leaf. BrokenError if it fails."""
    row = Row(value, _MEMBERS)
    log, run, seq = row.hexadecimal("log", 16), row.hexadecimal("run", 16), row.integer("seq")
    raw, previous = row.raw("header"), row.hexadecimal("previous", 32)
    header = read_header(raw)
    if (header.log, header.run, header.seq) != (log, run, seq):
        raise BrokenError("header is of another log, run or seq")
    if row.integer("field") != _NOTE or header.commit.keys() != {"note"}:
        raise BrokenError("has not the one field note")
    written = row.raw("value")
    check_field(header, "note", row.hexadecimal("salt", 32), written)
    if seq == 0 and previous != genesis(log, run):
        raise BrokenError("is the first of its run but does not follow from its beginning")
    chain = chain_hash(previous, seq, record_hash(raw))
    return Entry(
        log=log,
        run=run,
        seq=seq,
        kind=header.kind,
        index=row.integer("index"),
        size=row.integer("size"),
        path=row.path("proof"),
        leaf=leaf_hash(leaf_data(log, run, seq, chain)),
        note=parse_canonical(written),
    )
