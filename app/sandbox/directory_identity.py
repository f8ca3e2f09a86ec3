"""Says whether two directories are one, or one lies in the other, whatever they are called.

Threat: Privilege escalation via tool calls
"""

from contextlib import suppress
from pathlib import Path


def _identities(path: Path) -> list[tuple[int, int]]:
    """Device and inode of a resolved path and of all above it, as far as they exist."""
    found: list[tuple[int, int]] = []
    for place in (path, *path.parents):
        with suppress(OSError):
            facts = place.stat()
            found.append((facts.st_dev, facts.st_ino))
    return found


def overlaps(one: Path, other: Path) -> bool:
    """Whether either lies in the other, by name or, through a bind mount, by identity."""
    if one.is_relative_to(other) or other.is_relative_to(one):
        return True
    return _lies_in(one, other) or _lies_in(other, one)


def _lies_in(inner: Path, outer: Path) -> bool:
    return outer.exists() and _identities(outer)[0] in _identities(inner)


def is_same(one: Path, other: Path) -> bool:
    """Whether both names stand for one directory. Both must exist."""
    return _identities(one)[0] == _identities(other)[0]
