"""Remembers outside the database which log the name of a tenant means.

Whoever owns the database can give a name to another log. A process that knows the log goes by it;
one that starts afterwards asks this memory: a file for each name in the key directory, which all
processes of a deployment share. No record of a log could say it instead: a tenant's name stands in
none, so that it dies with the tenant.

The first process that meets a name believes the database. A name is forgotten once nothing is left
of its log, as a deletion leaves it.

Threat: Ledger tampering
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from app.domain.run import TenantId
from app.keys.private_files import (
    is_private,
    publish_private_file,
    read_private_file,
    sync_directory,
)
from app.storage.run_store import RunStore

_log = logging.getLogger("meshflow")
_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What names mean. `gone`: they meant logs of which nothing is left; `taken`: see RunStore."""

    found: Mapping[str, TenantId]
    gone: frozenset[str]
    taken: frozenset[str]


class TenantMemory:
    """The names of one deployment. What cannot be read or kept is told, and stops nobody."""

    def __init__(
        self, key_directory: Path, runs: RunStore, entropy: Callable[[int], bytes]
    ) -> None:
        self._folder = key_directory / "tenants"
        self._runs = runs
        self._entropy = entropy
        self._is_swept = False

    async def look(self, known: Mapping[str, TenantId], unknown: Collection[str]) -> Names:
        """What the unknown names mean, and which of the known ones mean nothing any more.

        LedgerUnavailableError.
        """
        if not self._is_swept:
            await self._sweep()
            self._is_swept = True
        recalled = await asyncio.to_thread(self._recall, unknown)
        renamed = await self._runs.renamed_tenants({**recalled, **known})
        await asyncio.to_thread(self._forget, [_file_of(name) for name in renamed.gone])
        kept = {name: log for name, log in recalled.items() if name not in renamed.gone}
        new = (set(unknown) | renamed.gone) - kept.keys()
        made = {name: await self._runs.ensure_tenant(name) for name in sorted(new)}
        await asyncio.to_thread(self._keep, made)
        gone = renamed.gone & known.keys()
        return Names(found={**kept, **made}, gone=gone, taken=renamed.taken)

    async def _sweep(self) -> None:
        """Forget the logs of which nothing is left, whatever their names were."""
        logs = await asyncio.to_thread(self._every)
        left = {file: await self._runs.has_records(log) for file, log in logs.items()}
        await asyncio.to_thread(
            self._forget, [file for file, is_left in left.items() if not is_left]
        )

    def _every(self) -> dict[str, TenantId]:
        try:
            files = sorted(path.name for path in self._folder.iterdir())
        except OSError:
            return {}
        found = {file: self._read(file) for file in files if len(file) == len(_file_of(""))}
        return {file: log for file, log in found.items() if log is not None}

    def _recall(self, names: Collection[str]) -> dict[str, TenantId]:
        found = {name: self._read(_file_of(name)) for name in names}
        return {name: log for name, log in found.items() if log is not None}

    def _read(self, file: str) -> TenantId | None:
        try:
            data, what = read_private_file(self._folder / file, _BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("what a tenant's name means is not remembered: %s", error.strerror)
            return None
        if not is_private(what) or len(data) != _BYTES:
            _log.error("what is remembered of a tenant's name is damaged, or open to others")
            return None
        return TenantId(UUID(bytes=data))

    def _keep(self, found: Mapping[str, TenantId]) -> None:
        if not found:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for name, log in found.items():
                publish_private_file(self._folder / _file_of(name), log.bytes, self._entropy)
            sync_directory(self._folder)
        except OSError as error:
            _log.warning("what a tenant's name means cannot be remembered: %s", error.strerror)

    def _forget(self, files: Collection[str]) -> None:
        for file in files:
            with suppress(FileNotFoundError, NotADirectoryError):
                try:
                    (self._folder / file).unlink()
                except PermissionError as error:
                    _log.warning("a tenant's name cannot be forgotten: %s", error.strerror)


def _file_of(name: str) -> str:
    """A name may hold what no file name may."""
    return hashlib.sha256(name.encode()).hexdigest()
