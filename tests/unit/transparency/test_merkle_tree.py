"""The tree: known roots, every proof up to 64 leaves, and no proof that was touched.

Threat: Ledger tampering
"""

from collections.abc import Iterator, Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.ledger.hashing import merkle_tree_hash
from app.transparency.merkle_tree import (
    EMPTY_ROOT,
    CompactRange,
    hash_children,
    hash_leaf,
    tree_root,
    verify_consistency,
    verify_inclusion,
)
from tests.unit.transparency.plain_tree import consistency, leaf, mth, path

MOST = 64
LEAVES = [leaf(number) for number in range(MOST)]
ROOTS = [mth(LEAVES[:size]) for size in range(MOST + 1)]
PATHS = {(m, n): path(m, LEAVES[:n]) for n in range(1, MOST + 1) for m in range(n)}
CONSISTENCIES = {(m, n): consistency(m, LEAVES[:n]) for n in range(MOST + 1) for m in range(n + 1)}
OTHER = sha256(b"other").digest()
BOUNDED = settings(max_examples=60, deadline=None, database=None)

# The eight entries of the Certificate Transparency reference tree, and its roots by size.
KNOWN_ENTRIES = [
    bytes.fromhex(entry)
    for entry in [
        *["", "00", "10", "2021", "3031", "40414243", "5051525354555657"],
        "606162636465666768696a6b6c6d6e6f",
    ]
]
KNOWN_ROOTS = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}


def in_tree(m: int, n: int, proof: Sequence[bytes], *, root: bytes | None = None) -> bool:
    return verify_inclusion(
        leaf_hash=LEAVES[m], index=m, size=n, proof=proof, root=root or ROOTS[n]
    )


def grew(m: int, n: int, proof: Sequence[bytes]) -> bool:
    return verify_consistency(
        old_size=m, old_root=ROOTS[m], new_size=n, new_root=ROOTS[n], proof=proof
    )


def touched(proof: Sequence[bytes]) -> Iterator[list[bytes]]:
    """The proof with each hash flipped, cut, dropped, doubled, one added, or two swapped."""
    for at, value in enumerate(proof):
        before, after = list(proof[:at]), list(proof[at + 1 :])
        for other in (bytes([value[0] ^ 1]) + value[1:], value[:-1] + bytes([value[-1] ^ 128])):
            yield [*before, other, *after]
        yield [*before, value[:-1], *after]
        yield [*before, value + b"\x00", *after]
        yield [*before, b"", *after]
        yield [*before, *after]
        yield [*before, value, value, *after]
        yield [*before, OTHER, value, *after]
        if after and after[0] != value:
            yield [*before, after[0], value, *after[1:]]
    yield [*proof, OTHER]
    yield [*proof, b""]
    yield [*proof, *[OTHER] * 70]


