"""The Merkle tree of RFC 6962: its hashes, its growing edge, and the check of both proofs.

Source: RFC 6962 section 2.1 for the tree; RFC 9162 sections 2.1.3.2 and 2.1.4.2 for the checks.

Threat: Ledger tampering
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
# No tree of 64-bit sizes is higher, so no proof is longer.
_MAX_PROOF_HASHES = 64


def hash_leaf(data: bytes) -> bytes:
    """The hash of one entry; the prefix keeps it from ever being a node."""
    return sha256(b"\x00" + data).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """The hash of the node above two."""
    return sha256(b"\x01" + left + right).digest()


def tree_root(leaf_hashes: Sequence[bytes]) -> bytes:
    """MTH of the leaves; EMPTY_ROOT of none. ValueError for a hash that is not 32 bytes."""
    return CompactRange.empty().extended(leaf_hashes).root()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactRange:
    """What a tree needs to remember in order to grow: its largest full subtrees, left to right."""

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.size < 0 or self.size.bit_count() != len(self.hashes):
            raise ValueError("a tree has one full subtree for each bit of its size")
        _check_hashes(self.hashes)

    @classmethod
    def empty(cls) -> Self:
        """The tree of no leaves."""
        return cls(size=0, hashes=())

    def extended(self, leaf_hashes: Sequence[bytes]) -> "CompactRange":
        """The tree with these leaves appended. ValueError for a hash that is not 32 bytes."""
        _check_hashes(leaf_hashes)
        kept = list(self.hashes)
        smallest_first: list[bytes] = []
        nodes = list(leaf_hashes)
        height = 0
        while nodes or kept:
            if self.size >> height & 1:
                nodes.insert(0, kept.pop())
            if len(nodes) % 2:
                smallest_first.append(nodes.pop())
            nodes = [hash_children(*nodes[i : i + 2]) for i in range(0, len(nodes), 2)]
            height += 1
        hashes = tuple(reversed(smallest_first))
        return CompactRange(size=self.size + len(leaf_hashes), hashes=hashes)

    def root(self) -> bytes:
        """MTH of all leaves so far; EMPTY_ROOT of none."""
        return fold_subtrees(self.hashes) if self.hashes else EMPTY_ROOT


def fold_subtrees(hashes: Sequence[bytes]) -> bytes:
    """The root over neighbouring full subtrees, the largest on the left. Needs at least one."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = hash_children(left, root)
    return root


def verify_inclusion(
    *, leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether the proof ties the leaf at `index` to the root of `size` leaves. Never raises."""
    if not 0 <= index < size or not _are_hashes(proof, leaf_hash, root):
        return False
    node, last, result = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = hash_children(sibling, result)
            skipped = _levels_without_sibling(node)
            node, last = node >> skipped, last >> skipped
        else:
            result = hash_children(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the new tree only appended to the old one. Never raises.

    As C2SP has it, every tree follows from the empty one, and the proof of that is empty. The
    empty tree has one root, and no other root is taken for it.
    """
    if not 0 <= old_size <= new_size or not _are_hashes(proof, old_root, new_root):
        return False
    if (old_size == 0 and old_root != EMPTY_ROOT) or (new_size == 0 and new_root != EMPTY_ROOT):
        return False
    if old_size == 0:
        return not proof
    if old_size == new_size:
        return not proof and old_root == new_root
    # An old tree that is one full subtree is itself the proof's first hash, and is left out.
    hashes = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    return bool(hashes) and _follows(old_size, old_root, new_size, new_root, hashes)


def _follows(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, hashes: Sequence[bytes]
) -> bool:
    node, last = old_size - 1, new_size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old, new = hash_children(sibling, old), hash_children(sibling, new)
            skipped = _levels_without_sibling(node)
            node, last = node >> skipped, last >> skipped
        else:
            new = hash_children(new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old == old_root and new == new_root


def _levels_without_sibling(node: int) -> int:
    """How many levels the last node of a level climbs before it is a right child."""
    return (node & -node).bit_length() - 1 if node else 0


def _are_hashes(proof: Sequence[bytes], *others: bytes) -> bool:
    if len(proof) > _MAX_PROOF_HASHES:
        return False
    return all(len(value) == HASH_BYTES for value in (*others, *proof))


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ValueError("a hash is 32 bytes")
