"""Shows that each log is still the one that was signed, before anything more of it is signed.

What was signed is what the operator log's records say, not the rows beside the log: those can be
deleted together with the end of a log, and the log key must not sign what is left.

Source: docs/ledger-format.md section 10.

Threat: Ledger tampering
"""

from dataclasses import dataclass
from uuid import UUID

from app.domain.errors import ChainBreak
from app.domain.run import TenantId
from app.sequencing.log_names import log_of
from app.sequencing.signed_history import SignedHistory
from app.sequencing.verified_start import VerifiedStart
from app.storage.database import Snapshot
from app.storage.log_store import LogHead, read_head, read_heads, read_tiles
from app.transparency.checkpoint import Checkpoint
from app.transparency.merkle_tree import verify_consistency
from app.transparency.tiles import (
    TileError,
    consistency_proof,
    root_from,
    tiles_for_consistency,
    tiles_for_root,
)

_PAGES = 4  # a tick comes between so many and the next ones
_OF_OPERATOR = "the operator log's administration run does not hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Discontinuity:
    """A log that does not continue what was signed of it. `note`: the newest that was."""

    log: bytes
    reason: str
    note: str | None


class Continuity:
    """Compares the logs of a deployment with what was signed of them. For one task at a time."""

    def __init__(self, history: SignedHistory, start: VerifiedStart | None = None) -> None:
        self.history = history
        self._start = start  # without one, all is read at the first look
        self._is_begun = False
        self._is_kept = False  # there was a start that this began from, or that this made
        self._saved = 0  # how many records were done when one was made, or tried to be
        self._shown: dict[str, tuple[int, bytes]] = {}  # heads that were shown to continue

    async def read_on(self, raw: Snapshot) -> bool | Discontinuity:
        """Read some way; whether that was all there is. Memory: one page of records.

        Measured: 2500 records in a second, each in a batch of its own and with a note to open.
        """
        await self._begin()
        operator = self.history.operator
        head = await read_head(raw, operator)
        size = 0 if head is None else head.size
        for _ in range(_PAGES):
            more = await self.history.read_page(size)
            if isinstance(more, ChainBreak):
                if await self._is_released():
                    return False
                reason = f"{_OF_OPERATOR}: seq {more.seq}, {more.reason}"
                return Discontinuity(log=operator.bytes, reason=reason, note=None)
            if not more:
                if head is not None and not await self._is_of_records(raw, head):
                    if await self._is_released():
                        return False
                    reason = f"{_OF_OPERATOR}: its tree is not that of its records"
                    return Discontinuity(log=operator.bytes, reason=reason, note=None)
                await self._keep()
                return True
        return False

    async def _begin(self) -> None:
        """Take up what an earlier term has verified, if it is kept."""
        if self._is_begun:
            return
        self._is_begun = True
        standing = None if self._start is None else await self._start.load()
        self.history.begin(standing)
        self._is_kept, self._saved = standing is not None, self.history.done

    async def _is_released(self) -> bool:
        """Whether a recovery took away the start that is known here; then all is read anew."""
        if self._start is None or not self._is_kept or await self._start.exists():
            return False
        self.history.begin(None)
        self._is_kept, self._saved = False, 0
        self._shown.clear()
        return True

    async def _keep(self) -> None:
        """Keep what was just verified to its end, once there is enough that is new."""
        done, notes = self.history.done, len(self.history.newest)
        if self._start is None or not self._start.is_due(done, self._saved, notes):
            return
        self._saved = done
        standing = self.history.standing()
        if standing is not None and await self._start.save(standing):
            self._is_kept = True

    async def look(self, raw: Snapshot) -> list[Discontinuity]:
        """All logs that do not continue what was signed of them; of a broken record, that alone."""
        found = await self._misfits(raw)
        # A log that was deleted meanwhile says so in a record that was there before it went.
        return await self._misfits(raw) if found else []

    async def _misfits(self, raw: Snapshot) -> list[Discontinuity]:
        heads = await read_heads(raw)
        read: bool | Discontinuity = False
        while read is False:
            read = await self.read_on(raw)
        if isinstance(read, Discontinuity):
            return [read]
        found = [
            told
            for signed, note in list(self.history.newest.values())
            if (told := await self._misfit(raw, heads, signed, note)) is not None
        ]
        for log, head in heads.items():
            if head.origin in self.history.ended and log not in self.history.deleted:
                reason = "the log bears a name that a recovery took away"
                found.append(Discontinuity(log=log, reason=reason, note=None))
        return found

    async def _misfit(
        self, raw: Snapshot, heads: dict[bytes, LogHead], signed: Checkpoint, note: str
    ) -> Discontinuity | None:
        log = log_of(signed.origin) or b""
        head = heads.get(log)
        if head is None or head.origin != signed.origin:
            reason = f"{signed.size} leaves were signed of the log, and it is gone"
        elif head.size < signed.size:
            reason = f"{signed.size} leaves were signed of the log, and it has {head.size}"
        elif await self.continues_note(raw, signed, (head.size, head.root)):
            return None
        else:
            reason = f"{signed.size} leaves were signed of the log, and it has another history"
        return Discontinuity(log=log, reason=f"log {log.hex()}: {reason}", note=note)

    async def continues_note(
        self, raw: Snapshot, signed: Checkpoint, head: tuple[int, bytes]
    ) -> bool:
        """As `continues` for what the history has newest of an origin; shown once for each head."""
        if self._shown.get(signed.origin) == head:
            return True
        log = log_of(signed.origin)
        if log is None or not await self.continues(raw, log, signed, head):
            return False
        self._shown[signed.origin] = head
        return True

    async def continues(
        self, raw: Snapshot, log: bytes, signed: Checkpoint, head: tuple[int, bytes]
    ) -> bool:
        """Whether the head (size, root) is that of the log's tiles and follows from `signed`."""
        size, root = head
        try:
            wanted = tiles_for_root(size) | tiles_for_consistency(signed.size, size)
            tiles = await read_tiles(raw, TenantId(UUID(bytes=log)), wanted)
            return root_from(size, tiles) == root and verify_consistency(
                old_size=signed.size,
                old_root=signed.root,
                new_size=size,
                new_root=root,
                proof=consistency_proof(signed.size, size, tiles),
            )
        except TileError:
            return False

    async def _is_of_records(self, raw: Snapshot, head: LogHead) -> bool:
        root = self.history.root_at(head.size)
        if root is None or root != head.root:
            return False
        try:
            tiles = await read_tiles(raw, self.history.operator, tiles_for_root(head.size))
            return root_from(head.size, tiles) == root
        except TileError:
            return False
