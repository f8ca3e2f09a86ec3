"""Signed notes, checkpoints, cosignatures and log proofs as C2SP writes them.

signed-note v1.0.0, tlog-checkpoint v1.0.0, tlog-cosignature v1.0.1 (Ed25519), tlog-proof@v1.

Threat: Ledger tampering
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.offline.offline_merkle import HASH_SIZE, is_included, leaf_hash, tree_root
from app.offline.strict_json import BrokenError, from_base64

SIGNATURE = 0x01
COSIGNATURE = 0x04
LONGEST_NOTE = 65_536
_MOST_LINES = 64
_KEY_ID_SIZE = 4
_SIGNATURE_SIZE = 64
_STAMP_SIZE = 8
_DASH = "— "
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_LARGEST = 2**63 - 1
# The y of the points whose order divides 8, in the field of RFC 8032 section 5.1: those of order
# 1, 2 and 4, and of order 8, whose square solves d*y^4 + 2*y^2 = 1 there.
_FIELD = 2**255 - 19
_ORDER_8 = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER = {0, 1, _FIELD - 1, _ORDER_8, _FIELD - _ORDER_8}
_ORIGIN = re.compile(
    r"(?P<deployment>[a-z0-9.-]+(?:/[a-z0-9._-]+)*)"
    r"/ledger/(?P<log>[0-9a-f]{32})(?:/r[1-9][0-9]{0,8})?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public key with its name, as a vkey writes it."""

    name: str
    algorithm: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The first bytes of the hash that ties name, type and key."""
        named = self.name.encode("utf-8") + b"\n" + bytes([self.algorithm])
        return sha256(named + self.public).digest()[:_KEY_ID_SIZE]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureLine:
    """One line below a note."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note, nothing of it believed yet."""

    text: str
    lines: tuple[SignatureLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What the text of a checkpoint says, nothing of it believed yet."""

    origin: str
    deployment: str
    log: str
    size: int
    root: bytes
    note: Note


def is_signed(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether Ed25519 holds; a key or a signature that is none does not."""
    if not is_key(public):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def is_key(public: bytes) -> bool:
    """Whether these bytes may be a public key: under a point of small order anything holds."""
    y = int.from_bytes(public, "little") % 2**255
    return len(public) == HASH_SIZE and y % _FIELD not in _SMALL_ORDER


def is_key_name(name: str) -> bool:
    """Not empty, no Unicode space, no plus, nothing that a note may not hold."""
    return bool(name) and not any(
        letter.isspace() or letter == "+" or letter < " " for letter in name
    )


def parse_vkey(text: str) -> VerifierKey:
    """A vkey with an Ed25519 key, of type 0x01 or 0x04. BrokenError if it is none."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    material = from_base64(encoded)
    if len(material) != 1 + HASH_SIZE or material[0] not in {SIGNATURE, COSIGNATURE}:
        raise BrokenError("is no Ed25519 key of type 0x01 or 0x04")
    key = VerifierKey(name=name, algorithm=material[0], public=material[1:])
    if not is_key_name(name) or key.key_id.hex() != key_id or not is_key(key.public):
        raise BrokenError("is no vkey: its name and its id do not belong together")
    return key


def parse_note(data: bytes) -> Note:
    """A signed note. BrokenError if it is none."""
    if len(data) > LONGEST_NOTE:
        raise BrokenError("is longer than a note may be")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError:
        raise BrokenError("is not UTF-8") from None
    if any(letter < " " and letter != "\n" for letter in whole):
        raise BrokenError("holds a control character")
    text, parted, below = whole.rpartition("\n\n")
    if not parted or not text or not below.endswith("\n"):
        raise BrokenError("is no signed note")
    lines = below[:-1].split("\n")
    if len(lines) > _MOST_LINES:
        raise BrokenError("has more signatures than a note may have")
    return Note(text=text + "\n", lines=tuple(map(_parse_line, lines)))


def _parse_line(line: str) -> SignatureLine:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not is_key_name(name):
        raise BrokenError("has a line that is no signature")
    data = from_base64(encoded)
    if len(data) <= _KEY_ID_SIZE:
        raise BrokenError("has a signature line without a signature")
    return SignatureLine(name=name, key_id=data[:_KEY_ID_SIZE], signature=data[_KEY_ID_SIZE:])


def parse_checkpoint(data: bytes) -> Checkpoint:
    """A checkpoint of three lines by an origin as section 10 makes it. BrokenError if not."""
    note = parse_note(data)
    lines = note.text[:-1].split("\n")
    if len(lines) != 3:  # noqa: PLR2004 - origin, size, root
        raise BrokenError("has not the three lines of a checkpoint")
    origin, size, root = lines
    named = parse_origin(origin)
    if named is None:
        raise BrokenError("has an origin that is no ledger's")
    count = parse_size(size)
    hashed = from_base64(root)
    if len(hashed) != HASH_SIZE or (count == 0 and hashed != tree_root(())):
        raise BrokenError("has a root that is none")
    return Checkpoint(
        origin=origin,
        deployment=named[0],
        log=named[1],
        size=count,
        root=hashed,
        note=note,
    )


def parse_origin(origin: str) -> tuple[str, str] | None:
    """Deployment and log of an origin; None for the origin of some other log."""
    named = _ORIGIN.fullmatch(origin)
    return None if named is None else (named["deployment"], named["log"])


def parse_size(text: str) -> int:
    """A size or an index in decimal, without zeros in front."""
    if not _DECIMAL.fullmatch(text) or int(text) > _LARGEST:
        raise BrokenError("has a number that is no size")
    return int(text)


def signers(note: Note, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
    """Which of these keys signed the text; BrokenError when a line of one of them does not hold.

    Lines of unknown keys are passed over, as signed-note demands.
    """
    return list(dict.fromkeys(key for key, _ in _holding(note, keys, SIGNATURE)))


def cosigners(note: Note, keys: Iterable[VerifierKey]) -> list[tuple[VerifierKey, int]]:
    """Which witnesses cosigned the text, and when they say they did, in POSIX seconds, by line."""
    return _holding(note, keys, COSIGNATURE)


def _holding(
    note: Note, keys: Iterable[VerifierKey], algorithm: int
) -> list[tuple[VerifierKey, int]]:
    known = {(key.name, key.key_id): key for key in keys if key.algorithm == algorithm}
    found: list[tuple[VerifierKey, int]] = []
    for line in note.lines:
        key = known.get((line.name, line.key_id))
        if key is None:
            continue
        signature, message, stamp = line.signature, note.text.encode("utf-8"), 0
        if algorithm == COSIGNATURE:
            stamp = int.from_bytes(signature[:_STAMP_SIZE], "big")
            signature = signature[_STAMP_SIZE:]
            message = b"cosignature/v1\ntime %d\n" % stamp + message
        if (
            len(signature) != _SIGNATURE_SIZE
            or stamp > _LARGEST
            or not is_signed(key.public, signature, message)
        ):
            raise BrokenError(f"has a signature by {line.name} that does not hold")
        found.append((key, stamp))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """A tlog-proof: where an entry stands, and the checkpoint that says so."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: Checkpoint

    def includes(self, entry: bytes) -> bool:
        """Whether these bytes are the entry it speaks of; says nothing about signatures."""
        at, tree = self.checkpoint, leaf_hash(entry)
        return is_included(tree, self.index, at.size, self.path, at.root)


def parse_log_proof(data: bytes) -> LogProof:
    """A proof in the form c2sp.org/tlog-proof@v1. BrokenError if it is none."""
    head, parted, note = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise BrokenError("is no tlog-proof") from None
    if not parted or lines.pop(0) != "c2sp.org/tlog-proof@v1":
        raise BrokenError("is no tlog-proof")
    if lines and lines[0].startswith("extra "):
        from_base64(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise BrokenError("is a tlog-proof without an index")
    index = parse_size(lines.pop(0).removeprefix("index "))
    path = tuple(from_base64(line) for line in lines)
    return LogProof(index=index, path=path, checkpoint=parse_checkpoint(note))
