"""An anchor for one machine: a file that takes checkpoints and never goes back.

It stands in for a witness where there is none. It gives no cosignature: who can write the file
can also change it, so it proves something only to whoever copies it elsewhere.

Threat: Ledger tampering
"""

import asyncio
import fcntl
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from app.domain.errors import WitnessAheadError, WitnessRefusedError, WitnessUnavailableError
from app.transparency.checkpoint import Checkpoint, parse_checkpoint
from app.transparency.merkle_tree import verify_consistency
from app.transparency.note import parse_note

ProofFrom = Callable[[int], Awaitable[Sequence[bytes]]]
_CONFLICT = 409


class AnchorFile:
    """One JSON object a line, `{"checkpoint": note}`, flushed to the disk before it counts."""

    name = "anchor-file"

    def __init__(self, path: Path) -> None:
        self._path = path

    async def publish(self, note: str, size: int, proof_from: ProofFrom) -> str | None:
        """Append the checkpoint if it follows from the last one of its origin. No cosignature.

        WitnessAheadError, WitnessRefusedError: it would go back. WitnessUnavailableError: the file
        cannot be written.
        """
        new = _opened(note)
        last = await self.newest(new.origin)
        if last is not None:
            if last.size > size:
                raise WitnessAheadError(last.size)
            if last == new:
                return None
            proof = await proof_from(last.size)
            if not verify_consistency(
                old_size=last.size,
                old_root=last.root,
                new_size=new.size,
                new_root=new.root,
                proof=proof,
            ):
                raise WitnessRefusedError(_CONFLICT, is_fork=True)
        await asyncio.to_thread(self._append, note, new.origin, last)
        return None

    async def newest(self, origin: str) -> Checkpoint | None:
        """The last checkpoint of an origin, or None."""
        return await asyncio.to_thread(self._newest, origin)

    def _newest(self, origin: str) -> Checkpoint | None:
        found = None
        try:
            with self._path.open("rb") as file:
                for line in file:
                    checkpoint = _read(line)
                    if checkpoint is not None and checkpoint.origin == origin:
                        found = checkpoint
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WitnessUnavailableError(
                f"the anchor file cannot be read: {error.strerror}"
            ) from None
        return found

    def _append(self, note: str, origin: str, last: Checkpoint | None) -> None:
        """Only if `last` still is the newest: a leader that was replaced may come this late."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if self._newest(origin) != last:
                    raise WitnessUnavailableError("the anchor file grew meanwhile")
                size = os.fstat(descriptor).st_size
                is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                line = json.dumps({"checkpoint": note}, separators=(",", ":")).encode()
                data = (b"\n" if is_torn else b"") + line + b"\n"
                if os.write(descriptor, data) != len(data):
                    raise WitnessUnavailableError("the anchor file took half a line")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise WitnessUnavailableError(
                f"the anchor file cannot be written: {error.strerror}"
            ) from None


def _read(line: bytes) -> Checkpoint | None:
    """The checkpoint of a line; None for a torn one, which never counted.

    WitnessUnavailableError for a whole one that holds none: a file that is damaged has forgotten
    something, and nobody knows what.
    """
    try:
        found = json.loads(line)
    except ValueError:
        return None
    try:
        return _opened(found["checkpoint"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise WitnessUnavailableError("the anchor file is damaged") from None


def _opened(note: str) -> Checkpoint:
    return parse_checkpoint(parse_note(note.encode()).text)
