"""Signs the heads of logs, takes tenants' checkpoints into the operator log, signs that log's own.

A head is read from the database after its transaction is durable, and it is signed only if it
provably follows from what was signed before, which the operator log's records say: whoever rewrites
a log in the database does not get a signature for it, whatever rows are deleted beside it.

Source: docs/ledger-format.md section 10 (C2SP tlog-checkpoint).

Threat: Ledger tampering
"""

import logging
from collections.abc import Callable
from datetime import datetime

from app.administration.admin_log import AdminLog
from app.domain.run import TenantId
from app.sequencing.continuity import Continuity, Discontinuity
from app.sequencing.log_names import is_name_after
from app.sequencing.log_signer import LogSigner
from app.sequencing.lost_rows import restore_rows
from app.sequencing.schema_record import Schema, SchemaRecord
from app.sequencing.signed_history import CHECKPOINT_KIND
from app.storage.keeper_store import (
    NewCheckpoint,
    UnsignedHead,
    add_checkpoints,
    newest_checkpoint,
    unsigned_heads,
)
from app.storage.log_store import StoredCheckpoint, read_checkpoint, read_tiles
from app.storage.sequencer_store import Leader
from app.transparency.checkpoint import Checkpoint
from app.transparency.merkle_tree import verify_consistency
from app.transparency.note import NoteError
from app.transparency.tiles import (
    TileError,
    consistency_proof,
    root_from,
    tiles_for_consistency,
    tiles_for_root,
)

_log = logging.getLogger("meshflow.sequencer")
_AT_ONCE = 100  # heads in one transaction


class CheckpointMaker:
    """Signs the logs of one deployment."""

    def __init__(
        self,
        *,
        admin_log: AdminLog,
        operator: TenantId,
        signer: LogSigner,
        continuity: Continuity,
        now: Callable[[], datetime],
        schema: Schema | None = None,
    ) -> None:
        self._schema = SchemaRecord(admin_log, continuity.history, schema) if schema else None
        self._admin_log = admin_log
        self._operator = operator
        self._signer = signer
        self._continuity = continuity
        self._now = now
        self.discontinuity: Discontinuity | None = None  # found last: nothing is signed
        self._refused: set[tuple[TenantId, str, int]] = set()

    async def read_on(self, leader: Leader) -> bool:
        """Read some of what was signed before this term; whether it is known by now."""
        return await self._continuity.read_on(leader.raw) is not False

    async def sign_tenants(self, leader: Leader) -> int:
        """Sign every tenant's log that grew; how many. Each is in the operator log and durable.

        None at all while there is a `discontinuity`.
        """
        if not await self._is_continued(leader):
            return 0
        # A row that a crash kept back was signed by the old key, which counts up to there then.
        await restore_rows(leader, self._continuity.history, self._signer.opened, self._now)
        await self._signer.prepare(leader)
        if self._schema is not None:
            await self._schema.look()
        count = 0
        while True:
            heads = await unsigned_heads(
                leader, self._operator, is_operator=False, limit=_AT_ONCE + len(self._refused)
            )
            good = [head for head in heads if await self._follows(leader, head)]
            if not good:
                return count
            notes = [self._sign(head) for head in good]
            receipts = await self._admin_log.append_all(
                self._operator, CHECKPOINT_KIND, [{"checkpoint": note} for note in notes]
            )
            # Stored after the operator log has them: what is lost in between is restored from it.
            stored = [
                NewCheckpoint(head=head, note=note, anchor=(receipt.run_id, receipt.seq))
                for head, note, receipt in zip(good, notes, receipts, strict=True)
            ]
            for note in notes:
                self._continuity.history.take_note(note)
            await add_checkpoints(leader, stored, self._now())
            count += len(good)

    async def sign_operator(self, leader: Leader) -> NewCheckpoint | None:
        """Sign the operator log's head if it grew; it is stored when this returns.

        Not while there is a `discontinuity` of any log.
        """
        if not await self._is_continued(leader):
            return None
        await self._signer.prepare(leader)
        heads = await unsigned_heads(leader, self._operator, is_operator=True, limit=1)
        if not heads or not await self._follows(leader, heads[0]):
            return None
        head = heads[0]
        # Its records were all taken in by now, each once: no head but theirs follows from the last.
        if self._continuity.history.root_at(head.size) != head.root:
            return None
        made = NewCheckpoint(head=head, note=self._sign(head), anchor=None)
        await add_checkpoints(leader, [made], self._now())
        return made

    async def newest_operator(self, leader: Leader) -> NewCheckpoint | None:
        """The operator log's newest checkpoint as it is stored."""
        found = await read_checkpoint(leader.raw, self._operator)
        if found is None:
            return None
        head = UnsignedHead(
            tenant_id=self._operator, origin=found.origin, size=found.size, root=found.root
        )
        return NewCheckpoint(head=head, note=found.note, anchor=None)

    async def _is_continued(self, leader: Leader) -> bool:
        found = await self._continuity.look(leader.raw)
        self.discontinuity = found[0] if found else None
        return not found

    def _sign(self, head: UnsignedHead) -> str:
        checkpoint = Checkpoint(origin=head.origin, size=head.size, root=head.root)
        return self._signer.sign(checkpoint)

    async def _follows(self, leader: Leader, head: UnsignedHead) -> bool:
        """Whether the head is the root of its tiles and they only grew since the last signature."""
        place = (head.tenant_id, head.origin, head.size)
        if place in self._refused:
            return False
        before = await self._before(leader, head)
        old = None if before is None else before.origin
        is_named = is_name_after(head.origin, old, head.tenant_id.bytes)
        if is_named and await self._is_consistent(leader, head, before):
            return True
        self._refused.add(place)
        _log.critical("a log does not follow from what was signed of it: it is not signed")
        return False

    async def _before(self, leader: Leader, head: UnsignedHead) -> StoredCheckpoint | None:
        """The checkpoint that the head must follow: none of those that a recovery gave up."""
        before = await newest_checkpoint(leader, head.tenant_id)
        is_new = before is not None and before.origin != head.origin
        if is_new and head.origin in self._continuity.history.recovered:
            return await read_checkpoint(leader.raw, head.tenant_id)
        return before

    async def _is_consistent(
        self, leader: Leader, head: UnsignedHead, before: StoredCheckpoint | None
    ) -> bool:
        old_size = 0 if before is None else before.size
        noted = self._continuity.history.newest.get(head.origin)
        try:
            if noted is not None and not await self._continuity.continues_note(
                leader.raw, noted[0], (head.size, head.root)
            ):
                return False
            signed = None if before is None else self._opened(before)
            wanted = tiles_for_root(head.size) | tiles_for_consistency(old_size, head.size)
            tiles = await read_tiles(leader.raw, head.tenant_id, wanted)
            if root_from(head.size, tiles) != head.root:
                return False
            return signed is None or verify_consistency(
                old_size=signed.size,
                old_root=signed.root,
                new_size=head.size,
                new_root=head.root,
                proof=consistency_proof(signed.size, head.size, tiles),
            )
        except (TileError, NoteError):
            return False

    def _opened(self, stored: StoredCheckpoint) -> Checkpoint:
        found = self._signer.opened(stored.note, stored.origin)
        if found.size != stored.size:
            raise NoteError("a checkpoint is stored under another size")
        return found
