"""Keeps the keys that wrap other keys in a directory, and destroys them for good.

A file is the key and a digest that ties it to its id, so a torn, truncated, overwritten or renamed
file is an error and never a key. Errors name the key's id and nothing else: no path, no bytes.

Threat: PHI leakage in audit logs
"""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.domain.errors import ConfigurationError, KeyStoreError
from app.keys.private_files import (
    DRAFT,
    is_private,
    publish_private_file,
    read_private_file,
    sync_directory,
)

KEK_BYTES = 32
NONCE_BYTES = 12

# The kind, a tenant, a day, and a version once the day's first key was retired.
_KEK_ID = re.compile(r"[a-z]{1,32}(?:/[0-9a-f]{32})?/[0-9]{8}(?:\.[1-9][0-9]{0,5})?")
_PREFIX = re.compile(r"[a-z0-9/]{0,80}")
_FILE_BYTES = KEK_BYTES + hashlib.sha256().digest_size
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_CACHED_KEKS = 4096
_MAC = b"meshflow/mac/v1"


class KeyStore(Protocol):
    """The seam: a directory now, a key management service later."""

    def create_kek(self, kek_id: str) -> None:
        """Makes the KEK unless it is there; durable when this returns."""

    def wrap(self, kek_id: str, key: bytes, aad: bytes) -> bytes:
        """The key sealed under the KEK and bound to `aad`."""

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """The key again, or KeyStoreError."""

    def mac(self, kek_id: str, message: bytes) -> bytes:
        """HMAC-SHA256 under a key that only this KEK gives, or KeyStoreError."""

    def has_kek(self, kek_id: str) -> bool:
        """Whether the KEK exists now."""

    def destroy_kek(self, kek_id: str, *, now: datetime) -> datetime:
        """Destroys the KEK; the time at which it is gone, or will be."""

    def kek_ids(self, prefix: str) -> tuple[str, ...]:
        """All ids that begin with `prefix`, sorted."""


_Signature = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cached:
    path: str
    aead: AESGCM
    mac_key: bytes
    signature: _Signature


