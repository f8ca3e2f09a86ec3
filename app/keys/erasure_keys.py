"""The key that signs erasures, in a file of its own; its public halves lie beside the KEKs.

Whoever writes runs holds the public halves only: it can check an erasure and cannot make one up.

Threat: PHI leakage in audit logs
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.domain.errors import KeyStoreError
from app.keys.key_turns import turn
from app.keys.private_files import sync_directory
from app.keys.signing_keys import SigningKey, read_key_file, write_key_file

NAME = "erasure"
_PUBLISHED = "erasure.pub"
_LINE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_BYTES = 1 << 16


class ErasureKeyFile:
    """The file with the present key, beside it while it is rotated the next one, and a lock.

    Who signs holds the lock with others until its record is committed; who rotates holds it alone.
    """

    __slots__ = ("_lock", "_next", "_path", "_random")

    def __init__(self, path: Path, random_bytes: Callable[[int], bytes]) -> None:
        self._path = path
        self._next = path.with_name(f"{path.name}.next")
        self._lock = path.with_name(f"{path.name}.lock")
        self._random = random_bytes

    def current(self) -> SigningKey:
        """The key in the file, which is made when it is not there. KeyStoreError."""
        return self._made(self._path)

    @contextmanager
    def signing(self) -> Iterator[SigningKey]:
        """The present key, which nobody swaps while the block lasts. KeyStoreError.

        With a next key beside it the old one may count no more: then nobody signs until the
        rotation is finished.
        """
        self.current()
        with turn(self._lock, "the erasure key", alone=False):
            if self._next.exists():
                raise KeyStoreError("a rotation of the erasure key was begun and is not finished")
            yield self.current()

    @contextmanager
    def rotating(self) -> Iterator[tuple[SigningKey, SigningKey]]:
        """The present key and the next one, while nobody signs. KeyStoreError when somebody does.

        The next one is durable from here on: a rotation that was cut short goes on with it.
        """
        self.current()
        with turn(self._lock, "the erasure key", alone=True):
            yield self.current(), self._made(self._next)

    def swap(self) -> None:
        """The next key takes the place of the present one, which is gone then. Durable."""
        try:
            self._next.replace(self._path)
            sync_directory(self._path.parent)
        except OSError as error:
            raise KeyStoreError(f"the erasure key cannot be swapped: {error.strerror}") from None

    def _made(self, path: Path) -> SigningKey:
        try:
            write_key_file(path, NAME, self._random)
        except OSError as error:
            raise KeyStoreError(f"the erasure key cannot be made: {error.strerror}") from None
        return read_key_file(path, NAME)


def publish_erasure_key(key_directory: Path, public_key: bytes) -> None:
    """Let every reader of this key directory believe statements of this key; durable."""
    if public_key in published_erasure_keys(key_directory):
        return
    path = key_directory / "signing" / _PUBLISHED
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.write(descriptor, public_key.hex().encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KeyStoreError(f"the erasure key cannot be published: {error.strerror}") from None


def published_erasure_keys(key_directory: Path) -> frozenset[bytes]:
    """The public keys of this deployment's erasure statements; empty when nothing was erased."""
    path = key_directory / "signing" / _PUBLISHED
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("ascii", "replace")
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise KeyStoreError(f"the erasure keys cannot be read: {error.strerror}") from None
    return frozenset(bytes.fromhex(line) for line in text.split() if _LINE.fullmatch(line))
