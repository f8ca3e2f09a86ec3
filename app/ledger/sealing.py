"""Seals payload fields under a run's key so that salt and content die together with it.

Source: docs/ledger-format.md section 4 (AES-256-GCM, NIST SP 800-38D).

Threat: PHI leakage in audit logs
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.ledger.hashing import SALT_BYTES, u64be

NONCE_BYTES = 12
_WORK = b"meshflow/work/v1"
_FILE = b"meshflow/work/file/v1"


class SealError(ValueError):
    """A sealed field does not open under this key at this place."""


class RunSealer:
    """Seals and opens the payload fields of one run."""

    __slots__ = ("_aead", "_run")

    def __init__(self, run_key: bytes, *, log: bytes, run: bytes) -> None:
        self._aead = AESGCM(run_key)
        self._run = log + run

    def seal(self, *, seq: int, field: int, salt: bytes, value: bytes, nonce: bytes) -> bytes:
        """`nonce ‖ ciphertext ‖ tag`, bound to the place of the field."""
        place = self._run + seq.to_bytes(8, "big") + field.to_bytes(2, "big")
        return nonce + self._aead.encrypt(nonce, salt + value, place)

    def open(self, *, seq: int, field: int, blob: bytes) -> tuple[bytes, bytes]:
        """Salt and value. SealError when the key, the place or a byte is wrong."""
        place = self._run + seq.to_bytes(8, "big") + field.to_bytes(2, "big")
        try:
            clear = self._aead.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], place)
        except (InvalidTag, ValueError) as error:
            raise SealError("a sealed field does not open") from error
        if len(clear) < SALT_BYTES:
            raise SealError("a sealed field is too short")
        return clear[:SALT_BYTES], clear[SALT_BYTES:]


def seal_result(key: bytes, text: str, *, log: bytes, run: bytes, nonce: bytes) -> bytes:
    """A run's released output under a key of its own, outside the chain: `nonce ‖ sealed`."""
    return nonce + AESGCM(key).encrypt(nonce, result_bytes(text), log + run)


def result_bytes(text: str) -> bytes:
    """A released output as it is sealed: UTF-8, a question mark for each lone surrogate."""
    return text.encode("utf-8", "replace")


def open_result(key: bytes, blob: bytes, *, log: bytes, run: bytes) -> str:
    """The released output. SealError when the key, the run or a byte is wrong."""
    nonce, sealed = blob[:NONCE_BYTES], blob[NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, sealed, log + run).decode("utf-8")
    except (InvalidTag, ValueError) as error:
        raise SealError("a sealed result does not open") from error


def seal_work(key: bytes, value: bytes, *, log: bytes, run: bytes, seq: int, nonce: bytes) -> bytes:
    """A part of a run's working copy under its work key, bound to its place: `nonce ‖ sealed`."""
    return nonce + AESGCM(key).encrypt(nonce, value, _WORK + log + run + u64be(seq))


def open_work(key: bytes, blob: bytes, *, log: bytes, run: bytes, seq: int) -> bytes:
    """The part in clear. SealError when the key, the place or a byte is wrong."""
    nonce, sealed = blob[:NONCE_BYTES], blob[NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, sealed, _WORK + log + run + u64be(seq))
    except (InvalidTag, ValueError) as error:
        raise SealError("a part of a working copy does not open") from error


def seal_file(
    key: bytes, value: bytes, *, log: bytes, run: bytes, name: bytes, nonce: bytes
) -> bytes:
    """A file of a run under its work key, bound to its run and keyed name: `nonce ‖ sealed`."""
    return nonce + AESGCM(key).encrypt(nonce, value, _FILE + log + run + name)


def open_file(key: bytes, blob: bytes, *, log: bytes, run: bytes, name: bytes) -> bytes:
    """The file in clear. SealError when the key, the place or a byte is wrong."""
    nonce, sealed = blob[:NONCE_BYTES], blob[NONCE_BYTES:]
    try:
        return AESGCM(key).decrypt(nonce, sealed, _FILE + log + run + name)
    except (InvalidTag, ValueError) as error:
        raise SealError("a file of a working copy does not open") from error
