"""A transparency log and a cosignature check of the tests' own, straight from the specifications.

RFC 6962 section 2.1 and C2SP signed-note, tlog-checkpoint and tlog-cosignature, by recursion and
with nothing of the application.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

EMPTY = hashlib.sha256(b"").digest()


def _split(count: int) -> int:
    return 1 << ((count - 1).bit_length() - 1)


def root_of(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    at = _split(len(leaves))
    return hashlib.sha256(b"\1" + root_of(leaves[:at]) + root_of(leaves[at:])).digest()


def proof_of(old: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PROOF of RFC 6962; empty for 0, as C2SP has it."""

    def sub(old: int, leaves: Sequence[bytes], *, is_whole: bool) -> list[bytes]:
        if old == len(leaves):
            return [] if is_whole else [root_of(leaves)]
        at = _split(len(leaves))
        if old <= at:
            return [*sub(old, leaves[:at], is_whole=is_whole), root_of(leaves[at:])]
        return [*sub(old - at, leaves[at:], is_whole=False), root_of(leaves[:at])]

    return sub(old, leaves, is_whole=True) if old else []


def key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


@dataclass(frozen=True, slots=True)
class NoteKey:
    """An Ed25519 key under a name and a signature type."""

    name: str
    seed: bytes = b"\1" * 32
    kind: int = 1

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    @property
    def vkey(self) -> str:
        made = key_id(self.name, self.kind, self.public).hex()
        encoded = base64.b64encode(bytes([self.kind]) + self.public).decode()
        return f"{self.name}+{made}+{encoded}"

    def line(self, text: bytes, *, at: int | None = None) -> bytes:
        """A signature line over the text; with `at`, a cosignature of that time."""
        if at is None:
            signature = self._key.sign(text)
        else:
            stamped = b"cosignature/v1\ntime %d\n" % at + text
            signature = at.to_bytes(8, "big") + self._key.sign(stamped)
        encoded = base64.b64encode(key_id(self.name, self.kind, self.public) + signature)
        return "— ".encode() + self.name.encode() + b" " + encoded + b"\n"


@dataclass(frozen=True, slots=True)
class SmallLog:
    """Leaves 0, 1, 2, ... of one flavour; another flavour from `fork_at` on is a fork."""

    key: NoteKey
    flavour: str = "honest"
    fork_at: int = 0

    @property
    def origin(self) -> str:
        return self.key.name

    def leaves(self, size: int) -> list[bytes]:
        return [
            f"{'honest' if n < self.fork_at else self.flavour} {n}".encode() for n in range(size)
        ]

    def text(self, size: int) -> bytes:
        root = base64.b64encode(root_of(self.leaves(size))).decode()
        return f"{self.origin}\n{size}\n{root}\n".encode()

    def note(self, size: int) -> bytes:
        return self.text(size) + b"\n" + self.key.line(self.text(size))

    def proof(self, old: int, size: int) -> list[bytes]:
        return proof_of(old, self.leaves(size))

    def body(self, old: int, size: int, note: bytes | None = None) -> bytes:
        return body_of(old, self.proof(old, size), self.note(size) if note is None else note)


def body_of(old: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """An add-checkpoint request."""
    lines = b"".join(base64.b64encode(found) + b"\n" for found in proof)
    return b"old %d\n" % old + lines + b"\n" + note


def cosigned_at(line: bytes, text: bytes, vkey: str) -> int:
    """The time of a cosignature line that holds over the text; AssertionError otherwise."""
    name, made, encoded = vkey.split("+", 2)
    public = base64.b64decode(encoded)[1:]
    prefix = f"— {name} ".encode()
    assert line.startswith(prefix)
    assert line.endswith(b"\n")
    raw = base64.b64decode(line[len(prefix) : -1], validate=True)
    assert raw[:4].hex() == made
    assert len(raw) == 4 + 8 + 64
    at = int.from_bytes(raw[4:12], "big")
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(
            raw[12:], b"cosignature/v1\ntime %d\n" % at + text
        )
    except InvalidSignature:
        raise AssertionError("the cosignature does not verify") from None
    return at