def test_the_constants_of_rfc_6962_come_out() -> None:
    assert EMPTY_ROOT.hex() == KNOWN_ROOTS[0]
    assert hash_leaf(b"").hex() == KNOWN_ROOTS[1]
    assert hash_leaf(b"L123456").hex() == (
        "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    )
    assert hash_children(b"N123", b"N456").hex() == (
        "aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb"
    )


@pytest.mark.parametrize("size", KNOWN_ROOTS)
def test_the_reference_tree_has_its_published_roots(size: int) -> None:
    entries = KNOWN_ENTRIES[:size]
    assert tree_root([hash_leaf(entry) for entry in entries]).hex() == KNOWN_ROOTS[size]
    assert merkle_tree_hash(entries).hex() == KNOWN_ROOTS[size]


def test_every_small_tree_has_the_plain_root() -> None:
    assert [tree_root(LEAVES[:size]) for size in range(MOST + 1)] == ROOTS


@given(steps=st.lists(st.integers(0, 40), max_size=12))
@BOUNDED
def test_a_tree_grown_in_steps_has_the_root_of_one_grown_at_once(steps: list[int]) -> None:
    edge = CompactRange.empty()
    for step in steps:
        edge = edge.extended([leaf(edge.size + number) for number in range(step)])
        assert edge.root() == mth([leaf(number) for number in range(edge.size)])
    assert edge.size == sum(steps)


@pytest.mark.parametrize(
    ("size", "hashes"),
    [(0, [OTHER]), (1, []), (3, [OTHER]), (2, [OTHER, OTHER]), (1, [OTHER[:31]]), (-1, [OTHER])],
)
def test_a_range_whose_hashes_do_not_fit_its_size_is_refused(
    size: int, hashes: list[bytes]
) -> None:
    with pytest.raises(ValueError, match=r"subtree|32 bytes"):
        CompactRange(size=size, hashes=tuple(hashes))


@pytest.mark.parametrize("bad", [b"", OTHER[:31], OTHER + b"\x00"])
def test_a_leaf_hash_of_another_length_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        CompactRange.empty().extended([OTHER, bad])


def test_every_inclusion_proof_verifies_and_at_no_other_place() -> None:
    for (m, n), proof in PATHS.items():
        assert in_tree(m, n, proof)
        for index in {m - 1, m + 1, m ^ 1, m + n, -1, n} - {m}:
            answer = verify_inclusion(
                leaf_hash=LEAVES[m], index=index, size=n, proof=proof, root=ROOTS[n]
            )
            assert not answer, (m, n, index)
        assert not in_tree(m, n, proof, root=ROOTS[n - 1])
        assert not in_tree(m, n, proof, root=OTHER)


def test_no_touched_inclusion_proof_verifies() -> None:
    for (m, n), proof in PATHS.items():
        assert not any(in_tree(m, n, other) for other in touched(proof)), (m, n)


def test_no_inclusion_proof_verifies_for_another_leaf() -> None:
    for (m, n), proof in PATHS.items():
        for other in (OTHER, LEAVES[m][:31], LEAVES[m] + b"\x00", b""):
            assert not verify_inclusion(
                leaf_hash=other, index=m, size=n, proof=proof, root=ROOTS[n]
            )


def test_no_inclusion_proof_verifies_for_a_size_with_another_path() -> None:
    for (m, n), proof in PATHS.items():
        for size in range(m + 1, MOST + 1):
            # Where the shapes of the paths agree the size is not in the proof; the root is.
            if size != n and ROOTS[size] != ROOTS[n]:
                assert not in_tree(m, size, proof)


def test_a_node_does_not_pass_for_a_leaf_nor_a_leaf_for_a_node() -> None:
    entries = [b"left", b"right"]
    left, right = (hash_leaf(entry) for entry in entries)
    root = hash_children(left, right)
    assert hash_leaf(left + right) != root
    node = hash_children(LEAVES[0], LEAVES[1])
    assert tree_root([node, hash_children(LEAVES[2], LEAVES[3])]) == ROOTS[4]
    # The tree of two nodes has the root of the tree of four leaves: only the size tells them apart.
    proof = [hash_children(LEAVES[2], LEAVES[3])]
    assert not verify_inclusion(leaf_hash=node, index=0, size=4, proof=proof, root=ROOTS[4])
    assert hash_leaf(LEAVES[0] + LEAVES[1]) != node


def test_every_consistency_proof_verifies() -> None:
    for (m, n), proof in CONSISTENCIES.items():
        assert grew(m, n, proof), (m, n)


def test_no_touched_consistency_proof_verifies() -> None:
    for (m, n), proof in CONSISTENCIES.items():
        assert not any(grew(m, n, other) for other in touched(proof)), (m, n)


def test_no_consistency_proof_verifies_for_another_root() -> None:
    for (m, n), proof in CONSISTENCIES.items():
        for old, new in [
            *[(OTHER, ROOTS[n]), (ROOTS[m][:31], ROOTS[n])],
            *([(ROOTS[m], OTHER)] if m else []),
            (ROOTS[m], ROOTS[n] + b"\x00"),
            *([(ROOTS[n], ROOTS[m])] if 0 < m < n else []),
        ]:
            assert not verify_consistency(
                old_size=m, old_root=old, new_size=n, new_root=new, proof=proof
            ), (m, n)


def test_no_tree_shrinks() -> None:
    for (m, n), proof in CONSISTENCIES.items():
        if m < n:
            assert not verify_consistency(
                old_size=n, old_root=ROOTS[n], new_size=m, new_root=ROOTS[m], proof=proof
            )


def test_a_rewritten_past_has_no_consistency_proof_of_its_own_making() -> None:
    for m, n in [(1, 2), (3, 7), (6, 8), (31, 64), (32, 33), (33, 64)]:
        forged = [OTHER, *LEAVES[1:n]]
        for proof in (consistency(m, forged), CONSISTENCIES[m, n]):
            assert not verify_consistency(
                old_size=m, old_root=ROOTS[m], new_size=n, new_root=mth(forged), proof=proof
            )


def test_the_empty_tree_grows_into_anything_and_has_one_root() -> None:
    for n in (0, 1, 7, 64):
        assert grew(0, n, [])
        assert not grew(0, n, [ROOTS[n]])
        assert not verify_consistency(
            old_size=0, old_root=ROOTS[1], new_size=n, new_root=ROOTS[n], proof=[]
        )
    assert not verify_consistency(old_size=0, old_root=OTHER, new_size=0, new_root=OTHER, proof=[])


HOSTILE = st.integers(-3, 2**70)
HASHES = st.binary(min_size=30, max_size=34) | st.binary(min_size=32, max_size=32)
PROOFS = st.lists(HASHES, max_size=70)


@given(index=HOSTILE, size=HOSTILE, proof=PROOFS, leaf_hash=HASHES, root=HASHES)
@BOUNDED
def test_made_up_inclusion_proofs_are_refused_and_raise_nothing(
    index: int, size: int, proof: list[bytes], leaf_hash: bytes, root: bytes
) -> None:
    answer = verify_inclusion(leaf_hash=leaf_hash, index=index, size=size, proof=proof, root=root)
    alone = size == 1 and index == 0 and not proof and leaf_hash == root and len(root) == 32
    assert answer is alone


@given(old_size=HOSTILE, new_size=HOSTILE, proof=PROOFS, old_root=HASHES, new_root=HASHES)
@BOUNDED
def test_made_up_consistency_proofs_are_refused_and_raise_nothing(
    old_size: int, new_size: int, proof: list[bytes], old_root: bytes, new_root: bytes
) -> None:
    answer = verify_consistency(
        old_size=old_size, old_root=old_root, new_size=new_size, new_root=new_root, proof=proof
    )
    same = old_size == new_size > 0 and not proof and old_root == new_root and len(old_root) == 32
    assert answer is same


def test_no_proof_verifies_at_a_place_whose_proofs_have_another_length() -> None:
    inclusions = {place: proof for place, proof in PATHS.items() if place[1] <= 16}
    for (m, n), proof in inclusions.items():
        for (index, size), other in inclusions.items():
            if len(other) != len(proof):
                assert not verify_inclusion(
                    leaf_hash=LEAVES[m], index=index, size=size, proof=proof, root=ROOTS[n]
                ), (m, n, index, size)
    growths = {sizes: proof for sizes, proof in CONSISTENCIES.items() if 0 < sizes[0] <= 16}
    growths = {sizes: proof for sizes, proof in growths.items() if sizes[1] <= 16}
    for (m, n), proof in growths.items():
        for (old, new), other in growths.items():
            if len(other) != len(proof):
                assert not verify_consistency(
                    old_size=old, old_root=ROOTS[m], new_size=new, new_root=ROOTS[n], proof=proof
                ), (m, n, old, new)


@pytest.mark.parametrize(("old", "new"), [(4, 3), (-1, 1), (2, 1), (1, 0), (-1, 0), (-2, -1)])
def test_one_root_at_impossible_sizes_is_no_growth(old: int, new: int) -> None:
    for root in (ROOTS[4], EMPTY_ROOT):
        assert not verify_consistency(
            old_size=old, old_root=root, new_size=new, new_root=root, proof=[]
        )


def test_the_empty_tree_does_not_grow_into_an_empty_tree_of_another_root() -> None:
    assert not verify_consistency(
        old_size=0, old_root=EMPTY_ROOT, new_size=0, new_root=OTHER, proof=[]
    )


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_root_made_over_a_hash_of_another_length_has_no_proof(size: int) -> None:
    odd = b"x" * size
    root = sha256(b"\x01" + odd + LEAVES[0]).digest()
    assert not verify_inclusion(leaf_hash=LEAVES[0], index=1, size=2, proof=[odd], root=root)
    root = sha256(b"\x01" + LEAVES[0] + odd).digest()
    assert not verify_inclusion(leaf_hash=LEAVES[0], index=0, size=2, proof=[odd], root=root)
    assert not verify_consistency(
        old_size=1, old_root=LEAVES[0], new_size=2, new_root=root, proof=[odd]
    )


def test_no_tree_is_higher_than_its_size_in_64_bits() -> None:
    for height, possible in [(64, True), (65, False)]:
        proof = [OTHER] * height
        root = LEAVES[0]
        for sibling in proof:
            root = hash_children(sibling, root)
        size = 2**height
        assert possible is verify_inclusion(
            leaf_hash=LEAVES[0], index=size - 1, size=size, proof=proof, root=root
        )
