"""Checkpoints: a log's promise of one tree at one size, and what a witness says to it.

Extension lines are refused: nobody audits them, so nothing may hide in them.

Source: C2SP tlog-checkpoint and tlog-cosignature.

Threat: Ledger tampering
"""

import re
from dataclasses import dataclass

from app.transparency.merkle_tree import EMPTY_ROOT, HASH_BYTES
from app.transparency.note import (
    COSIGNATURE,
    ED25519,
    Note,
    NoteError,
    SignerKey,
    VerifierKey,
    cosigned_at,
    decode_base64,
    encode_base64,
    format_note,
    format_signature,
    parse_note,
    signed,
    verified,
)

MAX_TREE_SIZE = 2**63 - 1
# No int() over more digits than the largest size has.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A tree head: whose log, how many leaves, which root. NoteError for one that cannot be."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or _CONTROL.search(self.origin):
            raise NoteError("an origin is one line and not empty")
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise NoteError("a tree size outside 0 to 2^63-1")
        if len(self.root) != HASH_BYTES:
            raise NoteError("a root is 32 bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise NoteError("an empty tree has another root")


def format_checkpoint(checkpoint: Checkpoint) -> str:
    """The note text of a checkpoint."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{encode_base64(checkpoint.root)}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint of a note text. NoteError for any spelling but `format_checkpoint`'s."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:  # noqa: PLR2004 - three lines, each with its newline
        raise NoteError("a checkpoint is three lines")
    origin, size, root = lines[:3]
    return Checkpoint(origin=origin, size=parse_number(size), root=decode_base64(root))


def parse_number(text: str) -> int:
    """A size or an index in decimal. NoteError with leading zeros, a sign, or beyond 2^63-1."""
    if _NUMBER.fullmatch(text) is None or int(text) > MAX_TREE_SIZE:
        raise NoteError("not a number from 0 to 2^63-1")
    return int(text)


def sign_checkpoint(checkpoint: Checkpoint, seed: bytes) -> bytes:
    """The signed note of a checkpoint under the log's Ed25519 key, which bears the origin's name.

    NoteError for an origin that is no key name. That nothing else was signed at this size is for
    the caller to know.
    """
    signer = SignerKey(name=checkpoint.origin, algorithm=ED25519, seed=seed)
    return format_note(signed(format_checkpoint(checkpoint), [signer]))


def open_checkpoint(data: bytes, key: VerifierKey) -> Checkpoint:
    """The checkpoint that the log of this key signed. NoteError for anything else."""
    if key.algorithm != ED25519:
        raise NoteError("a log signs with Ed25519")
    note = parse_note(data)
    verified(note, [key])
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != key.name:
        raise NoteError("a checkpoint of another origin")
    return checkpoint


def cosign(note_text: str, witness: SignerKey, posix_seconds: int) -> str:
    """A witness's signature line for a checkpoint's text, its newline included.

    NoteError for a text that is no checkpoint, a key that is no witness's, or a bad time. That the
    tree only grew since the witness's last cosignature is for the caller to know.
    """
    parse_checkpoint(note_text)
    if witness.algorithm != COSIGNATURE:
        raise NoteError("a witness signs with a timestamp")
    return format_signature(witness.sign(note_text, posix_seconds=posix_seconds))


def verify_cosignature(note: Note, key: VerifierKey) -> int:
    """When the witness of this key last cosigned the checkpoint, in POSIX seconds.

    NoteError if the note is no checkpoint, the witness did not sign it, or one of its lines does
    not hold.
    """
    parse_checkpoint(note.text)
    if key.algorithm != COSIGNATURE:
        raise NoteError("a witness signs with a timestamp")
    verified(note, [key])
    lines = (s for s in note.signatures if (s.name, s.key_id) == (key.name, key.key_id))
    return max(cosigned_at(signature) for signature in lines)
