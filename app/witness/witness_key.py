"""The private key of a witness in a file that only its owner reads.

Its spelling is `PRIVATE+KEY+<name>+<key id>+<base64 of type and seed>`, in one line. Errors hold
nothing of the file.

Threat: Ledger tampering
"""

import os
import stat
from pathlib import Path

from app.domain.errors import ConfigurationError
from app.transparency.checkpoint import Checkpoint, parse_checkpoint
from app.transparency.note import (
    COSIGNATURE,
    NoteError,
    SignerKey,
    decode_base64,
    encode_base64,
    parse_note,
    verified,
)

_PREFIX = "PRIVATE+KEY+"
_MOST_KEY_BYTES = 4096
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_key_file(path: Path, name: str, seed: bytes) -> SignerKey:
    """Put a new key there, durably. ConfigurationError for a bad name or where a file is."""
    try:
        key = SignerKey(name=name, algorithm=COSIGNATURE, seed=seed)
        verifier = key.verifier
    except NoteError:
        raise ConfigurationError("--name must not be empty nor hold a space or a plus") from None
    encoded = encode_base64(bytes([COSIGNATURE]) + seed)
    line = f"{_PREFIX}{name}+{verifier.key_id.hex()}+{encoded}\n"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ConfigurationError(f"the key file cannot be made: {error.strerror}") from None
    return key


def read_key_file(path: Path) -> SignerKey:
    """The key. ConfigurationError if others may read the file, or it holds no key of a witness."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            text = file.read(_MOST_KEY_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigurationError(f"the key file cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode) or found.st_mode & _OTHERS or found.st_uid != os.geteuid():
        raise ConfigurationError("the key file must be yours alone: mode 0600, your own user")
    key = _parsed(text)
    if key is None:
        raise ConfigurationError("the key file holds no key of a witness")
    return key


def _parsed(text: str) -> SignerKey | None:
    name, _, rest = text.removeprefix(_PREFIX).removesuffix("\n").partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        blob = decode_base64(encoded)
        key = SignerKey(name=name, algorithm=COSIGNATURE, seed=blob[1:])
        made = key.verifier.key_id.hex()
    except NoteError:
        return None
    is_whole = text.startswith(_PREFIX) and blob[:1] == bytes([COSIGNATURE]) and made == key_id
    return key if is_whole else None


def cosigned_checkpoint(note: bytes, key: SignerKey) -> Checkpoint | None:
    """The checkpoint of a note that this key cosigned; None for any other bytes."""
    try:
        found = parse_note(note)
        verified(found, [key.verifier])
        return parse_checkpoint(found.text)
    except NoteError:
        return None
