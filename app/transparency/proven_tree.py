"""A tree of which some tiles are at hand: nothing is told of it that does not lead to its root.

Pure. Tiles that are read again are checked again; only the hashing of full ones is remembered.

Source: docs/ledger-format.md section 9 (C2SP tlog-tiles).

Threat: Ledger tampering
"""

from collections.abc import Iterable
from functools import lru_cache

from app.transparency.merkle_tree import HASH_BYTES
from app.transparency.tiles import (
    TILE_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    TileAddress,
    TileError,
    Tiles,
    root_from,
    tile_root,
    tiles_for_root,
)

_REMEMBERED = 512  # 4 MiB of tiles
_root_of = lru_cache(maxsize=_REMEMBERED)(tile_root)


class ProvenTree:
    """Leaf hashes of a tree of a known root."""

    def __init__(self, size: int, root: bytes, tiles: Tiles) -> None:
        """TileError when the tiles do not lead to the root."""
        if root_from(size, tiles) != root:
            raise TileError("the tiles do not lead to the root")
        self._size = size
        self._tiles = tiles
        self._proven: dict[TileAddress, bytes] = {}

    def leaf_hash(self, index: int) -> bytes:
        """The hash of a leaf. TileError when its tile is missing or leads to another root."""
        if not 0 <= index < self._size:
            raise TileError("no such leaf in a tree of this size")
        n, place = divmod(index, TILE_WIDTH)
        return self._entry(TileAddress(level=0, n=n), place)

    def _entry(self, address: TileAddress, place: int) -> bytes:
        data = self._proven.get(address)
        if data is None:
            data = self._proven[address] = self._tile(address)
        return data[place * HASH_BYTES : (place + 1) * HASH_BYTES]

    def _tile(self, address: TileAddress) -> bytes:
        """The part of a tile that is in this tree, which the root vouches for."""
        width = tile_width(self._size, address)
        data = self._tiles.get(address)
        if data is None:
            raise TileError(f"tile {address.level}/{address.n} is missing")
        if len(data) > TILE_BYTES or len(data) < width * HASH_BYTES:
            raise TileError(f"tile {address.level}/{address.n} has a wrong length")
        if width < TILE_WIDTH:
            return data[: width * HASH_BYTES]  # an edge, which the root was made from
        n, place = divmod(address.n, TILE_WIDTH)
        if _root_of(data) != self._entry(TileAddress(level=address.level + 1, n=n), place):
            raise TileError(f"tile {address.level}/{address.n} does not lead to the root")
        return data


def tile_width(size: int, address: TileAddress) -> int:
    """How many hashes a tile has in a tree of this size."""
    entries = (size >> address.level * TILE_HEIGHT) - address.n * TILE_WIDTH
    return max(0, min(TILE_WIDTH, entries))


def tiles_for_leaves(indexes: Iterable[int], size: int) -> frozenset[TileAddress]:
    """The tiles that a ProvenTree needs to tell these leaves."""
    found = set(tiles_for_root(size))
    for index in indexes:
        address = TileAddress(level=0, n=index // TILE_WIDTH)
        while address not in found and tile_width(size, address):
            found.add(address)
            address = TileAddress(level=address.level + 1, n=address.n // TILE_WIDTH)
    return frozenset(found)
