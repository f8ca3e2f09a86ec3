"""The key that opens the notes of the operator log, in a file that an operator hands to an auditor.

Those notes are checkpoints, public keys, sizes, alarms and signatures: nothing that a tenant sent.
Whoever has this key can read them and can still write nothing.

Threat: Ledger tampering
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.errors import KeyStoreError
from app.keys.private_files import (
    is_private,
    publish_private_file,
    read_private_file,
    sync_directory,
)

_MARK = "meshflow-operator-key/v1"
_LINE = re.compile(rf"{_MARK} ([0-9a-f]{{32}}) ([0-9a-f]{{32}}) ([0-9a-f]{{64}})\n", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorKey:
    """The run key of the operator log's administration run. No repr shows it."""

    log: bytes
    run: bytes
    run_key: bytes = field(repr=False)


def write_operator_key(path: Path, key: OperatorKey, random_bytes: Callable[[int], bytes]) -> None:
    """A new private file, durable when this returns. KeyStoreError when there is one already."""
    line = f"{_MARK} {key.log.hex()} {key.run.hex()} {key.run_key.hex()}\n"
    try:
        if path.exists():
            raise KeyStoreError("the key of the operator log: there is such a file already")
        publish_private_file(path, line.encode(), random_bytes)
        sync_directory(path.parent)
    except OSError as error:
        told = f"the key of the operator log cannot be written: {error.strerror}"
        raise KeyStoreError(told) from None


def read_operator_key(path: Path) -> OperatorKey:
    """The key of a file that `write_operator_key` made. KeyStoreError otherwise."""
    try:
        raw, found = read_private_file(path, 1024)
    except OSError as error:
        told = f"the key of the operator log cannot be read: {error.strerror}"
        raise KeyStoreError(told) from None
    if not is_private(found):
        raise KeyStoreError("the key of the operator log is not a private file of mode 0600")
    match = _LINE.fullmatch(raw.decode("ascii", "replace"))
    if match is None:
        raise KeyStoreError("the key of the operator log is damaged")
    log, run, run_key = (bytes.fromhex(part) for part in match.groups())
    return OperatorKey(log=log, run=run, run_key=run_key)
