"""Tiles: grown in any steps they give the plain root and proofs, and nothing from too few.

Threat: Ledger tampering
"""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.transparency.merkle_tree import (
    EMPTY_ROOT,
    CompactRange,
    verify_consistency,
    verify_inclusion,
)
from app.transparency.tiles import (
    TILE_BYTES,
    TileAddress,
    TileError,
    Tiles,
    consistency_proof,
    edge_addresses,
    grown,
    inclusion_proof,
    root_from,
    tiles_for_consistency,
    tiles_for_inclusion,
    tiles_for_root,
)
from tests.unit.transparency.plain_tree import consistency, leaf, mth, path

BOUNDED = settings(max_examples=40, deadline=None, database=None)
MOST = 70_000  # the tree that the specification describes; it reaches level 2
EDGES = [1, 2, 3, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 65_792, MOST]


@cache
def leaves() -> list[bytes]:
    return [leaf(number) for number in range(MOST)]


@cache
def forest() -> dict[TileAddress, bytes]:
    return grown(0, {}, leaves())


@cache
def root_of(size: int) -> bytes:
    return CompactRange.empty().extended(leaves()[:size]).root()


def picked(addresses: frozenset[TileAddress]) -> dict[TileAddress, bytes]:
    return {address: forest()[address] for address in addresses}


def at_size(size: int) -> dict[TileAddress, bytes]:
    """The tiles of a smaller tree, partial ones cut to their width."""
    cut = {}
    for address, data in forest().items():
        width = (size >> 8 * address.level) - 256 * address.n
        if width > 0:
            cut[address] = data[: 32 * width]
    return cut


