"""Gives a checkpoint the row that a crash kept from it.

A checkpoint enters the operator log first and gets its row then, before that log itself is signed
anew. So a record that no checkpoint of the operator log covers may lack its row because a leader
died in between. One that is covered had its row: it was taken away, and stays away, so that an
audit tells it.

Source: docs/ledger-format.md section 10.

Threat: Ledger tampering
"""

import logging
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from app.domain.run import TenantId
from app.sequencing.log_names import log_of
from app.sequencing.signed_history import CHECKPOINT_KIND, SignedHistory
from app.storage.keeper_store import (
    NewCheckpoint,
    UnsignedHead,
    add_checkpoints,
    records_without_rows,
)
from app.storage.log_store import read_checkpoint
from app.storage.sequencer_store import Leader
from app.transparency.checkpoint import Checkpoint
from app.transparency.note import NoteError

_log = logging.getLogger("meshflow.sequencer")


async def restore_rows(
    leader: Leader,
    history: SignedHistory,
    opened: Callable[[str, str], Checkpoint],
    now: Callable[[], datetime],
) -> int:
    """Store the rows that an earlier leader did not get to; how many. They are durable then.

    Only when `history` was just read to the end, and every log was found to continue it: what these
    records say is verified against that reading.
    """
    operator = history.operator
    signed = await read_checkpoint(leader.raw, operator)
    floor = 0 if signed is None else signed.size
    lost = await records_without_rows(leader, operator, CHECKPOINT_KIND, floor)
    if lost is None:
        return 0
    notes = await history.checkpoints_after(lost.resume)
    rows: list[NewCheckpoint] = []
    for seq in lost.seqs:
        note = notes.get(seq, "")
        origin = note.partition("\n")[0]
        log = log_of(origin)
        if log is None or log in history.deleted or origin in history.ended:
            continue
        try:
            found = opened(note, origin)
        except NoteError:
            continue  # says nothing, as in the history
        head = UnsignedHead(
            tenant_id=TenantId(UUID(bytes=log)),
            origin=found.origin,
            size=found.size,
            root=found.root,
        )
        rows.append(NewCheckpoint(head=head, note=note, anchor=(lost.run_id, seq)))
    if rows:
        await add_checkpoints(leader, rows, now())
        _log.warning("%d checkpoints have their rows now, which a crash kept from them", len(rows))
    return len(rows)
