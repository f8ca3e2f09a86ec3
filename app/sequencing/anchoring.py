"""Takes operator checkpoints to places outside the database, and compares with them at the start.

One publication at a time, beside the sequencer: a witness that does not answer holds nobody up.

Threat: Ledger tampering
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from app.domain.errors import (
    WitnessAheadError,
    WitnessError,
    WitnessRefusedError,
)
from app.domain.run import TenantId
from app.sequencing.witness_client import WitnessClient
from app.storage.database import Database
from app.storage.keeper_store import NewCheckpoint
from app.storage.log_store import read_head, read_tiles
from app.transparency.checkpoint import Checkpoint
from app.transparency.note import cosigned_at, parse_signature_line
from app.transparency.tiles import (
    TileError,
    Tiles,
    consistency_proof,
    root_from,
    tiles_for_consistency,
    tiles_for_root,
)

_log = logging.getLogger("meshflow.sequencer")

ProofFrom = Callable[[int], Awaitable[Sequence[bytes]]]


class Anchor(Protocol):
    """A place that remembers the newest checkpoint and takes only what follows from it."""

    @property
    def name(self) -> str:
        """How the deployment calls it."""

    async def publish(self, note: str, size: int, proof_from: ProofFrom) -> str | None:
        """Take the checkpoint; the cosignature line, if this place gives one. WitnessError."""

    async def newest(self, origin: str) -> Checkpoint | None:
        """The newest checkpoint of an origin that it took. WitnessError."""


class WitnessAnchor:
    """A C2SP witness as an anchor."""

    def __init__(self, name: str, client: WitnessClient) -> None:
        self.name = name
        self._client = client

    async def publish(self, note: str, size: int, proof_from: ProofFrom) -> str | None:
        """The witness's cosignature, verified."""
        return await self._client.add_checkpoint(note.encode(), size, proof_from)

    async def newest(self, origin: str) -> Checkpoint | None:
        """What the witness cosigned last."""
        return await self._client.latest(origin)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """A witness's answer."""

    witness: str
    line: str
    cosigned_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What came of one publication. `loss`: an anchor that has seen more than we have."""

    checkpoint: NewCheckpoint
    is_complete: bool  # every anchor took it
    lines: tuple[Cosigned, ...]
    loss: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """An anchor remembers what this log does not hold."""

    anchor: str
    seen: Checkpoint
    held: int
    reason: str


class Anchoring:
    """The anchors of one deployment, asked through a connection of their own."""

    def __init__(self, anchors: Sequence[Anchor], database: Database, operator: TenantId) -> None:
        self._anchors = tuple(anchors)
        self._database = database
        self._operator = operator

    async def publish(self, checkpoint: NewCheckpoint) -> Published:
        """Ask all anchors at once. Never raises what one of them does wrong."""
        answers = await asyncio.gather(*(self._ask(anchor, checkpoint) for anchor in self._anchors))
        lines = [
            Cosigned(
                witness=anchor.name,
                line=answer,
                cosigned_at=datetime.fromtimestamp(cosigned_at(parse_signature_line(answer)), UTC),
            )
            for anchor, answer in zip(self._anchors, answers, strict=True)
            if isinstance(answer, str)
        ]
        losses = [
            told
            for anchor, answer in zip(self._anchors, answers, strict=True)
            if (told := _told_loss(anchor.name, answer, checkpoint.head.size)) is not None
        ]
        return Published(
            checkpoint=checkpoint,
            is_complete=not any(isinstance(answer, WitnessError) for answer in answers),
            lines=tuple(lines),
            loss=losses[0] if losses else None,
        )

    async def loss(self, origin: str) -> Loss | None:
        """The greatest loss that an anchor knows of, or None; a silent anchor says nothing.

        An operator log that is there but does not have the root which an anchor saw at its size
        counts as one that lost everything from there: it is not the log that was anchored.
        """
        losses = [await self._loss_by(anchor, origin) for anchor in self._anchors]
        found = [loss for loss in losses if loss is not None]
        return max(found, key=lambda loss: loss.seen.size, default=None)

    async def _loss_by(self, anchor: Anchor, origin: str) -> Loss | None:
        try:
            seen = await anchor.newest(origin)
        except WitnessError as error:
            _log.warning("%s was not compared with: %s", anchor.name, error)
            return None
        if seen is None:
            return None
        async with self._database.driver() as raw:
            head = await read_head(raw, self._operator)
            held = 0 if head is None else head.size
            if held >= seen.size:
                tiles = await read_tiles(raw, self._operator, tiles_for_root(seen.size))
                if _has_root(seen, tiles):
                    return None
        reason = "this log has another history" if held >= seen.size else f"this log has {held}"
        told = f"{anchor.name} has seen {seen.size} leaves, {reason}"
        return Loss(anchor=anchor.name, seen=seen, held=held, reason=told)

    async def _ask(self, anchor: Anchor, checkpoint: NewCheckpoint) -> str | WitnessError | None:
        size = checkpoint.head.size

        async def proof_from(old_size: int) -> Sequence[bytes]:
            async with self._database.driver() as raw:
                wanted = tiles_for_consistency(old_size, size)
                tiles = await read_tiles(raw, self._operator, wanted)
            return consistency_proof(old_size, size, tiles)

        try:
            return await anchor.publish(checkpoint.note, size, proof_from)
        except WitnessRefusedError as error:
            if error.is_fork:
                _log.critical("%s says that this log contradicts what it has seen", anchor.name)
            else:
                _log.error("%s does not take the checkpoint: %s", anchor.name, error)
            return error
        except WitnessError as error:
            _log.warning("%s did not take the checkpoint: %s", anchor.name, error)
            return error


def _told_loss(name: str, answer: str | WitnessError | None, size: int) -> str | None:
    """What an anchor's answer says of a loss, if it does."""
    match answer:
        case WitnessAheadError():
            return f"{name} has seen {answer.size} leaves, this log has {size}"
        case WitnessRefusedError() if answer.is_fork:
            return f"{name} has seen another history than this log has"
        case _:
            return None


def _has_root(seen: Checkpoint, tiles: Tiles) -> bool:
    try:
        return root_from(seen.size, tiles) == seen.root
    except TileError:
        return False
