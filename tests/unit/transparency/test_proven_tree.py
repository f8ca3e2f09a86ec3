"""A tree tells nothing that its root does not vouch for, whatever tile is another or missing."""

import random  # noqa: TID251 - which byte to turn: seeded, not secret
from hashlib import sha256

import pytest

from app.transparency.merkle_tree import tree_root
from app.transparency.proven_tree import ProvenTree, tile_width, tiles_for_leaves
from app.transparency.tiles import TileAddress, TileError, grown

SIZES = (1, 2, 255, 256, 257, 300, 511, 512, 700, 65_536, 65_537, 66_100)


def leaves_of(size: int) -> list[bytes]:
    return [sha256(b"%d" % n).digest() for n in range(size)]


@pytest.mark.parametrize("size", SIZES)
def test_each_leaf_is_told_from_the_tiles_on_its_way_up_alone(size: int) -> None:
    leaves = leaves_of(size)
    tiles, root = grown(0, {}, leaves), tree_root(leaves)
    for index in {0, size // 2, size - 1, min(255, size - 1)}:
        few = {place: tiles[place] for place in tiles_for_leaves([index], size)}
        assert ProvenTree(size, root, few).leaf_hash(index) == leaves[index]
        for beyond in (-1, size):
            with pytest.raises(TileError):
                ProvenTree(size, root, few).leaf_hash(beyond)


@pytest.mark.parametrize("size", [1, 300, 512, 66_100])
def test_any_other_byte_in_a_tile_on_the_way_is_seen(size: int) -> None:
    leaves, chance = leaves_of(size), random.Random(size)
    tiles, root = grown(0, {}, leaves), tree_root(leaves)
    for _ in range(60):
        index = chance.randrange(size)
        few = {place: tiles[place] for place in tiles_for_leaves([index], size)}
        place = chance.choice(sorted(few))
        data = bytearray(few[place])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        wrong = {**few, place: bytes(data)}
        short = {**few, place: few[place][:-32]}
        gone = {other: few[other] for other in few if other != place}
        for spoiled in (wrong, short, gone):
            with pytest.raises(TileError):
                ProvenTree(size, root, spoiled).leaf_hash(index)


def test_a_tile_that_grew_since_serves_the_smaller_tree() -> None:
    leaves = leaves_of(700)
    tiles = grown(0, {}, leaves)
    for size in (257, 300, 511, 512, 699):
        tree = ProvenTree(size, tree_root(leaves[:size]), tiles)
        assert [tree.leaf_hash(index) for index in range(size)] == leaves[:size]


def test_the_width_of_a_tile_is_what_the_tree_has_of_it() -> None:
    widths = [tile_width(300, TileAddress(level=0, n=n)) for n in range(3)]
    assert widths == [256, 44, 0]
    assert tile_width(300, TileAddress(level=1, n=0)) == 1
