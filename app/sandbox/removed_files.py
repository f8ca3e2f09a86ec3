"""Counts a worker's files against its quota, with those that have no name any more.

No walk of a workspace finds them. A file without a name lives on in a descriptor or a mapping, and
nothing else of a worker can hold one: it sends no descriptor to anybody, and its threads share one
table of them (`seccomp`).

Threat: Privilege escalation via tool calls
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.sandbox.execution import ExecLimits
from app.sandbox.workspace_quota import bytes_left, bytes_of

# Of a process's threads: all that live share what they hold, and only the first can stay when dead.
_MOST_LOOKED_AT: Final = 8
_MOST_PROCESSES: Final = 1_024
_GONE: Final = b" (deleted)\n"
_FIELDS_BEFORE_PATH: Final = 5
# Gone since, or closed to this process: no worker that runs a program is (`confine`).
_NOT_SEEN = (FileNotFoundError, ProcessLookupError, PermissionError)

_File = tuple[int, int]  # its device and number


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose files are counted: a worker that runs, and with `forks` its whole group."""

    pid: int
    workspace_fd: int
    limits: ExecLimits
    forks: bool = False


def is_over_quota(holder: Holder, *, has_ended: bool) -> bool:
    """Whether workspace and removed files together are too much; what cannot be counted is."""
    limits = holder.limits
    try:
        left = bytes_left(
            holder.workspace_fd,
            total_bytes=limits.workspace_bytes,
            entries=limits.workspace_entries,
        )
        if left is None or has_ended:
            return left is None
        # Second: what loses its name meanwhile is counted twice, and never not at all.
        return removed_bytes(holder) > left
    except OSError:
        return True


def removed_bytes(holder: Holder) -> int:
    """The bytes of all files without a name that it holds.

    One that is only mapped counts as the most that a file can be: it cannot be asked for its size.
    A process that is gone holds nothing, nor does one without a program yet. OSError when it
    cannot be told.
    """
    below = os.fsencode(Path(f"/proc/self/fd/{holder.workspace_fd}").readlink())
    prefix = below.replace(b"\n", b"\\012") + b"/"
    found: dict[_File, int] = {}
    mapped: set[bytes] = set()
    for pid in _group(holder.pid) if holder.forks else (holder.pid,):
        for thread in _threads(pid):
            table = _table(thread, holder.limits.descriptors)
            if table is None:
                continue
            found |= table
            # After the descriptors: what goes from there into a mapping is seen; none goes back.
            known = {str(number).encode() for _, number in found}
            mapped = (mapped | set(_mapped(thread, prefix))) - known
            break
    return sum(found.values()) + len(mapped) * holder.limits.file_bytes


def can_be_seen(pid: int) -> bool:
    """Whether what this process holds could be counted from here."""
    return any(_table(thread, 0) is not None for thread in _threads(pid))


def _group(leader: int) -> Iterator[int]:
    """The worker and what it started; what lost its parent is this process's own child by then."""
    waiting, seen = [leader, *_children(os.getpid())], set[int]()
    while waiting and len(seen) < _MOST_PROCESSES:
        pid = waiting.pop()
        with suppress(ProcessLookupError):
            if pid not in seen and os.getpgid(pid) == leader:
                seen.add(pid)
                waiting += _children(pid)
                yield pid


def _children(pid: int) -> list[int]:
    """None where the kernel keeps no such list (`CONFIG_PROC_CHILDREN`)."""
    found: list[int] = []
    for thread in _threads(pid):
        with suppress(*_NOT_SEEN):
            found += [int(word) for word in (thread / "children").read_bytes().split()]
    return found


def _threads(pid: int) -> Iterator[Path]:
    tasks = Path(f"/proc/{pid}/task")
    with suppress(*_NOT_SEEN), os.scandir(tasks) as found:
        for number, thread in enumerate(found):
            if number == _MOST_LOOKED_AT:
                return
            yield Path(thread.path)


def _table(thread: Path, descriptors: int) -> dict[_File, int] | None:
    """The files without a name in its table of descriptors; None where there is no table."""
    found: dict[_File, int] = {}
    is_empty = True
    with suppress(*_NOT_SEEN), os.scandir(thread / "fd") as table:
        for entry in table:
            is_empty = False
            if int(entry.name) < descriptors:
                with suppress(FileNotFoundError):  # closed since
                    facts = entry.stat()
                    if facts.st_nlink == 0 and stat.S_ISREG(facts.st_mode):
                        found[facts.st_dev, facts.st_ino] = bytes_of(facts)
    return None if is_empty else found


def _mapped(thread: Path, prefix: bytes) -> Iterator[bytes]:
    """The numbers of the files below `prefix` that are mapped and have no name."""
    with suppress(*_NOT_SEEN), (thread / "maps").open("rb") as maps:
        for line in maps:
            if line.endswith(_GONE):
                *_, number, path = line.split(maxsplit=_FIELDS_BEFORE_PATH)
                if path.startswith(prefix):
                    yield number
