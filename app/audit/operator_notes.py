"""Opens what the operator log's records say, for an auditor who was given the key of that log.

Each record is checked from its note's commitment to its chain hash; that the chain is the one in
the tree is the sweep's business, which looks at every record and leaf of that log too.

Source: docs/ledger-format.md sections 9 and 11.

Threat: Ledger tampering
"""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from app.audit.erasure_grounds import checkpoint_fault
from app.audit.log_entries import EntryError, OpenedEntry, open_entry_with
from app.audit.log_keys import LogKeys
from app.audit.sweep_report import LogReport, SchemaChange
from app.audit.witnessing import CHECKPOINT_KIND
from app.domain.run import RunId, TenantId
from app.keys.erasure_keys import NAME
from app.keys.operator_key import OperatorKey
from app.keys.signing_keys import LOG
from app.ledger.erasure_statement import StatementError, checked_statement
from app.ledger.header import decode_header
from app.ledger.key_statements import (
    RETIRED,
    ROTATED,
    KeyChange,
    ends_at,
    read_retirement,
    read_rotation,
    tied,
)
from app.storage.entry_store import find_entries, read_entries
from app.storage.sweep_store import Snapshot

_RECOVERED, _DELETED = "log.recovery", "erasure.delete_tenant"
_SCHEMA = "schema.change"
_PAGE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorHistory:
    """What the operator log says beside checkpoints. Few of each: none grows with the logs."""

    changes: tuple[KeyChange, ...] = ()
    retired: Mapping[bytes, Mapping[str, int]] | None = None  # sizes of logs by writer
    ended: frozenset[str] = frozenset()  # origins whose checkpoints bind no more
    deleted: frozenset[bytes] = frozenset()  # logs
    unproven: frozenset[bytes] = frozenset()  # logs whose deletion no pinned key signed


class _Deletion(NamedTuple):
    log: bytes
    signer: bytes
    seq: int
    checkpoint: str | None


class OperatorNotes:
    """The opened records of one operator log, in one snapshot."""

    def __init__(self, raw: Snapshot, key: OperatorKey, report: LogReport) -> None:
        self._raw = raw
        self._key = key
        self._report = report
        self._log = TenantId(UUID(bytes=key.log))
        self._run = RunId(UUID(bytes=key.run))

    async def history(
        self, erasure_keys: Collection[bytes], log_keys: Collection[bytes]
    ) -> OperatorHistory:
        """Rotations, retirements, recoveries and deletions. What does not hold is told.

        Changes of the schema go into the report: nothing is judged by them.
        """
        changes: list[KeyChange] = []
        retired: dict[bytes, Mapping[str, int]] = {}
        ended: set[str] = set()
        deletions: list[_Deletion] = []
        async for entry in self._of_kinds(ROTATED, RETIRED, _RECOVERED, _DELETED, _SCHEMA):
            try:
                if entry.kind == ROTATED:
                    changes.append(read_rotation(entry.note))
                elif entry.kind == RETIRED:
                    writer, sizes = read_retirement(entry.note)
                    retired[writer] = sizes
                elif entry.kind == _SCHEMA:
                    self._report.schema.append(_schema_change(entry))
                elif entry.kind == _RECOVERED:
                    ended.add(str(entry.note.get("old_origin")))
                else:
                    signer = bytes.fromhex(str(entry.note.get("key")))
                    told = checked_statement(entry.value, keys=[signer])
                    deletions.append(_Deletion(told.log, signer, entry.stored.seq, told.checkpoint))
            except (EntryError, StatementError, ValueError) as error:
                self._tell(entry.stored.seq, f"what it says does not hold: {error}")
        trusted = tied(changes, NAME, erasure_keys)
        # Later changes say nothing of a log that is gone: where each key counts in it is not asked.
        logs = LogKeys(tied(changes, LOG, log_keys))
        deleted: set[bytes] = set()
        unproven: set[bytes] = set()
        for item in deletions:
            fault = self._fault(item, changes, logs)
            if fault is None:
                (deleted if item.signer in trusted else unproven).add(item.log)
            else:
                self._tell(item.seq, fault)
        return OperatorHistory(
            changes=tuple(changes),
            retired=retired,
            ended=frozenset(ended),
            deleted=frozenset(deleted),
            unproven=frozenset(unproven),
        )

    def _fault(self, item: _Deletion, changes: list[KeyChange], logs: LogKeys) -> str | None:
        """Why the statement of a deletion does not count, or None."""
        end = ends_at(changes, NAME, item.signer, self._log.bytes)
        if end is not None and item.seq >= end:  # in this log a record's seq is its index
            return "an erasure key that had given way signed a deletion"
        if item.checkpoint is None:
            return None
        fault, _ = checkpoint_fault(item.checkpoint, item.log, logs)
        return None if fault is None else f"the checkpoint of a deletion does not hold: {fault}"

    async def checkpoints(self) -> AsyncIterator[list[tuple[int, str]]]:
        """The checkpoints that the operator log holds, with the seq of each, page by page."""
        after = -1
        while places := await find_entries(
            self._raw, self._log, [CHECKPOINT_KIND], after, limit=_PAGE
        ):
            seqs = [seq for run, seq in places if run == self._run]
            opened = await self.opened(seqs)
            yield [(seq, str(entry.note.get("checkpoint"))) for seq, entry in opened.items()]
            after = places[-1][1]

    async def opened(self, seqs: Collection[int]) -> dict[int, OpenedEntry]:
        """These records, as far as they are there and hold; of one that does not, that is told."""
        found: dict[int, OpenedEntry] = {}
        for stored in await read_entries(self._raw, self._log, self._run, sorted(seqs)):
            try:
                entry = open_entry_with(self._log, stored, self._key.run_key)
                _ = entry.note
                found[stored.seq] = entry
            except EntryError as error:
                self._tell(stored.seq, f"a record of the operator log does not open: {error}")
        return found

    async def _of_kinds(self, *kinds: str) -> AsyncIterator[OpenedEntry]:
        after = -1
        while places := await find_entries(self._raw, self._log, kinds, after, limit=_PAGE):
            for entry in (await self.opened([seq for _, seq in places])).values():
                yield entry
            after = places[-1][1]

    def _tell(self, seq: int, reason: str) -> None:
        self._report.add("record", reason, self._key.run, seq)


def _schema_change(entry: OpenedEntry) -> SchemaChange:
    note = {name: entry.note.get(name) for name in ("from", "to", "product")}
    if not all(value is None or isinstance(value, str) for value in note.values()):
        raise ValueError("a change of the schema names no revisions")
    return SchemaChange(
        seq=entry.stored.seq,
        at=str(decode_header(entry.header)["ts"]),
        before=None if note["from"] is None else str(note["from"]),
        after=str(note["to"]),
        product=None if note["product"] is None else str(note["product"]),
    )
