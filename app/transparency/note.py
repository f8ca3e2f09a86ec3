"""Signed notes: text under the signatures of named keys, read strictly and believed late.

Ed25519 (type 0x01) and timestamped witness cosignatures (type 0x04); no other type is known here.

Source: C2SP signed-note and tlog-cosignature; RFC 8032 for Ed25519.

Threat: Ledger tampering
"""

import base64
import binascii
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

ED25519 = 0x01
COSIGNATURE = 0x04
MAX_NOTE_BYTES = 64 * 1024
MAX_SIGNATURES = 64
MAX_POSIX_SECONDS = 2**63 - 1

_ALGORITHMS = frozenset({ED25519, COSIGNATURE})
_KEY_BYTES = 32
_KEY_ID_BYTES = 4
_TIMESTAMP_BYTES = 8
_ED25519_SIGNATURE_BYTES = 64
_MARK = "\N{EM DASH} "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_ID = re.compile(r"[0-9a-f]{8}", re.ASCII)
# Under a key whose point has a small order some signatures hold for every text. These are the
# y of the eight points of such an order, and the field they lie in (RFC 8032 section 5.1).
_FIELD = 2**255 - 19
_ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD - 1, _ORDER_8_Y, _FIELD - _ORDER_8_Y})


class NoteError(ValueError):
    """A note, a key or a checkpoint is malformed, or nobody trusted signed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSignature:
    """One signature line: who claims to have signed. Proves nothing by itself.

    NoteError for parts that no line can hold.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key_id) != _KEY_ID_BYTES or not self.signature:
            raise NoteError("a signature is a key id of 4 bytes and more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text, its last newline included, and its signature lines. Not verified yet.

    NoteError for a text that a note cannot hold.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        _check_text(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public key with the name that signs by it. NoteError if the parts do not fit together."""

    name: str
    key_id: bytes
    algorithm: int
    public_key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.algorithm not in _ALGORITHMS:
            raise NoteError("a key of an unknown signature type")
        _check_public_key(self.public_key)
        if self.key_id != _key_id(self.name, self.algorithm, self.public_key):
            raise NoteError("a key id that is not that of the key")

    @classmethod
    def parse(cls, vkey_text: str) -> Self:
        """The key of `name+id+base64`. NoteError for any other spelling than `encode` gives."""
        # The base64 may hold a plus, the name may not.
        name, first, rest = vkey_text.partition("+")
        key_id, second, encoded = rest.partition("+")
        if not first or not second or _KEY_ID.fullmatch(key_id) is None:
            raise NoteError("not a verifier key")
        key = decode_base64(encoded)
        return cls(
            name=name,
            key_id=bytes.fromhex(key_id),
            algorithm=key[0] if key else 0,
            public_key=key[1:],
        )

    def encode(self) -> str:
        """The vkey text."""
        key = encode_base64(bytes([self.algorithm]) + self.public_key)
        return f"{self.name}+{self.key_id.hex()}+{key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignerKey:
    """A private key with its name. Its repr does not show the seed."""

    name: str
    algorithm: int
    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.algorithm not in _ALGORITHMS:
            raise NoteError("a key of an unknown signature type")
        if len(self.seed) != _KEY_BYTES:
            raise NoteError("a seed is 32 bytes")

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        public_key = self._private_key().public_key().public_bytes_raw()
        return verifier_key(self.name, self.algorithm, public_key)

    def sign(self, text: str, *, posix_seconds: int | None = None) -> NoteSignature:
        """This key's signature of a note text. A cosignature needs a time, no other takes one.

        NoteError for a text that a note cannot hold, or a time that does not fit the key.
        """
        _check_text(text)
        if (self.algorithm == COSIGNATURE) != (posix_seconds is not None):
            raise NoteError("a cosignature needs a time, and no other signature has one")
        if posix_seconds is None:
            signature = self._private_key().sign(text.encode())
        else:
            message = _cosigned(text, posix_seconds)
            stamp = posix_seconds.to_bytes(_TIMESTAMP_BYTES, "big")
            signature = stamp + self._private_key().sign(message)
        return NoteSignature(name=self.name, key_id=self.verifier.key_id, signature=signature)

    def _private_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


def verifier_key(name: str, algorithm: int, public_key: bytes) -> VerifierKey:
    """The key with its key id worked out. NoteError for a bad name, type or key."""
    key_id = _key_id(name, algorithm, public_key) if algorithm in _ALGORITHMS else b""
    return VerifierKey(name=name, key_id=key_id, algorithm=algorithm, public_key=public_key)


def parse_note(data: bytes) -> Note:
    """The note of these bytes, nothing verified. NoteError unless it is spelled as a note is."""
    if len(data) > MAX_NOTE_BYTES:
        raise NoteError("longer than 64 KiB")
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteError("not UTF-8") from error
    # The last empty line divides: an earlier one belongs to the text.
    text, divider, lines = whole.rpartition("\n\n")
    if not divider or not lines.endswith("\n"):
        raise NoteError("no signature lines after an empty line")
    signature_lines = lines[:-1].split("\n")
    if len(signature_lines) > MAX_SIGNATURES:
        raise NoteError("more than 64 signatures")
    signatures = tuple(parse_signature_line(line + "\n") for line in signature_lines)
    return Note(text=text + "\n", signatures=signatures)


def format_note(note: Note) -> bytes:
    """The bytes of a note. NoteError for what `parse_note` would not read back."""
    lines = "".join(format_signature(signature) for signature in note.signatures)
    data = f"{note.text}\n{lines}".encode()
    parse_note(data)
    return data


def parse_signature_line(line: str) -> NoteSignature:
    """The signature of one line, its newline included. NoteError for any other spelling."""
    parts = line.removeprefix(_MARK).removesuffix("\n").split(" ")
    if not line.startswith(_MARK) or not line.endswith("\n") or len(parts) != 2:  # noqa: PLR2004 - a name and a signature
        raise NoteError("not a signature line")
    name, encoded = parts
    blob = decode_base64(encoded)
    return NoteSignature(name=name, key_id=blob[:_KEY_ID_BYTES], signature=blob[_KEY_ID_BYTES:])


def format_signature(signature: NoteSignature) -> str:
    """The signature line, its newline included."""
    blob = encode_base64(signature.key_id + signature.signature)
    return f"{_MARK}{signature.name} {blob}\n"


def signed(text: str, signers: Sequence[SignerKey], *, posix_seconds: int | None = None) -> Note:
    """The note of a text under these keys; the time is for those that cosign. NoteError if none."""
    if not signers:
        raise NoteError("nobody signs")
    signatures = tuple(
        signer.sign(text, posix_seconds=posix_seconds if signer.algorithm == COSIGNATURE else None)
        for signer in signers
    )
    return Note(text=text, signatures=signatures)


def with_signatures(data: bytes, lines: Iterable[str]) -> bytes:
    """The bytes of a note with more signature lines. NoteError if the result is no note."""
    note = parse_note(data)
    more = tuple(parse_signature_line(line) for line in lines)
    return format_note(Note(text=note.text, signatures=note.signatures + more))


def verified(note: Note, keys: Collection[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Those of `keys` that signed the note, each once, in the order of their lines.

    A line of an unknown key is passed over. NoteError if a line of a known key does not hold, if
    no line is of a known key, or if two known keys share a name and a key id.
    """
    known = {(key.name, key.key_id): key for key in keys}
    if len(known) != len(set(keys)):
        raise NoteError("two keys of one name and key id")
    found: dict[VerifierKey, None] = {}
    for signature in note.signatures:
        key = known.get((signature.name, signature.key_id))
        if key is None:
            continue
        if not _holds(note.text, signature.signature, key):
            raise NoteError("a signature of a known key does not hold")
        found[key] = None
    if not found:
        raise NoteError("no signature of a known key")
    return tuple(found)


def cosigned_at(signature: NoteSignature) -> int:
    """The POSIX seconds that a cosignature bears. NoteError if it has not the shape of one."""
    if len(signature.signature) != _TIMESTAMP_BYTES + _ED25519_SIGNATURE_BYTES:
        raise NoteError("not a timestamped signature")
    posix_seconds = int.from_bytes(signature.signature[:_TIMESTAMP_BYTES], "big")
    if posix_seconds > MAX_POSIX_SECONDS:
        raise NoteError("a time beyond 2^63-1")
    return posix_seconds


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def decode_base64(text: str) -> bytes:
    """The bytes of standard base64. NoteError for any spelling but `encode_base64`'s."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError("not base64") from error
    if encode_base64(data) != text:
        raise NoteError("base64 in a second spelling")
    return data


def _holds(text: str, signature: bytes, key: VerifierKey) -> bool:
    message = text.encode()
    if key.algorithm == COSIGNATURE:
        stamp, signature = signature[:_TIMESTAMP_BYTES], signature[_TIMESTAMP_BYTES:]
        posix_seconds = int.from_bytes(stamp, "big")
        if posix_seconds > MAX_POSIX_SECONDS:
            return False
        message = _cosigned(text, posix_seconds)
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _cosigned(text: str, posix_seconds: int) -> bytes:
    """What a witness signs; the first line keeps it apart from what a log signs."""
    if not 0 <= posix_seconds <= MAX_POSIX_SECONDS:
        raise NoteError("a time outside 0 to 2^63-1")
    return f"cosignature/v1\ntime {posix_seconds}\n{text}".encode()


def _key_id(name: str, algorithm: int, public_key: bytes) -> bytes:
    _check_name(name)
    hashed = sha256(name.encode() + b"\n" + bytes([algorithm]) + public_key)
    return hashed.digest()[:_KEY_ID_BYTES]


def _check_name(name: str) -> None:
    if not name or "+" in name or _CONTROL.search(name) or any(map(str.isspace, name)):
        raise NoteError("a key name is not empty and has no space, plus or control character")
    _check_encodes(name)


def _check_public_key(public_key: bytes) -> None:
    if len(public_key) != _KEY_BYTES:
        raise NoteError("a public key is 32 bytes")
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    if y >= _FIELD or y in _SMALL_ORDER_Y:
        raise NoteError("a public key under which signatures prove nothing")


def _check_text(text: str) -> None:
    if not text.endswith("\n"):
        raise NoteError("a text ends in a newline")
    if _CONTROL.search(text):
        raise NoteError("a control character")
    _check_encodes(text)


def _check_encodes(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise NoteError("a lone surrogate") from error
