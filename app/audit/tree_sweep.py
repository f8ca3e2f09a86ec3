"""Sweeps the tree of a log: every leaf in order, every tile, every checkpoint's root.

Memory does not grow with the log: a page of leaves and one open tile of each level.

Threat: Ledger tampering
"""

from collections.abc import Callable

from app.audit.sweep_report import LogReport
from app.domain.run import TenantId
from app.ledger.hashing import leaf_hash
from app.storage.place_store import SignedHead
from app.transparency.merkle_tree import HASH_BYTES, CompactRange
from app.transparency.tiles import TILE_BYTES, TILE_WIDTH, TileAddress, tile_root

_UNKNOWN = bytes(HASH_BYTES)


class TreeSweep:
    """Takes the leaves of one log in the order of their indexes, and says which tiles there are."""

    def __init__(self, log: TenantId, report: LogReport) -> None:
        self._log = log
        self._report = report
        self._range = CompactRange.empty()
        self._pending: list[bytes] = []  # leaves that the range does not know yet
        self._open: list[bytearray] = []
        self._number: list[int] = []
        self.size = 0

    def add(self, index: int, run: bytes, seq: int, chain: bytes | None) -> None:
        """The next leaf; tells a gap, and one whose record is gone."""
        if index != self.size:
            self._report.add("leaf", f"leaf {self.size} is missing", run, seq)
            while self.size < index and self.size % TILE_WIDTH:
                self._take(_UNKNOWN)
            self.size = index
        if chain is None:
            self._report.add("leaf", "the log holds a record that is gone", run, seq)
        hashed = _UNKNOWN if chain is None else leaf_hash(self._log.bytes, run, seq, chain)
        self._report.leaves += 1
        self._take(hashed)

    def _take(self, hashed: bytes) -> None:
        self._pending.append(hashed)
        if len(self._pending) == TILE_WIDTH:
            self._extend()
        self._push(0, hashed)
        self.size += 1

    def _extend(self) -> None:
        self._range = self._range.extended(self._pending)
        self._pending.clear()

    def _push(self, level: int, hashed: bytes) -> None:
        if level == len(self._open):
            self._open.append(bytearray())
            self._number.append(0)
        tile = self._open[level]
        tile += hashed

    def closed(self, *, at_end: bool) -> dict[TileAddress, bytes]:
        """Tiles that are full by now, lowest first; with `at_end` also those that are not."""
        found: dict[TileAddress, bytes] = {}
        level = 0
        while level < len(self._open):
            tile = self._open[level]
            while len(tile) >= TILE_BYTES:
                full = bytes(tile[:TILE_BYTES])
                del tile[:TILE_BYTES]
                found[TileAddress(level=level, n=self._number[level])] = full
                self._number[level] += 1
                self._push(level + 1, tile_root(full))
                tile = self._open[level]
            if at_end and tile:
                found[TileAddress(level=level, n=self._number[level])] = bytes(tile)
            level += 1
        return found

    def root(self) -> bytes:
        """The root over all leaves so far."""
        self._extend()
        return self._range.root()


def check_root(
    head: SignedHead,
    sweep: TreeSweep,
    report: LogReport,
    opened: Callable[[SignedHead], str | None],
) -> None:
    """A checkpoint at the size that the sweep has come to."""
    report.checkpoints += 1
    fault = opened(head)
    if fault is not None:
        report.add("checkpoint", f"size {head.size}: {fault}")
    elif head.root != sweep.root():
        report.add("checkpoint", f"size {head.size}: the log does not lead to its root")
    else:
        report.signed = max(report.signed, head.size)
