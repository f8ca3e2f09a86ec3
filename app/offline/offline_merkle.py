"""The tree hash of RFC 6962 section 2.1, its proofs, and the tagged hashes of ledger/v1.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from hashlib import sha256

HASH_SIZE = 32
_TAG = b"meshflow-ledger/v1/"
_LONGEST_PATH = 63


def tag(name: str) -> bytes:
    """T(name) of section 1."""
    return _TAG + name.encode("ascii") + b"\x00"


def prefixed(data: bytes) -> bytes:
    """LP(data) of section 1."""
    return len(data).to_bytes(4, "big") + data


def digest(*parts: bytes) -> bytes:
    """SHA-256 of the parts put together."""
    return sha256(b"".join(parts)).digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of an entry of a tree."""
    return digest(b"\x00", data)


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return digest(b"\x01", left, right)


def tree_root(leaves: Sequence[bytes]) -> bytes:
    """MTH over leaf hashes, without recursion: full subtrees are joined as they come up."""
    stack: list[tuple[int, bytes]] = []
    for leaf in leaves:
        level, top = 0, leaf
        while stack and stack[-1][0] == level:
            top = node_hash(stack.pop()[1], top)
            level += 1
        stack.append((level, top))
    if not stack:
        return digest()
    root = stack.pop()[1]
    while stack:
        root = node_hash(stack.pop()[1], root)
    return root


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that an inclusion proof leads to (RFC 9162 section 2.1.3.2), None if it is none."""
    if not 0 <= index < size or len(path) > _LONGEST_PATH:
        return None
    node, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0 or len(sibling) != HASH_SIZE:
            return None
        if node & 1 or node == last:
            root = node_hash(sibling, root)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        node, last = node >> 1, last >> 1
    return root if last == 0 else None


def is_included(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf stands at this index of the tree of this size and root."""
    return root_from_path(leaf, index, size, path) == root


def is_consistent(
    old_size: int, size: int, old_root: bytes, root: bytes, path: Sequence[bytes]
) -> bool:
    """Whether the smaller tree is a prefix of the larger (RFC 9162 section 2.1.4.2).

    The empty tree is a prefix of each, and a tree of itself, both with an empty proof only.
    """
    if not 0 <= old_size <= size or any(len(item) != HASH_SIZE for item in path):
        return False
    if old_size in {0, size}:
        known = old_root == (root if old_size else digest())
        return known and not path
    power_of_two = old_size & (old_size - 1) == 0
    rest = [old_root, *path] if power_of_two else list(path)
    if not path or len(path) > 2 * _LONGEST_PATH:
        return False
    return _roots_from_path(old_size, size, rest) == (old_root, root)


def _roots_from_path(old_size: int, size: int, rest: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_found = found = rest[0]
    for item in rest[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            old_found, found = node_hash(item, old_found), node_hash(item, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, item)
        node, last = node >> 1, last >> 1
    return (old_found, found) if last == 0 else None
