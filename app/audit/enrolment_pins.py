"""Which writers an auditor believes: by the enrolment keys that are pinned and those tied to them.

Source: docs/ledger-format.md section 11.

Threat: Ledger tampering
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from app.keys.signing_keys import ENROLMENT
from app.ledger.enrolment import certifier_of
from app.ledger.key_statements import KeyChange, ends_at, tied
from app.storage.sweep_store import Snapshot
from app.storage.writer_list import pages_of_writers


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentPins:
    """The keys, and the writers whose certificate is by one that gave way."""

    keys: frozenset[bytes]
    changes: Sequence[KeyChange] = ()
    outlived: Mapping[bytes, bytes] = field(default_factory=dict)  # the key, by writer

    def ends(self, log: bytes) -> dict[bytes, int]:
        """The first index of a log at which each of these writers may not have signed."""
        found = {
            writer: ends_at(self.changes, ENROLMENT, key, log)
            for writer, key in self.outlived.items()
        }
        return {writer: end for writer, end in found.items() if end is not None}


async def enrolment_pins(
    raw: Snapshot, pinned: Collection[bytes], changes: Sequence[KeyChange]
) -> EnrolmentPins:
    """The pins of an auditor who was told of these changes of keys."""
    own = [change for change in changes if change.role == ENROLMENT]
    keys = tied(own, ENROLMENT, pinned)
    ended = {change.old for change in own}
    outlived: dict[bytes, bytes] = {}
    if ended:
        async for page in pages_of_writers(raw):
            for item in page:
                key = certifier_of(keys, item.writer_id, item.public_key, item.certificate)
                if key is not None and key in ended:
                    outlived[item.writer_id] = key
    return EnrolmentPins(keys=frozenset(keys), changes=own, outlived=outlived)
