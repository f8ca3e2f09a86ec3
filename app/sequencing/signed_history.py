"""What the operator log's own records say was signed: the newest checkpoint of every log.

Rows of `checkpoint` can be deleted by whoever owns the database. The records of the operator log
are chained, signed by their writers, and their leaves are what witnesses saw; so each is verified,
and all of them together are held against that log's tree.

Source: docs/ledger-format.md sections 9 and 10.

Threat: Ledger tampering
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Sequence

from app.administration.admin_log import AdminLog, AdminPage
from app.domain.errors import ChainBreak
from app.domain.run import JsonObject, TenantId
from app.ledger.chain import Resume, VerifiedRecord
from app.ledger.erasure_statement import StatementError, checked_statement, signer_of
from app.ledger.hashing import leaf_hash
from app.ledger.key_statements import KeyChange, ends_at
from app.sequencing.log_names import log_of
from app.sequencing.verified_start import Standing
from app.transparency.checkpoint import Checkpoint
from app.transparency.merkle_tree import CompactRange
from app.transparency.note import NoteError

CHECKPOINT_KIND = "checkpoint.tenant"
RECOVERY_KIND = "log.recovery"
SCHEMA_KIND = "schema.change"
_DELETION_KIND, _ERASURE = "erasure.delete_tenant", "erasure"


class SignedHistory:
    """Read in pages, from the first record on or from where it stood, and then kept up with.

    Remembers one note for each origin, the ids of deleted logs, the schema's revision, and the hash
    of each record that has no leaf yet: memory does not grow with the records.
    """

    def __init__(
        self,
        *,
        admin_log: AdminLog,
        operator: TenantId,
        enrolment: Collection[bytes],
        erasure_keys: Callable[[], Collection[bytes]],
        opened: Callable[[str, str], Checkpoint],
        changes: Callable[[], Awaitable[Sequence[KeyChange]]],
    ) -> None:
        self.operator = operator
        self._admin_log = admin_log
        self._enrolment = enrolment
        self._erasure_keys = erasure_keys
        self._opened = opened
        self._changes = changes
        self.begin(None)

    def begin(self, standing: Standing | None) -> None:
        """Forget everything, and go on from there; from the first record without a standing."""
        self._after: Resume | None = None
        self._tree = CompactRange.empty()
        self._loose: list[bytes] = []
        self.newest: dict[str, tuple[Checkpoint, str]] = {}  # by origin, with its note
        self.recovered: set[str] = set()  # origins that a recovery gave
        self.ended: set[str] = set()  # origins that a recovery took away
        self.deleted: set[bytes] = set()
        self.schema: str | None = None  # the revision that the last change led to
        if standing is None:
            return
        self.newest.update(standing.newest)
        self._after = standing.head
        self._tree, self._loose = standing.tree, list(standing.loose)
        self.recovered |= standing.recovered
        self.ended |= standing.ended
        self.deleted |= standing.deleted
        self.schema = standing.schema

    @property
    def done(self) -> int:
        """How many records were taken in."""
        return 0 if self._after is None else self._after.next_seq

    def standing(self) -> Standing | None:
        """Where this stands now; None before the first record."""
        if self._after is None:
            return None
        return Standing(
            head=self._after,
            tree=self._tree,
            loose=tuple(self._loose),
            newest=dict(self.newest),
            recovered=frozenset(self.recovered),
            ended=frozenset(self.ended),
            deleted=frozenset(self.deleted),
            schema=self.schema,
        )

    async def read_page(self, size: int) -> bool | ChainBreak:
        """Take in the next records; whether there are more. `size`: of the operator log."""
        page = await self._admin_log.read_on(self.operator, self._after, self._enrolment)
        if page is None:
            self._grow(size)
            return False
        if isinstance(page, ChainBreak):
            return page
        is_told = any(record.kind == _DELETION_KIND for record in page.chain.records)
        changes = await self._changes() if is_told else ()
        await asyncio.to_thread(self._take_page, page, changes)
        self._after = page.chain.head
        self._grow(size)
        return page.chain.head.next_seq < page.end

    async def checkpoints_after(self, start: Resume | None) -> dict[int, str]:
        """The checkpoints that records from `start` on hold, by seq, up to where this was read.

        None at all unless these records lead to just that end: then they are the same ones.
        """
        found: dict[int, str] = {}
        after, end = start, self._after
        while end is not None and (after is None or after.next_seq < end.next_seq):
            page = await self._admin_log.read_on(self.operator, after, self._enrolment)
            if page is None or isinstance(page, ChainBreak):
                return {}
            for record in page.chain.records[: end.next_seq - (after.next_seq if after else 0)]:
                if record.kind == CHECKPOINT_KIND:
                    found[record.seq] = str(_note(record).get("checkpoint"))
                if record.seq == end.next_seq - 1 and record.chain != end.chain:
                    return {}
            after = page.chain.head
        return found

    def root_at(self, size: int) -> bytes | None:
        """The root of the operator log as its records make it; None unless it was read to there.

        That log holds its administration run and nothing else, so a record's seq is its index.
        """
        self._grow(size)
        return self._tree.root() if self._tree.size == size else None

    def take_note(self, note: str) -> None:
        """A checkpoint that was signed, if a log key did and nothing newer is known."""
        origin = note.partition("\n")[0]
        log = log_of(origin)
        if log is None or log in self.deleted or origin in self.ended:
            return
        try:
            found = self._opened(note, origin)
        except NoteError:
            return  # says nothing: whoever wrote the record is not who signs logs
        known = self.newest.get(origin)
        if known is None or found.size > known[0].size:
            self.newest[origin] = found, note

    def _take_page(self, page: AdminPage, changes: Sequence[KeyChange]) -> None:
        log, run = self.operator.bytes, page.run_id.bytes
        for record in page.chain.records:
            self._loose.append(leaf_hash(log, run, record.seq, record.chain))
            self._take(record, changes)

    def _take(self, record: VerifiedRecord, changes: Sequence[KeyChange]) -> None:
        if record.kind == CHECKPOINT_KIND:
            self.take_note(str(_note(record).get("checkpoint")))
        elif record.kind == RECOVERY_KIND:
            note = _note(record)
            old, new = str(note.get("old_origin")), str(note.get("origin"))
            self.newest.pop(old, None)
            self.ended.add(old)
            self.recovered.add(new)
        elif record.kind == SCHEMA_KIND:
            self.schema = str(_note(record).get("to"))
        elif record.kind == _DELETION_KIND:
            self._take_deletion(record, changes)

    def _take_deletion(self, record: VerifiedRecord, changes: Sequence[KeyChange]) -> None:
        note = record.fields.get("note", b"")
        try:
            told = checked_statement(note, keys=self._erasure_keys())
        except StatementError:
            return  # what it claims to have taken is missing without a reason
        end = ends_at(changes, _ERASURE, signer_of(note), self.operator.bytes)
        # In this log a record's seq is its index.
        if told.run is not None or (end is not None and record.seq >= end):
            return
        if told.checkpoint is not None and not self._is_of(told.checkpoint, told.log):
            return
        self.deleted.add(told.log)
        for origin in [name for name in self.newest if log_of(name) == told.log]:
            del self.newest[origin]

    def _is_of(self, note: str, log: bytes) -> bool:
        """Whether a log key signed this checkpoint, and of that log."""
        origin = note.partition("\n")[0]
        try:
            return log_of(self._opened(note, origin).origin) == log
        except NoteError:
            return False

    def _grow(self, size: int) -> None:
        count = min(max(size - self._tree.size, 0), len(self._loose))
        self._tree = self._tree.extended(self._loose[:count])
        del self._loose[:count]


def _note(record: VerifiedRecord) -> JsonObject:
    try:
        found = json.loads(record.fields.get("note", b""))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
