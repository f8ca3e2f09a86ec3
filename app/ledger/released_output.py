"""What a final record commits to of the released output in full, which is kept beside the ledger.

Source: docs/ledger-format.md sections 4 and 6.

Threat: Ledger tampering
"""

import hmac

from app.domain.run import JsonObject
from app.ledger.canonical import canonical
from app.ledger.hashing import digest_key, keyed_digest
from app.ledger.sealing import result_bytes

RELEASED_FIELD = "note"
_PURPOSE = "output"


def released_note(run_key: bytes, text: str) -> JsonObject:
    """The keyed digest of the output as it is sealed; tells nothing once the run key is gone."""
    digest = keyed_digest(digest_key(run_key), _PURPOSE, result_bytes(text))
    return {"released": digest.hex()}


def is_released(run_key: bytes, text: str, note: bytes) -> bool:
    """Whether this is the text that the note, a verified field, was made of."""
    return hmac.compare_digest(canonical(released_note(run_key, text)), note)