class FileKeyStore:
    """KEKs as files of mode 0600 in directories of mode 0700, shared by any number of processes.

    A KEK is complete and durable before anybody can read it. A key in memory is used only while
    its file is still the one it was read from, so a KEK destroyed by one process is at once useless
    to all others on this machine.
    """

    __slots__ = ("_cache", "_directory", "_random")

    def __init__(
        self,
        directory: Path,
        random_bytes: Callable[[int], bytes],
        *,
        forbidden: Sequence[Path] = (),
    ) -> None:
        """Makes the directory if need be. ConfigurationError if others could reach into it.

        `forbidden` are the data and workspace directories: keys beside the data they open, or
        where a tool may write, would protect nothing.
        """
        self._directory = _private_directory(directory, forbidden)
        self._random = random_bytes
        self._cache: dict[str, _Cached] = {}

    def create_kek(self, kek_id: str) -> None:
        """Makes the KEK unless it is there. When this returns, it survives a power cut.

        Of several processes at once exactly one makes it and all use that one. An id whose key was
        destroyed may be made anew; what the old key wrapped stays closed for ever.
        """
        path = self._path(kek_id)
        with _told_as(f"KEK {kek_id} cannot be created"):
            if kek_id in self._cache and self._signature_now(path) is not None:
                return
            _make_directories(path.parent, self._directory)
            if not path.exists():
                self._publish(kek_id, path)
            for folder in (path.parent, *path.parent.parents):
                sync_directory(folder)  # by the loser of a race too: it will rely on the key
                if folder == self._directory:
                    break
        self._load(kek_id)

    def wrap(self, kek_id: str, key: bytes, aad: bytes) -> bytes:
        """`nonce12 ‖ AES-256-GCM`, bound to `aad`. KeyStoreError when the KEK is not there."""
        nonce = self._random(NONCE_BYTES)
        return nonce + self._load(kek_id).aead.encrypt(nonce, key, aad)

    def unwrap(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes:
        """The wrapped key. KeyStoreError when KEK, `aad` or a byte is not the same."""
        aead = self._load(kek_id).aead
        try:
            return aead.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):
            raise KeyStoreError(f"what KEK {kek_id} wrapped does not open") from None

    def mac(self, kek_id: str, message: bytes) -> bytes:
        """HMAC-SHA256 under HKDF(KEK, `meshflow/mac/v1`): nobody can repeat it without the KEK.

        KeyStoreError when the KEK is not there.
        """
        return hmac.digest(self._load(kek_id).mac_key, message, "sha256")

    def has_kek(self, kek_id: str) -> bool:
        """Whether the KEK's file is there, whole or not."""
        path = self._path(kek_id)
        with _told_as(f"KEK {kek_id} cannot be looked up"):
            return self._signature_now(path) is not None

    def destroy_kek(self, kek_id: str, *, now: datetime) -> datetime:
        """Overwrites and unlinks the KEK; `now` once the unlinking is durable.

        KeyStoreError when it is not there: a store that never held a key (a wrong volume) must not
        attest that it is gone. A caller that resumes after a crash asks `has_kek` first.
        Overwriting is best effort (copy-on-write file systems and SSDs keep old blocks).
        """
        path = self._path(kek_id)
        self._cache.pop(kek_id, None)
        with _told_as(f"KEK {kek_id} cannot be destroyed"):
            descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                os.pwrite(descriptor, bytes(max(found.st_size, _FILE_BYTES)), 0)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            for draft in path.parent.glob(f"{DRAFT}*"):
                # A crash between link and unlink leaves a second name of the same file.
                with suppress(FileNotFoundError):
                    if os.path.samestat(draft.lstat(), found):
                        draft.unlink()
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
        return now

    def kek_ids(self, prefix: str) -> tuple[str, ...]:
        """All ids that begin with `prefix`, sorted; `ledger/`, `work/2026`, or empty for all."""
        if _PREFIX.fullmatch(prefix) is None:
            raise KeyStoreError("a KEK id prefix is made of lower-case letters, digits and /")
        top = self._directory.joinpath(*prefix.split("/")[:-1])
        found: list[str] = []
        with _told_as("the KEKs cannot be listed"):
            for folder, _, names in os.walk(top, onerror=_raise_unless_missing):
                for name in names:
                    kek_id = (Path(folder) / name).relative_to(self._directory).as_posix()
                    if kek_id.startswith(prefix) and _KEK_ID.fullmatch(kek_id):
                        found.append(kek_id)
        return tuple(sorted(found))

    def _path(self, kek_id: str) -> Path:
        if _KEK_ID.fullmatch(kek_id) is None:
            raise KeyStoreError("this is not a KEK id")
        return self._directory / kek_id

    def _publish(self, kek_id: str, path: Path) -> None:
        key = self._random(KEK_BYTES)
        publish_private_file(path, key + _check(kek_id, key), self._random)

    @staticmethod
    def _signature_now(path: Path | str) -> _Signature | None:
        try:
            return _signature(os.lstat(path))
        except FileNotFoundError:
            return None

    def _cached(self, kek_id: str) -> _Cached | None:
        """What memory has of a file that is unchanged; any doubt is for the file to answer."""
        cached = self._cache.get(kek_id)
        if cached is None:
            return None
        try:
            if cached.signature == _signature(os.lstat(cached.path)):
                return cached
        except OSError:
            pass
        self._cache.pop(kek_id, None)
        return None

    def _load(self, kek_id: str) -> _Cached:
        """From memory while the file is unchanged, else from the file."""
        if (cached := self._cached(kek_id)) is not None:
            return cached
        with _told_as(f"KEK {kek_id} cannot be read"):
            path = self._path(kek_id)
            raw, found = read_private_file(path, _FILE_BYTES + 1)
        if not is_private(found):
            raise KeyStoreError(f"KEK {kek_id} is not a private file of mode 0600")
        key = raw[:KEK_BYTES]
        if len(raw) != _FILE_BYTES or not hmac.compare_digest(raw[KEK_BYTES:], _check(kek_id, key)):
            raise KeyStoreError(f"KEK {kek_id} is damaged")
        if len(self._cache) >= _CACHED_KEKS:
            self._cache.clear()
        loaded = _Cached(
            path=str(path),
            aead=AESGCM(key),
            mac_key=HKDF(SHA256(), KEK_BYTES, salt=None, info=_MAC).derive(key),
            signature=_signature(found),
        )
        self._cache[kek_id] = loaded
        return loaded


def _check(kek_id: str, key: bytes) -> bytes:
    return hashlib.sha256(b"meshflow/kek-file/v1\0" + kek_id.encode() + b"\0" + key).digest()


def _signature(found: os.stat_result) -> _Signature:
    return (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_mode)


def _private_directory(directory: Path, forbidden: Sequence[Path]) -> Path:
    name = "the ledger key directory"
    try:
        real = directory.resolve()
        others = [path.resolve() for path in forbidden]
        if any(real.is_relative_to(path) or path.is_relative_to(real) for path in others):
            raise ConfigurationError(f"{name} and the data or workspace directory hold each other")
        real.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = real.stat()
    except (OSError, RuntimeError):
        raise ConfigurationError(f"{name} cannot be made or read") from None
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{name} is not a directory")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(f"{name} belongs to another user")
    if found.st_mode & _OTHERS:
        raise ConfigurationError(f"{name} can be reached by others: its mode must be 0700")
    return real


def _make_directories(folder: Path, top: Path) -> None:
    for part in reversed([folder, *folder.parents]):
        if part.is_relative_to(top) and part != top:
            with suppress(FileExistsError):
                part.mkdir(mode=0o700)


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _told_as(sentence: str) -> Iterator[None]:
    """An OSError shows a path; what is raised instead shows the reason alone."""
    try:
        yield
    except FileNotFoundError:
        raise KeyStoreError(f"{sentence}: no such key") from None
    except OSError as error:
        raise KeyStoreError(f"{sentence}: {error.strerror}") from None
