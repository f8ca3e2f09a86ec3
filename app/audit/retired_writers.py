"""Says which record of a run was signed by a writer that did not count any more by then.

A writer counts until it is retired, and under an enrolment key that gave way as far as that did.

Source: docs/ledger-format.md sections 8 and 11.

Threat: Ledger tampering
"""

from collections.abc import Collection, Iterator, Mapping, Sequence

from app.domain.errors import ChainBreak
from app.keys.signing_keys import ENROLMENT
from app.ledger.chain import StoredBatch, StoredRun
from app.ledger.enrolment import certifier_of
from app.ledger.key_statements import KeyChange, ends_at
from app.storage.place_store import Placement

Retirements = Mapping[bytes, Mapping[str, int]]  # sizes of logs by writer


def retired_break(
    stored: StoredRun, placement: Placement, retired: Retirements, first: int
) -> ChainBreak | None:
    """The first record from `first` on at an index where its writer counts no more."""
    for seq, index, batch in _standing(stored, placement, first):
        sizes = retired.get(batch.writer)
        if sizes is not None and index >= sizes.get(stored.log.hex(), 0):
            return ChainBreak(seq=seq, reason="the writer of a batch had been retired")
    return None


def outlived_break(
    stored: StoredRun,
    placement: Placement,
    changes: Sequence[KeyChange],
    enrolment: Collection[bytes],
    first: int,
) -> ChainBreak | None:
    """The first record from `first` on at an index where its writer's certificate counts no more.

    That is where the enrolment key that gave it had given way to another by then.
    """
    if not changes:
        return None
    for seq, index, batch in _standing(stored, placement, first):
        key = batch.public_key or b""
        certifier = certifier_of(enrolment, batch.writer, key, batch.certificate)
        end = None if certifier is None else ends_at(changes, ENROLMENT, certifier, stored.log)
        if end is not None and index >= end:
            reason = "the writer of a batch rests on an enrolment key that had given way"
            return ChainBreak(seq=seq, reason=reason)
    return None


def _standing(
    stored: StoredRun, placement: Placement, first: int
) -> Iterator[tuple[int, int, StoredBatch]]:
    """Seq, index and batch of the records from `first` on.

    A record without a place in the checkpointed tree counts as standing at the checkpoint's size.
    """
    state = placement.state
    signed = 0 if state is None or state.checkpoint is None else state.checkpoint.size
    for record in stored.records:
        batch = stored.batches.get(record.batch_id)
        if record.seq >= first and batch is not None:
            yield record.seq, min(placement.places.by_seq.get(record.seq, signed), signed), batch
