"""Hands out what somebody else needs to check a log: checkpoints, proofs and keys.

Nothing is handed out that does not hold: each proof is verified as its receiver will.

Source: C2SP tlog-proof; RFC 6962 sections 2.1.1 and 2.1.2; docs/ledger-format.md section 10.

Threat: Ledger tampering
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from app.audit.inclusion import InclusionError
from app.audit.replay_ledger import LogChecks, ReplayLedger
from app.domain.errors import (
    ChainBreak,
    InvalidSubmissionError,
    LedgerBrokenError,
    NotFoundError,
    NotSequencedError,
)
from app.domain.run import RunId, TenantId
from app.storage.database import Database
from app.storage.log_store import read_tiles
from app.storage.place_store import read_log_state, read_run_places
from app.transparency.checkpoint import Checkpoint
from app.transparency.log_proof import LogProof, format_proof
from app.transparency.merkle_tree import verify_consistency, verify_inclusion
from app.transparency.proven_tree import ProvenTree, tiles_for_leaves
from app.transparency.tiles import (
    TileAddress,
    TileError,
    Tiles,
    consistency_proof,
    inclusion_proof,
    root_from,
    tiles_for_consistency,
    tiles_for_inclusion,
    tiles_for_root,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """The path from a leaf to the root of the tree of `size` leaves."""

    index: int
    size: int
    leaf_hash: bytes
    root: bytes
    hashes: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyProof:
    """That the larger tree only appended to the smaller one."""

    old_size: int
    old_root: bytes
    new_size: int
    new_root: bytes
    hashes: Sequence[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    checkpoint: Checkpoint
    note: str


class ProofDesk:
    """Proofs of the logs of one deployment, always within a tenant."""

    def __init__(self, *, database: Database, replay: ReplayLedger, logs: LogChecks) -> None:
        self._database = database
        self._replay = replay
        self._check = logs.check
        self._book = logs.book

    async def record_proof(self, tenant_id: TenantId, run_id: RunId, seq: int) -> bytes:
        """The tlog-proof of a record, whose entry is the leaf data of section 5.

        NotFoundError, LedgerBrokenError; NotSequencedError while no checkpoint covers it.
        """
        dossier = await self._replay.read_run(tenant_id, run_id)
        if not 0 <= seq < dossier.integrity.size:
            raise NotFoundError("no such record")
        async with self._database.snapshot(tenant_id) as raw:
            places = await read_run_places(raw, tenant_id, run_id, seq)
        index = places.by_seq.get(seq)
        if index is None:
            raise NotSequencedError
        signed = await self._signed(tenant_id)
        if signed is None or index >= signed.checkpoint.size:
            raise NotSequencedError
        size = signed.checkpoint.size
        proof = await self.inclusion(tenant_id, index, size)
        return format_proof(
            LogProof(index=index, hashes=tuple(proof.hashes), checkpoint=signed.note.encode())
        )

    async def checkpoint(self, tenant_id: TenantId) -> str:
        """The newest signed note of the tenant's log. NotSequencedError while there is none."""
        signed = await self._signed(tenant_id)
        if signed is None:
            raise NotSequencedError
        return signed.note

    async def inclusion(self, tenant_id: TenantId, index: int, size: int) -> InclusionProof:
        """The proof of a leaf in the tree of a size. InvalidSubmissionError without such a leaf.

        NotSequencedError when no checkpoint is that large; LedgerBrokenError.
        """
        signed = await self._require_signed(tenant_id, size)
        if not 0 <= index < size:
            raise InvalidSubmissionError("/query/index", "not below the size")
        wanted = tiles_for_inclusion(index, size) | tiles_for_leaves([index], size)
        tiles = await self._tiles(tenant_id, wanted | _tying(size, signed))
        with _told_as_break():
            root = _tied_root(size, signed, tiles)
            leaf = ProvenTree(size, root, tiles).leaf_hash(index)
            hashes = inclusion_proof(index, size, tiles)
            if not verify_inclusion(
                leaf_hash=leaf, index=index, size=size, proof=hashes, root=root
            ):
                raise TileError("a proof does not lead to the root")
        return InclusionProof(index=index, size=size, leaf_hash=leaf, root=root, hashes=hashes)

    async def consistency(
        self, tenant_id: TenantId, old_size: int, new_size: int
    ) -> ConsistencyProof:
        """The proof between two sizes. Errors as for `inclusion`."""
        signed = await self._require_signed(tenant_id, new_size)
        if not 0 <= old_size <= new_size:
            raise InvalidSubmissionError("/query/from", "not up to the other size")
        wanted = tiles_for_consistency(old_size, new_size) | tiles_for_root(old_size)
        tiles = await self._tiles(tenant_id, wanted | _tying(new_size, signed))
        with _told_as_break():
            new_root = _tied_root(new_size, signed, tiles)
            old_root = root_from(old_size, tiles)
            hashes = consistency_proof(old_size, new_size, tiles)
            if not verify_consistency(
                old_size=old_size,
                old_root=old_root,
                new_size=new_size,
                new_root=new_root,
                proof=hashes,
            ):
                raise TileError("a proof does not lead to the root")
        return ConsistencyProof(
            old_size=old_size,
            old_root=old_root,
            new_size=new_size,
            new_root=new_root,
            hashes=hashes,
        )

    async def _tiles(self, tenant_id: TenantId, wanted: frozenset[TileAddress]) -> Tiles:
        async with self._database.snapshot(tenant_id) as raw:
            return await read_tiles(raw, tenant_id, wanted)

    async def _require_signed(self, tenant_id: TenantId, size: int) -> Checkpoint:
        """NotSequencedError for a tree that is larger than what is signed."""
        signed = await self._signed(tenant_id)
        if signed is None or size > signed.checkpoint.size:
            raise NotSequencedError
        return signed.checkpoint

    async def _signed(self, tenant_id: TenantId) -> _Signed | None:
        """The newest checkpoint, its signature and its tiles checked. LedgerBrokenError."""
        await self._book.refresh()
        async with self._database.snapshot(tenant_id) as raw:
            state = await read_log_state(raw, tenant_id)
            if state is None or state.checkpoint is None:
                return None
            with _told_as_break():
                checkpoint = self._check.signed(state, tenant_id.bytes, 0)
                if checkpoint is None:
                    return None
                tiles = await read_tiles(raw, tenant_id, tiles_for_root(checkpoint.size))
                ProvenTree(checkpoint.size, checkpoint.root, tiles)
        return _Signed(checkpoint=checkpoint, note=state.checkpoint.note)


def _tying(size: int, signed: Checkpoint) -> frozenset[TileAddress]:
    return tiles_for_root(size) | tiles_for_consistency(size, signed.size)


def _tied_root(size: int, signed: Checkpoint, tiles: Tiles) -> bytes:
    """The root of the first `size` leaves, from which the signed tree follows. TileError."""
    root = root_from(size, tiles)
    if not verify_consistency(
        old_size=size,
        old_root=root,
        new_size=signed.size,
        new_root=signed.root,
        proof=consistency_proof(size, signed.size, tiles),
    ):
        raise TileError("the tiles do not lead to the root")
    return root


@contextmanager
def _told_as_break() -> Iterator[None]:
    try:
        yield
    except InclusionError as error:
        raise LedgerBrokenError(error.found) from error
    except TileError as error:
        found = ChainBreak(seq=0, reason=f"the tree of the log does not hold: {error}")
        raise LedgerBrokenError(found) from error
