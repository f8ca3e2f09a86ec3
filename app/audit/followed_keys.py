"""Keeps back an export whose reader could not follow from the key that it pins to a newer one.

Source: docs/ledger-format.md sections 11 and 13.

Threat: Ledger tampering
"""

from collections.abc import Sequence

from app.audit.key_book import KeyHistory
from app.audit.log_entries import OpenedEntry
from app.domain.errors import NotSequencedError
from app.ledger.chain import StoredRun
from app.ledger.enrolment import certifier_of
from app.ledger.erasure_statement import signer_of
from app.ledger.key_statements import ROTATED


def require_followed(
    history: KeyHistory, size: int, stored: StoredRun, erasures: Sequence[OpenedEntry]
) -> None:
    """No writer and no statement rests on a key whose rotation the operator's checkpoint lacks.

    NotSequencedError: that comes within seconds. `size` is that checkpoint's. Of log keys nothing
    has to be asked: the record of their change is older than what the new one signs.
    """
    records = (entry for entry in history.entries if entry.kind == ROTATED)
    late = {
        change.new
        for entry, change in zip(records, history.rotations, strict=True)
        if entry.stored.index is None or entry.stored.index >= size
    }
    if not late:
        return
    certifiers = {
        certifier_of(late, batch.writer, batch.public_key or b"", batch.certificate)
        for batch in stored.batches.values()
    }
    if late & (certifiers | {signer_of(entry.value) for entry in erasures}):
        raise NotSequencedError
