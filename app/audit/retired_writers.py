"""Says which record of a run was signed by a writer that had been retired before it was written.

Source: docs/ledger-format.md sections 8 and 11.

Threat: Ledger tampering
"""

from collections.abc import Mapping

from app.domain.errors import ChainBreak
from app.ledger.chain import StoredRun
from app.storage.place_store import Placement

Retirements = Mapping[bytes, Mapping[str, int]]  # sizes of logs by writer


def retired_break(
    stored: StoredRun, placement: Placement, retired: Retirements, first: int
) -> ChainBreak | None:
    """The first record from `first` on at an index where its writer counts no more.

    A record without a place in the checkpointed tree counts as standing at the checkpoint's size.
    """
    state = placement.state
    signed = 0 if state is None or state.checkpoint is None else state.checkpoint.size
    for record in stored.records:
        batch = stored.batches.get(record.batch_id)
        sizes = None if batch is None else retired.get(batch.writer)
        if record.seq < first or sizes is None:
            continue
        index = min(placement.places.by_seq.get(record.seq, signed), signed)
        if index >= sizes.get(stored.log.hex(), 0):
            return ChainBreak(seq=record.seq, reason="the writer of a batch had been retired")
    return None
