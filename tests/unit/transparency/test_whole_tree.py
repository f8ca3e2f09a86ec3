"""A tree that is kept whole has the root and the paths that RFC 6962 gives it."""

import pytest

from app.transparency.merkle_tree import hash_leaf, tree_root, verify_inclusion
from app.transparency.whole_tree import WholeTree


@pytest.mark.parametrize("size", range(1, 66))
def test_each_leaf_has_the_path_to_the_root_of_the_plain_tree(size: int) -> None:
    leaves = [hash_leaf(bytes([at])) for at in range(size)]
    tree = WholeTree(leaves)
    assert (tree.size, tree.root) == (size, tree_root(leaves))
    for at, leaf in enumerate(leaves):
        assert verify_inclusion(
            leaf_hash=leaf, index=at, size=size, proof=tree.path(at), root=tree.root
        )


def test_what_is_not_there_has_no_path() -> None:
    with pytest.raises(ValueError, match="has a leaf"):
        WholeTree([])
    for index in (-1, 3):
        with pytest.raises(ValueError, match="no such leaf"):
            WholeTree([bytes(32)] * 3).path(index)
