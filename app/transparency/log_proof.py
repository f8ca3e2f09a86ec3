"""The file that proves an entry is in a log: its place, its inclusion proof and the checkpoint.

Source: C2SP tlog-proof.

Threat: Ledger tampering
"""

from dataclasses import dataclass

from app.transparency.checkpoint import MAX_TREE_SIZE, parse_checkpoint, parse_number
from app.transparency.merkle_tree import HASH_BYTES
from app.transparency.note import (
    MAX_NOTE_BYTES,
    NoteError,
    decode_base64,
    encode_base64,
    parse_note,
)

MAX_PROOF_HASHES = 63
MAX_EXTRA_BYTES = 64 * 1024
_FIRST_LINE = "c2sp.org/tlog-proof@v1"
_EXTRA, _INDEX = "extra ", "index "
# The checkpoint, the extra data in base64, and room for the hashes and the short lines.
_MAX_BYTES = MAX_NOTE_BYTES + 4 * (MAX_EXTRA_BYTES // 3 + 1) + 4 * 1024


class LogProofError(ValueError):
    """These bytes are no log proof, or these parts make none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """The parts of a proof, none of them verified. Nobody signs `extra`."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index <= MAX_TREE_SIZE:
            raise LogProofError("an index outside 0 to 2^63-1")
        if len(self.hashes) > MAX_PROOF_HASHES:
            raise LogProofError("more than 63 hashes")
        if any(len(value) != HASH_BYTES for value in self.hashes):
            raise LogProofError("a hash is 32 bytes")
        if self.extra is not None and not 0 < len(self.extra) <= MAX_EXTRA_BYTES:
            raise LogProofError("extra data of no bytes or too many")
        try:
            parse_checkpoint(parse_note(self.checkpoint).text)
        except NoteError as error:
            raise LogProofError("not a checkpoint") from error


def format_proof(proof: LogProof) -> bytes:
    """The bytes of a proof."""
    extra = [] if proof.extra is None else [_EXTRA + encode_base64(proof.extra)]
    hashes = [encode_base64(value) for value in proof.hashes]
    lines = [_FIRST_LINE, *extra, f"{_INDEX}{proof.index}", *hashes, ""]
    return "".join(line + "\n" for line in lines).encode() + proof.checkpoint


def parse_proof(data: bytes) -> LogProof:
    """The proof of these bytes, nothing verified. LogProofError for any other spelling."""
    if len(data) > _MAX_BYTES:
        raise LogProofError("longer than a proof can be")
    head, divider, checkpoint = data.partition(b"\n\n")
    if not divider:
        raise LogProofError("no empty line before a checkpoint")
    try:
        first, *lines = head.decode("ascii").split("\n")
        if first != _FIRST_LINE:
            raise LogProofError("not a proof of version 1")
        extra = None
        if lines and lines[0].startswith(_EXTRA):
            extra = decode_base64(lines.pop(0).removeprefix(_EXTRA))
        if not lines or not lines[0].startswith(_INDEX):
            raise LogProofError("no index")
        index = parse_number(lines.pop(0).removeprefix(_INDEX))
        hashes = tuple(decode_base64(line) for line in lines[: MAX_PROOF_HASHES + 1])
    except (NoteError, UnicodeDecodeError) as error:
        raise LogProofError("not a proof") from error
    return LogProof(index=index, hashes=hashes, checkpoint=checkpoint, extra=extra)
