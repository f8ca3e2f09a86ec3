"""The key that signs erasures, in a file of its own; its public halves lie beside the KEKs.

Whoever writes runs holds the public halves only: it can check an erasure and cannot make one up.

Threat: PHI leakage in audit logs
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from app.domain.errors import KeyStoreError
from app.keys.signing_keys import SigningKey, read_key_file, write_key_file

NAME = "erasure"
_PUBLISHED = "erasure.pub"
_LINE = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_BYTES = 1 << 16


def erasure_key(path: Path, random_bytes: Callable[[int], bytes]) -> SigningKey:
    """The key in the file, which is made when it is not there. KeyStoreError."""
    try:
        write_key_file(path, NAME, random_bytes)
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
