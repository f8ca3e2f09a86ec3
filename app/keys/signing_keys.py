"""Keeps the Ed25519 keys with which a deployment signs: one file a version, made once.

A file is the seed and a digest that ties it to its name, so a torn, swapped or renamed file is an
error and never a key. Errors name the key and nothing else: no path, no bytes.

Threat: Ledger tampering
"""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.domain.errors import KeyStoreError

SEED_BYTES = 32
ENROLMENT, LOG = "enrolment", "log"
_FILE_BYTES = SEED_BYTES + hashlib.sha256().digest_size
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
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
    draft = path.with_name(f".new-{random_bytes(16).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(draft, flags, 0o600)
    try:
        try:
            if os.write(descriptor, seed + _check(name, seed)) != _FILE_BYTES:
                raise KeyStoreError(f"signing key {name} cannot be made: short write")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with suppress(FileExistsError):  # another process was first: its key is the key
            os.link(draft, path, follow_symlinks=False)
    finally:
        draft.unlink()
    for folder in (path.parent, path.parent.parent):
        _sync_directory(folder)


def read_key_file(path: Path, name: str) -> SigningKey:
    """The key of a file that `write_key_file` made for this name. KeyStoreError otherwise."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            raw = os.read(descriptor, _FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyStoreError(f"signing key {name} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode) or found.st_mode & _OTHERS:
        raise KeyStoreError(f"signing key {name} is not a private file of mode 0600")
    seed = raw[:SEED_BYTES]
    if len(raw) != _FILE_BYTES or not hmac.compare_digest(raw[SEED_BYTES:], _check(name, seed)):
        raise KeyStoreError(f"signing key {name} is damaged")
    return SigningKey(seed)


def _check(name: str, seed: bytes) -> bytes:
    return hashlib.sha256(b"meshflow/signing-key/v1\0" + name.encode() + b"\0" + seed).digest()


def _sync_directory(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
