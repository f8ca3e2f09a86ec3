"""Reads the body of an add-checkpoint request, strictly as C2SP tlog-witness writes it.

Threat: Ledger tampering
"""

import re
from dataclasses import dataclass

from app.transparency.checkpoint import MAX_TREE_SIZE
from app.transparency.merkle_tree import HASH_BYTES
from app.transparency.note import MAX_NOTE_BYTES, NoteError, decode_base64

MOST_PROOF_LINES = 63
MOST_BODY_BYTES = MAX_NOTE_BYTES + 4096  # a note, and what may stand before it
_OLD = re.compile(rb"old (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a client asks: cosign `note`, which continues the tree of `old_size` by `proof`."""

    old_size: int
    proof: tuple[bytes, ...]
    note: bytes


def parse_submission(body: bytes) -> Submission | None:
    """The request, or None for anything that is not one. The note itself is not read here."""
    head, separator, note = body.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    old = _OLD.fullmatch(first)
    if not separator or old is None or len(lines) > MOST_PROOF_LINES:
        return None
    proof = [_hash(line) for line in lines]
    hashes = tuple(found for found in proof if found is not None)
    old_size = int(old.group(1))
    if len(hashes) != len(proof) or old_size > MAX_TREE_SIZE:
        return None
    return Submission(old_size=old_size, proof=hashes, note=note)


def _hash(line: bytes) -> bytes | None:
    """32 bytes in the one way that base64 writes them."""
    try:
        found = decode_base64(line.decode("ascii"))
    except (NoteError, UnicodeDecodeError):
        return None
    return found if len(found) == HASH_BYTES else None
