"""Holds the checkpoints in the database against the operator log's records of them.

Rows of `checkpoint` can be deleted together with the end of a log; the records that took them in
are chained, and witnesses saw their tree. With the key of the operator log each record is opened
and the log is held against it; without it the records are counted: one that no row names is told,
for then nobody knows what it says.

Source: docs/ledger-format.md sections 9 and 10.

Threat: Ledger tampering
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from uuid import UUID

from app.audit.log_keys import LogKeys
from app.audit.operator_notes import OperatorHistory, OperatorNotes
from app.audit.sweep_report import LogReport
from app.audit.witnessing import CHECKPOINT_KIND
from app.domain.run import RunId, TenantId
from app.storage.entry_store import read_entries
from app.storage.log_store import read_head, read_tiles
from app.storage.place_store import SignedHead
from app.storage.sweep_store import Snapshot, checkpoints_from, count_unnamed, stored_notes
from app.transparency.checkpoint import Checkpoint
from app.transparency.note import NoteError
from app.transparency.tiles import TileError, root_from, tiles_for_root

_MARK = "/ledger/"
_KIND = f'"kind":"{CHECKPOINT_KIND}"'.encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSweep:
    """The checkpoints of one snapshot. `reports` are those of the logs that were swept."""

    raw: Snapshot
    operator: TenantId
    keys: LogKeys
    deployment: str
    reports: Mapping[bytes, LogReport]
    is_all: bool  # whether every log of the deployment was swept

    async def rows(self, log: TenantId, notes: OperatorNotes | None) -> None:
        """Every row of a tenant's log names the record that took it in."""
        above = -1
        while page := await checkpoints_from(self.raw, log, above):
            held = await self._held(page, notes)
            for head in page:
                if (head.anchor_run, head.anchor_seq) not in held:
                    reason = f"size {head.size}: the operator log does not hold it"
                    self.reports[log.bytes].add("checkpoint", reason)
            above = page[-1].size

    async def _held(
        self, page: Collection[SignedHead], notes: OperatorNotes | None
    ) -> set[tuple[RunId | None, int | None]]:
        """Which of the records that these rows name are of a checkpoint; if opened, of theirs."""
        named: dict[RunId, dict[int, str]] = {}
        for head in page:
            if head.anchor_run is not None and head.anchor_seq is not None:
                named.setdefault(head.anchor_run, {})[head.anchor_seq] = head.note
        found: set[tuple[RunId | None, int | None]] = set()
        for run, wanted in named.items():
            stored = await read_entries(self.raw, self.operator, run, sorted(wanted))
            there = {item.seq for item in stored if _KIND in (item.header or b"")}
            if notes is not None:
                opened = await notes.opened(there)
                there = {s for s, e in opened.items() if e.note == {"checkpoint": wanted[s]}}
            found |= {(run, seq) for seq in there}
        return found

    async def count(self) -> None:
        """Without the key: records that no row names, and rows that name one together."""
        report = self.reports[self.operator.bytes]
        report.unnamed, twice = await count_unnamed(self.raw, self.operator, CHECKPOINT_KIND)
        if twice:
            report.add("checkpoint", f"{twice} records are named by several checkpoints")

    async def records(self, notes: OperatorNotes, history: OperatorHistory) -> None:
        """With the key: every checkpoint that the operator log holds is one of the log."""
        gone: set[bytes] = set()
        async for page in notes.checkpoints():
            known: list[tuple[bytes, str, Checkpoint]] = []
            for seq, note in page:
                # The keys of a log that is gone have no sizes in later changes: nobody asks them.
                if self._is_deleted(note, history):
                    continue
                found = self._opened(seq, note)
                if found is None or found.origin in history.ended:
                    continue
                log = _log_of(found.origin, self.deployment)
                if log not in self.reports and not self.is_all:
                    continue
                known.append((log, note, found))
            places = [(UUID(bytes=log), item.size, item.origin) for log, _, item in known]
            stored = await stored_notes(self.raw, places)
            for log, note, found in known:
                if note not in stored:
                    await self._unstored(log, found, history, gone)

    def _is_deleted(self, note: str, history: OperatorHistory) -> bool:
        try:
            return _log_of(note.partition("\n")[0], self.deployment) in history.deleted
        except ValueError:
            return False

    def _opened(self, seq: int, note: str) -> Checkpoint | None:
        origin = note.partition("\n")[0]
        try:
            return self.keys.opened(note, origin, _log_of(origin, self.deployment))
        except (NoteError, ValueError):
            reason = "a record of a checkpoint holds none that a log key signed"
            self.reports[self.operator.bytes].add("checkpoint", reason, None, seq)
            return None

    async def _unstored(
        self, log: bytes, found: Checkpoint, history: OperatorHistory, gone: set[bytes]
    ) -> None:
        """A checkpoint without a row: a log that still leads to its root lost nothing else."""
        report = self.reports.get(log)
        if report is None:
            whole = self.reports[self.operator.bytes]
            if log in history.unproven:
                whole.unstored += 1
            elif log not in gone:
                gone.add(log)
                whole.add("log", f"the operator log holds checkpoints of {log.hex()}: it is gone")
            return
        if await self._leads_to(TenantId(UUID(bytes=log)), found):
            report.unstored += 1
        else:
            reason = f"size {found.size}: the log does not continue what the operator log holds"
            report.add("checkpoint", reason)

    async def _leads_to(self, log: TenantId, found: Checkpoint) -> bool:
        head = await read_head(self.raw, log)
        if head is None or head.size < found.size:
            return False
        try:
            tiles = await read_tiles(self.raw, log, tiles_for_root(found.size))
            return root_from(found.size, tiles) == found.root
        except TileError:
            return False


def _log_of(origin: str, deployment: str) -> bytes:
    """The log that an origin of this deployment names. ValueError for any other."""
    start, mark, rest = origin.rpartition(_MARK)
    if not mark or start != deployment:
        raise ValueError("an origin of another deployment")
    log = bytes.fromhex(rest.partition("/")[0])
    UUID(bytes=log)
    return log
