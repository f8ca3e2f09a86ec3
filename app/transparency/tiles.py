"""The tree as tiles of 256 hashes: growing it, its root, and both proofs from a few of them.

A tile given here may be wider than the tree asked about: then its first hashes are used.

Source: C2SP tlog-tiles for the tiles; RFC 6962 sections 2.1.1 and 2.1.2 for the proofs.

Threat: Ledger tampering
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from app.transparency.merkle_tree import EMPTY_ROOT, HASH_BYTES, fold_subtrees

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
TILE_BYTES = TILE_WIDTH * HASH_BYTES


class TileError(ValueError):
    """A tile is missing or malformed, or the tree asked about has no such proof."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TileAddress:
    """The place of a tile: its level, 0 for the leaves, and its number from the left."""

    level: int
    n: int


Tiles: TypeAlias = Mapping[TileAddress, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subtree:
    """A full subtree: 2**height leaves, the `index`-th such run from the left."""

    height: int
    index: int

    @property
    def place(self) -> tuple[TileAddress, int, int]:
        """The tile that holds it, and from which hash to which."""
        level, height_in_tile = divmod(self.height, TILE_HEIGHT)
        n, first = divmod(self.index << height_in_tile, TILE_WIDTH)
        return TileAddress(level=level, n=n), first, first + (1 << height_in_tile)


def edge_addresses(size: int) -> tuple[TileAddress, ...]:
    """The partial tiles of a tree, lowest first: all that growing it needs to know."""
    _check_size(size)
    edge = []
    level = 0
    while entries := size >> level * TILE_HEIGHT:
        if entries % TILE_WIDTH:
            edge.append(TileAddress(level=level, n=entries // TILE_WIDTH))
        level += 1
    return tuple(edge)


def grown(size: int, edge: Tiles, leaf_hashes: Sequence[bytes]) -> dict[TileAddress, bytes]:
    """Every tile that changes or appears when the leaves go on a tree of `size`.

    TileError if `edge` lacks a partial tile that a leaf reaches; ValueError for a bad leaf hash.
    """
    _check_size(size)
    if any(len(leaf_hash) != HASH_BYTES for leaf_hash in leaf_hashes):
        raise ValueError("a hash is 32 bytes")
    changed: dict[TileAddress, bytes] = {}
    added = b"".join(leaf_hashes)
    level = 0
    while added:
        n, present = divmod(size >> level * TILE_HEIGHT, TILE_WIDTH)
        if present:
            added = _hashes(edge, TileAddress(level=level, n=n), 0, present) + added
        full: list[bytes] = []
        for at in range(0, len(added), TILE_BYTES):
            tile = added[at : at + TILE_BYTES]
            changed[TileAddress(level=level, n=n + at // TILE_BYTES)] = tile
            if len(tile) == TILE_BYTES:
                full.append(_full_root(tile))
        added = b"".join(full)
        level += 1
    return changed


def tiles_for_root(size: int) -> frozenset[TileAddress]:
    """The tiles that `root_from` reads."""
    _check_size(size)
    return _addresses([(0, size)])


def tiles_for_inclusion(index: int, size: int) -> frozenset[TileAddress]:
    """The tiles that `inclusion_proof` reads. TileError unless 0 <= index < size."""
    return _addresses(_inclusion_spans(index, size))


def tiles_for_consistency(old_size: int, new_size: int) -> frozenset[TileAddress]:
    """The tiles that `consistency_proof` reads. TileError unless 0 <= old <= new."""
    return _addresses(_consistency_spans(old_size, new_size))


def tile_root(data: bytes) -> bytes:
    """The root over a full tile: what the tile above holds of it. ValueError for any other."""
    if len(data) != TILE_BYTES:
        raise ValueError("a full tile has 256 hashes")
    return _full_root(data)


def root_from(size: int, tiles: Tiles) -> bytes:
    """The root of the first `size` leaves. TileError if a tile is missing or too short."""
    _check_size(size)
    return _span_root(0, size, tiles) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, tiles: Tiles) -> tuple[bytes, ...]:
    """PATH(index, D[size]). TileError if a tile is missing or too short, or without such a leaf."""
    return tuple(_span_root(*span, tiles) for span in _inclusion_spans(index, size))


def consistency_proof(old_size: int, new_size: int, tiles: Tiles) -> tuple[bytes, ...]:
    """PROOF(old, D[new]), empty for an empty old tree. TileError as for `inclusion_proof`."""
    return tuple(_span_root(*span, tiles) for span in _consistency_spans(old_size, new_size))


def _inclusion_spans(index: int, size: int) -> list[tuple[int, int]]:
    """The leaves under each hash of the proof, from the leaf's sibling up."""
    if not 0 <= index < size:
        raise TileError("no such leaf in a tree of this size")
    spans = []
    start, end = 0, size
    while end - start > 1:
        middle = _split(start, end)
        if index < middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    return spans[::-1]


def _consistency_spans(old_size: int, new_size: int) -> list[tuple[int, int]]:
    """The leaves under each hash of the proof, in the order of the proof."""
    if not 0 <= old_size <= new_size:
        raise TileError("no consistency proof between these sizes")
    if old_size == 0:
        return []
    spans = []
    start, end = 0, new_size
    while end != old_size:
        middle = _split(start, end)
        if old_size <= middle:
            spans.append((middle, end))
            end = middle
        else:
            spans.append((start, middle))
            start = middle
    if start:
        spans.append((start, end))
    return spans[::-1]


def _split(start: int, end: int) -> int:
    """Where RFC 6962 divides more than one leaf: the largest power of two before the end."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _subtrees(start: int, end: int) -> Iterable[_Subtree]:
    """The full subtrees of a span that starts where a subtree as wide as it starts."""
    while start < end:
        height = (end - start).bit_length() - 1
        yield _Subtree(height=height, index=start >> height)
        start += 1 << height


def _addresses(spans: Iterable[tuple[int, int]]) -> frozenset[TileAddress]:
    return frozenset(subtree.place[0] for span in spans for subtree in _subtrees(*span))


def _span_root(start: int, end: int, tiles: Tiles) -> bytes:
    places = (subtree.place for subtree in _subtrees(start, end))
    return fold_subtrees([_full_root(_hashes(tiles, *place)) for place in places])


def _hashes(tiles: Tiles, address: TileAddress, first: int, end: int) -> bytes:
    data = tiles.get(address)
    if data is None:
        raise TileError(f"tile {address.level}/{address.n} is missing")
    if len(data) > TILE_BYTES or len(data) % HASH_BYTES or len(data) < end * HASH_BYTES:
        raise TileError(f"tile {address.level}/{address.n} has a wrong length")
    return data[first * HASH_BYTES : end * HASH_BYTES]


def _full_root(hashes: bytes) -> bytes:
    """The root over a power of two of hashes; pairs lie side by side as their parent has them."""
    pair = 2 * HASH_BYTES
    while len(hashes) > HASH_BYTES:
        pairs = (hashes[at : at + pair] for at in range(0, len(hashes), pair))
        hashes = b"".join([sha256(b"\x01" + children).digest() for children in pairs])
    return hashes


def _check_size(size: int) -> None:
    if size < 0:
        raise TileError("a tree has no negative size")