def test_the_tree_of_the_specification_has_its_tiles() -> None:
    tiles = forest()
    widths = {address: len(data) // 32 for address, data in tiles.items()}
    assert sum(address.level == 0 for address in tiles) == 274
    assert widths[TileAddress(level=0, n=273)] == 112
    assert widths[TileAddress(level=1, n=0)] == 256
    assert widths[TileAddress(level=1, n=1)] == 17
    assert widths[TileAddress(level=2, n=0)] == 1
    assert len(tiles) == 277
    assert edge_addresses(MOST) == (
        TileAddress(level=0, n=273),
        TileAddress(level=1, n=1),
        TileAddress(level=2, n=0),
    )


def test_a_tree_of_256_leaves_is_a_full_tile_and_one_hash_above() -> None:
    tiles = grown(0, {}, leaves()[:256])
    above = TileAddress(level=1, n=0)
    assert tiles.keys() == {TileAddress(level=0, n=0), above}
    assert tiles[above] == mth(leaves()[:256])
    assert edge_addresses(256) == (above,)


def test_small_trees_agree_with_the_plain_ones_in_every_root_and_proof() -> None:
    for size in range(1, 41):
        tiles = grown(0, {}, leaves()[:size])
        assert root_from(size, tiles) == mth(leaves()[:size])
        for index in range(size):
            assert list(inclusion_proof(index, size, tiles)) == path(index, leaves()[:size])
        for old in range(size + 1):
            assert list(consistency_proof(old, size, tiles)) == consistency(old, leaves()[:size])


@pytest.mark.parametrize("size", [255, 256, 257, 511, 513, 1023])
def test_trees_around_a_tile_agree_with_the_plain_ones(size: int) -> None:
    tiles = at_size(size)
    assert root_from(size, tiles) == mth(leaves()[:size])
    for index in {0, 1, 254, 255, size // 2, size - 2, size - 1} & set(range(size)):
        assert list(inclusion_proof(index, size, tiles)) == path(index, leaves()[:size])
    for old in {1, 2, 128, 254, 255, 256, 257, size // 2, size - 1} & set(range(size)):
        assert list(consistency_proof(old, size, tiles)) == consistency(old, leaves()[:size])


@given(steps=st.lists(st.integers(0, 700), min_size=1, max_size=8))
@BOUNDED
def test_tiles_grown_in_steps_are_those_grown_at_once(steps: list[int]) -> None:
    size = 0
    tiles: dict[TileAddress, bytes] = {}
    for step in steps:
        edge = {address: tiles[address] for address in edge_addresses(size)}
        changed = grown(size, edge, leaves()[size : size + step])
        assert all(tiles.get(address) != data for address, data in changed.items())
        tiles |= changed
        size += step
        assert tiles == at_size(size)
        assert root_from(size, tiles) == root_of(size)


SIZES = st.sampled_from(EDGES) | st.integers(1, MOST)


@given(size=SIZES, data=st.data())
@BOUNDED
def test_an_inclusion_proof_from_the_tiles_named_for_it_verifies(
    size: int, data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, picked(tiles_for_inclusion(index, size)))
    assert verify_inclusion(
        leaf_hash=leaves()[index], index=index, size=size, proof=proof, root=root_of(size)
    )


@given(new=SIZES, data=st.data())
@BOUNDED
def test_a_consistency_proof_from_the_tiles_named_for_it_verifies(
    new: int, data: st.DataObject
) -> None:
    old = data.draw(st.integers(0, new))
    proof = consistency_proof(old, new, picked(tiles_for_consistency(old, new)))
    assert verify_consistency(
        old_size=old,
        old_root=root_of(old),
        new_size=new,
        new_root=root_of(new),
        proof=proof,
    )


@given(size=SIZES)
@BOUNDED
def test_the_root_comes_from_the_edge_alone(size: int) -> None:
    assert tiles_for_root(size) == set(edge_addresses(size))
    assert root_from(size, picked(tiles_for_root(size))) == root_of(size)


@given(size=SIZES, data=st.data())
@BOUNDED
def test_every_tile_named_is_needed_whole(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    cut = at_size(size)
    tiles = {address: cut[address] for address in tiles_for_root(size)}
    for address, held in tiles.items():
        others = {other: tiles[other] for other in tiles if other != address}
        for bad in ({}, {address: held[:-32]}, {address: held[:-1]}, {address: held + b"\x00"}):
            with pytest.raises(TileError):
                root_from(size, {**others, **bad})
    tiles = {address: cut[address] for address in tiles_for_inclusion(index, size)}
    for address in tiles:
        with pytest.raises(TileError):
            inclusion_proof(index, size, {k: v for k, v in tiles.items() if k != address})


def test_a_changed_hash_in_a_tile_changes_the_root() -> None:
    size = 1000
    tiles = {address: at_size(size)[address] for address in tiles_for_root(size)}
    for address, data in tiles.items():
        for at in range(0, len(data), 32):
            bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            assert root_from(size, {**tiles, address: bad}) != root_of(size)


@pytest.mark.parametrize(
    "edge",
    [
        {},
        {TileAddress(level=0, n=1): b"\x00" * 32 * 43},
        {TileAddress(level=0, n=0): b"\x00" * 32 * 44},
        {TileAddress(level=0, n=1): b"\x00" * (32 * 44 + 1)},
        {TileAddress(level=0, n=1): b"\x00" * (TILE_BYTES + 32)},
    ],
)
def test_no_tree_grows_from_a_wrong_edge(edge: Tiles) -> None:
    with pytest.raises(TileError):
        grown(300, edge, [leaf(0)])


def test_a_tree_grows_from_an_edge_wider_than_it() -> None:
    edge = {address: forest()[address] for address in edge_addresses(300)}
    changed = grown(300, edge, leaves()[300:310])
    assert changed == {TileAddress(level=0, n=1): at_size(310)[TileAddress(level=0, n=1)]}


def test_growing_by_nothing_changes_nothing() -> None:
    assert grown(300, {}, []) == {}
    assert edge_addresses(0) == ()
    assert tiles_for_root(0) == frozenset()
    assert root_from(0, {}) == EMPTY_ROOT


@pytest.mark.parametrize("bad", [b"", b"\x00" * 31, b"\x00" * 64])
def test_a_leaf_hash_of_another_length_makes_no_tile(bad: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        grown(0, {}, [bad])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (5, 5), (-1, 5), (0, -1), (6, 5)])
def test_there_is_no_proof_of_a_leaf_outside_the_tree(index: int, size: int) -> None:
    with pytest.raises(TileError):
        tiles_for_inclusion(index, size)
    with pytest.raises(TileError):
        inclusion_proof(index, size, forest())


@pytest.mark.parametrize(("old", "new"), [(6, 5), (-1, 5), (0, -1)])
def test_there_is_no_proof_that_a_tree_shrank(old: int, new: int) -> None:
    with pytest.raises(TileError):
        tiles_for_consistency(old, new)
    with pytest.raises(TileError):
        consistency_proof(old, new, forest())


def test_no_tree_has_a_negative_size() -> None:
    for ask in (edge_addresses, tiles_for_root, lambda size: root_from(size, {})):
        with pytest.raises(TileError):
            ask(-1)
