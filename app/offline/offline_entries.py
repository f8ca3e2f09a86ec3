"""Entry proofs: records of an administration run, for readers who do not have that run.

Threat: Ledger tampering
"""

from dataclasses import dataclass

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
