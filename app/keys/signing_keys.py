"""Keeps the Ed25519 keys with which a deployment signs: one file a version, made once.

A file is the seed and a digest that ties it to its name, so a torn, swapped or renamed file is an
error and never a key. Errors name the key and nothing else: no path, no bytes.

Threat: Ledger tampering
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.domain.errors import KeyStoreError
from app.keys.key_turns import turn
from app.keys.private_files import (
    is_private,
    publish_private_file,
    read_private_file,
    sync_directory,
)

SEED_BYTES = 32
ENROLMENT, LOG = "enrolment", "log"
_FILE_BYTES = SEED_BYTES + hashlib.sha256().digest_size
_NAME = re.compile(r"([a-z]{1,32})\.([1-9][0-9]{0,5})")


class SigningKey:
    """One Ed25519 key. No repr shows it; `seed` is for libraries of formats that take seeds."""

    __slots__ = ("_private", "public_key", "seed")

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """64 bytes of Ed25519 (RFC 8032)."""
        return self._private.sign(message)


class SigningKeys:
    """The signing keys of a deployment, in a private directory beside its KEKs.

    Any number of processes may share it. Of several that make a key at once exactly one does, and
    all use that one.
    """

    __slots__ = ("_directory", "_random")

    def __init__(self, key_directory: Path, random_bytes: Callable[[int], bytes]) -> None:
        self._directory = key_directory / "signing"
        self._random = random_bytes

    def current(self, role: str) -> SigningKey:
        """The newest key of a role; the first one is made when there is none. Durable."""
        versions = self._versions(role)
        if not versions:
            self._publish(f"{role}.1")
            versions = [1]
        return self._load(f"{role}.{versions[-1]}")

    def every(self, role: str) -> tuple[SigningKey, ...]:
        """All keys of a role, oldest first; empty when none was made."""
        return tuple(self._load(f"{role}.{version}") for version in self._versions(role))

    def names(self, role: str) -> tuple[str, ...]:
        """The files of a role's keys, oldest first: as long as they are these, so are the keys."""
        return tuple(f"{role}.{version}" for version in self._versions(role))

    def add(self, role: str) -> SigningKey:
        """A new version of a role's key, current from now on."""
        name = f"{role}.{(self._versions(role) or [0])[-1] + 1}"
        self._publish(name)
        return self._load(name)

    @contextmanager
    def certifying(self) -> Iterator[SigningKey]:
        """The present enrolment key, which nobody rotates while the block lasts. KeyStoreError."""
        self.current(ENROLMENT)  # and with it the directory that the lock is in
        with turn(self._directory / "enrolment.lock", "the enrolment key", alone=False):
            yield self.current(ENROLMENT)

    @contextmanager
    def rotating_enrolment(self) -> Iterator[None]:
        """Nobody is certified while the block lasts. KeyStoreError when somebody is just now."""
        self.current(ENROLMENT)
        with turn(self._directory / "enrolment.lock", "the enrolment key", alone=True):
            yield

    def _versions(self, role: str) -> list[int]:
        try:
            names = [path.name for path in self._directory.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise KeyStoreError(f"signing keys cannot be listed: {error.strerror}") from None
        found = [match for name in names if (match := _NAME.fullmatch(name)) is not None]
        return sorted(int(match[2]) for match in found if match[1] == role)

    def _publish(self, name: str) -> None:
        try:
            write_key_file(self._directory / name, name, self._random)
        except OSError as error:
            raise KeyStoreError(f"signing key {name} cannot be made: {error.strerror}") from None

    def _load(self, name: str) -> SigningKey:
        return read_key_file(self._directory / name, name)


def write_key_file(path: Path, name: str, random_bytes: Callable[[int], bytes]) -> None:
    """Makes the key file unless it is there; whole and durable before its name can be seen."""
    for folder in (path.parent.parent, path.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seed = random_bytes(SEED_BYTES)
    publish_private_file(path, seed + _check(name, seed), random_bytes)
    for folder in (path.parent, path.parent.parent):
        sync_directory(folder)


def read_key_file(path: Path, name: str) -> SigningKey:
    """The key of a file that `write_key_file` made for this name. KeyStoreError otherwise."""
    try:
        raw, found = read_private_file(path, _FILE_BYTES + 1)
    except OSError as error:
        raise KeyStoreError(f"signing key {name} cannot be read: {error.strerror}") from None
    if not is_private(found):
        raise KeyStoreError(f"signing key {name} is not a private file of mode 0600")
    seed = raw[:SEED_BYTES]
    if len(raw) != _FILE_BYTES or not hmac.compare_digest(raw[SEED_BYTES:], _check(name, seed)):
        raise KeyStoreError(f"signing key {name} is damaged")
    return SigningKey(seed)


def _check(name: str, seed: bytes) -> bytes:
    return hashlib.sha256(b"meshflow/signing-key/v1\0" + name.encode() + b"\0" + seed).digest()
