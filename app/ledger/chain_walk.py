"""Walks the records of many runs in order, without keys or content, in memory for one record.

Checks that each header is one, agrees with its columns, and is the next link of its run's chain.
What it cannot see is what payloads hold: commitments need the run's key.

Source: docs/ledger-format.md sections 5 and 8.

Threat: Ledger tampering
"""

from datetime import datetime
from typing import TypeAlias

from app.domain.errors import ChainBreak
from app.domain.run import JsonObject
from app.ledger.canonical import CanonicalError
from app.ledger.hashing import chain_hash, genesis, record_hash
from app.ledger.header import decode_header, encode_time, glance
from app.ledger.header_glance import Glance

# run, seq, epoch, kind, ts, header, rc, chain: as a cursor over `record` gives them
Row: TypeAlias = tuple[
    bytes, int, int | None, str | None, datetime | None, bytes | None, bytes, bytes
]


class ChainWalk:
    """The walk through one log's records, ordered by run and seq. Remembers one head."""

    def __init__(self, log: bytes) -> None:
        self._log = log
        self._log_hex = log.hex().encode()
        self._run = b""
        self._run_hex = b""
        self._next = 0
        self._epoch = 0
        self._chain = b""

    def step(self, row: Row) -> ChainBreak | None:
        """The break at this record, or None. After a break the walk goes on with what is stored."""
        run, seq, epoch, kind, at, header, rc, chain = row
        if run != self._run:
            self._run, self._run_hex = run, run.hex().encode()
            self._next, self._epoch, self._chain = 0, 0, genesis(self._log, run)
        expected, previous = self._next, self._chain
        self._next, self._chain = seq + 1, chain
        if seq != expected:
            return ChainBreak(seq=expected, reason="a record is missing or out of order")
        if header is None or epoch is None or kind is None or at is None:
            return ChainBreak(seq=seq, reason="the header is gone without a recorded erasure")
        reason = self._header_break(header, seq, epoch, kind, at)
        if reason is not None:
            return ChainBreak(seq=seq, reason=reason)
        if record_hash(header) != rc:
            return ChainBreak(seq=seq, reason="the record hash does not match the header")
        if chain_hash(previous, seq, rc) != chain:
            return ChainBreak(seq=seq, reason="the chain hash does not match")
        return None

    def _header_break(
        self, header: bytes, seq: int, epoch: int, kind: str, at: datetime
    ) -> str | None:
        seen = glance(header)
        if seen is None:
            try:
                seen = _glance_at(decode_header(header))
            except CanonicalError as error:
                return f"the header is malformed: {error}"
        told = (seen.log, seen.run, seen.seq, seen.epoch, seen.kind, seen.ts)
        stored = (
            self._log_hex,
            self._run_hex,
            b"%d" % seq,
            b"%d" % epoch,
            kind.encode(),
            _spelled(at),
        )
        if told != stored:
            return "a column differs from the header"
        if epoch < self._epoch:
            return "the epoch fell"
        self._epoch = epoch
        return None


def _spelled(at: datetime) -> bytes:
    text = at.isoformat(timespec="microseconds")
    if text.endswith("+00:00"):  # as the driver gives them
        return f"{text[:-6]}Z".encode()
    return encode_time(at).encode()


def _glance_at(header: JsonObject) -> Glance:
    """The same by the slow way, for a header that the pattern does not know."""
    names = ("epoch", "kind", "log", "run", "seq", "ts", "writer")
    return Glance(*(str(header[name]).encode() for name in names))
