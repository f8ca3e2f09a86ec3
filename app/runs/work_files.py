"""The files of a run beside its working copy: sealed after each call that may change them.

They are durable before the result of the call is recorded, so whoever takes the run over finds what
its ledger tells of, on whatever machine. What cannot be copied whole is said to be so: the run goes
on, and cannot be taken over.

Threat: PHI leakage in audit logs
"""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from app.ledger.sealing import NONCE_BYTES, open_file, seal_file
from app.ledger.writing import Entropy
from app.runs.recorder import RunPlace
from app.runs.working_copy import WorkingCopyError
from app.sandbox.workspace import Workspace
from app.sandbox.workspace_copy import UncopiedError, lay_out, read_all
from app.storage.work_store import FilesChange, WorkStore

MANIFEST = bytes(32)  # the name of the row that says what files there are
NO_FILES: Mapping[str, bytes] = MappingProxyType({})
_NAME = b"meshflow/work/file/v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftFiles:
    """What is kept of a run's files. `files` None: they could not be copied."""

    files: Mapping[str, bytes] | None


class WorkFiles:
    """Keeps the files of one run, for its one owner."""

    def __init__(
        self,
        store: WorkStore,
        place: Callable[[], RunPlace],
        entropy: Entropy,
        left: Mapping[str, bytes] | None,
    ) -> None:
        self._store = store
        self._place = place
        self._entropy = entropy
        self._left = left
        self._kept: Mapping[str, bytes] | None = None if left is None else _digests(left)
        self._is_given_up = False

    async def lay_out(self, workspace: Workspace) -> None:
        """Put there what another process left of the run's files; nothing when none did."""
        left, self._left = self._left, None
        if left is not None:
            await asyncio.to_thread(lay_out, workspace, left)

    async def keep(self, workspace: Workspace) -> None:
        """Make the files as they are now durable.

        A LedgerError: they are not known to be, and the caller must not go on.
        """
        key = self._place().work_key
        if key is None or self._is_given_up:
            return
        try:
            found = await asyncio.to_thread(read_all, workspace)
        except UncopiedError:
            self._is_given_up = True
            await self._write(key, NO_FILES, NO_FILES, is_whole=False)
            return
        digests = await asyncio.to_thread(_digests, found)
        if digests != self._kept:
            await self._write(key, found, digests, is_whole=True)

    async def _write(
        self, key: bytes, found: Mapping[str, bytes], now: Mapping[str, bytes], *, is_whole: bool
    ) -> None:
        kept = {} if self._kept is None else self._kept
        changed = [path for path in now if kept.get(path) != now[path]]
        told = {path: digest.hex() for path, digest in now.items()}
        manifest = json.dumps({"is_whole": is_whole, "files": told}).encode()
        sealed = {
            MANIFEST: self._sealed(key, MANIFEST, manifest),
            **{
                (name := _name(key, path)): self._sealed(key, name, found[path]) for path in changed
            },
        }
        place = self._place()
        change = FilesChange(sealed=sealed, gone=[_name(key, path) for path in kept.keys() - now])
        await self._store.keep_files(place.tenant_id, place.run_id, place.epoch, change)
        self._kept = now

    def _sealed(self, key: bytes, name: bytes, value: bytes) -> bytes:
        place, nonce = self._place(), self._entropy(NONCE_BYTES)
        log, run = place.tenant_id.bytes, place.run_id.bytes
        return seal_file(key, value, log=log, run=run, name=name, nonce=nonce)


def left_files(place: RunPlace, rows: Sequence[tuple[bytes, bytes]]) -> LeftFiles | None:
    """The files that these rows hold; None when none were ever kept.

    WorkingCopyError, SealError when they are not those that the manifest names.
    """
    if not rows:
        return None
    key = place.work_key or b""
    log, run = place.tenant_id.bytes, place.run_id.bytes
    opened = {name: open_file(key, blob, log=log, run=run, name=name) for name, blob in rows}
    try:
        manifest = json.loads(opened.pop(MANIFEST))
    except (KeyError, ValueError) as error:
        raise WorkingCopyError("the files of a working copy have no manifest") from error
    if not manifest["is_whole"]:
        return LeftFiles(files=None)
    told: dict[str, str] = manifest["files"]
    found = {path: opened.pop(_name(key, path), None) for path in told}
    files = {path: content for path, content in found.items() if content is not None}
    if opened or {path: digest.hex() for path, digest in _digests(files).items()} != told:
        raise WorkingCopyError("the files of a working copy are not those of its manifest")
    return LeftFiles(files=files)


def _digests(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {path: hashlib.sha256(content).digest() for path, content in files.items()}


def _name(key: bytes, path: str) -> bytes:
    """What a file is called where anybody who reads the database could see it."""
    return hmac.digest(key, _NAME + path.encode(), "sha256")
