"""A small tree that is kept whole: its root, and the path of each of its leaves.

Source: RFC 6962 sections 2.1 and 2.1.1.
"""

from collections.abc import Sequence

from app.transparency.merkle_tree import hash_children


class WholeTree:
    """The tree of these leaf hashes, of which there is at least one."""

    __slots__ = ("_levels",)

    def __init__(self, leaf_hashes: Sequence[bytes]) -> None:
        nodes = list(leaf_hashes)
        if not nodes:
            raise ValueError("a whole tree has a leaf")
        levels = [nodes]
        while len(nodes) > 1:
            above = [hash_children(*nodes[at : at + 2]) for at in range(0, len(nodes) - 1, 2)]
            if len(nodes) % 2:
                above.append(nodes[-1])
            nodes = above
            levels.append(nodes)
        self._levels = levels

    @property
    def size(self) -> int:
        """How many leaves."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """MTH of the leaves."""
        return self._levels[-1][0]

    def path(self, index: int) -> tuple[bytes, ...]:
        """The inclusion proof of a leaf. ValueError without such a leaf."""
        if not 0 <= index < self.size:
            raise ValueError("the tree has no such leaf")
        beside = [(index >> height ^ 1, nodes) for height, nodes in enumerate(self._levels)]
        return tuple(nodes[at] for at, nodes in beside if at < len(nodes))
