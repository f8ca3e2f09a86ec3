"""A file of signed statements outside the database, so that a restored backup is erased again.

It holds no content: statements, signatures and ids. It is only ever appended to.

Threat: PHI leakage in audit logs
"""

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from app.domain.erasure import ErasureId
from app.domain.errors import KeyStoreError
from app.domain.run import Json, JsonObject, TenantId
from app.ledger.erasure_statement import ErasureStatement, StatementError, checked_statement


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """An erasure that was carried out, and the statement of it."""

    erasure_id: ErasureId
    tenant_id: TenantId  # whose administration run tells of it
    statement: ErasureStatement


class ErasureJournal:
    """One append-only file of mode 0600. What `append` returned from survives a power cut."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, erasure_id: ErasureId, tenant_id: TenantId, note: JsonObject) -> None:
        """Keep a statement that is about to be committed."""
        self._write({"erasure": erasure_id.hex, "tenant": tenant_id.hex, "note": note})

    def void(self, erasure_id: ErasureId) -> None:
        """Strike an entry: it was not committed, or a newer one took its place."""
        self._write({"void": erasure_id.hex})

    def entries(self, keys: Collection[bytes]) -> Sequence[JournalEntry]:
        """Every entry that holds and was not struck, oldest first. KeyStoreError.

        A last line that a crash cut short was never committed. Anything else that does not hold is
        an error: whoever shortens the journal must not make an erasure be forgotten in silence.
        """
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise KeyStoreError(f"the erasure journal cannot be read: {error.strerror}") from None
        found: dict[ErasureId, JournalEntry] = {}
        for line in raw.split(b"\n")[:-1]:
            if not line:
                continue
            try:
                told: Json = json.loads(line)
                if isinstance(told, dict) and isinstance(told.get("void"), str):
                    found.pop(ErasureId(UUID(hex=str(told["void"]))), None)
                    continue
                entry = _entry(told, keys)
            except (ValueError, KeyError):
                raise KeyStoreError("the erasure journal is damaged") from None
            found[entry.erasure_id] = entry
        return tuple(found.values())

    def _write(self, line: JsonObject) -> None:
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            is_new = not self._path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    # A crash cut the last line short: it was never committed.
                    os.ftruncate(descriptor, _whole(descriptor, size))
                if os.write(descriptor, data) != len(data):
                    raise KeyStoreError("the erasure journal cannot be written: short write")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_new:
                folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                os.fsync(folder)
                os.close(folder)
        except OSError as error:
            raise KeyStoreError(
                f"the erasure journal cannot be written: {error.strerror}"
            ) from None


def _whole(descriptor: int, size: int) -> int:
    """How many bytes there are up to the last end of a line."""
    return os.pread(descriptor, size, 0).rfind(b"\n") + 1


def _entry(told: Json, keys: Collection[bytes]) -> JournalEntry:
    if not isinstance(told, dict):
        raise StatementError("not an entry")
    note = json.dumps(told["note"], ensure_ascii=False).encode("utf-8")
    return JournalEntry(
        erasure_id=ErasureId(UUID(hex=str(told["erasure"]))),
        tenant_id=TenantId(UUID(hex=str(told["tenant"]))),
        statement=checked_statement(note, keys=keys),
    )
