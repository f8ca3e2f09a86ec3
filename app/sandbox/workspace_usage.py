"""Counts what a workspace holds before a tool writes into it, following nothing.

Threat: Privilege escalation via tool calls
"""

import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from app.domain.errors import ToolError
from app.sandbox.held_files import closing
from app.sandbox.openat2 import HOLD_DIRECTORY, Opener
from app.sandbox.workspace_path import MAX_DEPTH


@dataclass(slots=True)
class Usage:
    """What a walk has counted so far."""

    entries: int = 0
    total_bytes: int = 0


def count_usage(opener: Opener, root: int, most_entries: int) -> Usage:
    """What is beneath `root`; the walk stops once there are more entries than that.

    ToolError when it is nested too deeply, OSError when it cannot be read.
    """
    usage = Usage()
    _count(opener, root, usage, most_entries, MAX_DEPTH)
    return usage


def weight(facts: os.stat_result) -> int:
    """The bytes a file counts for: what it claims or what it occupies, whichever is more."""
    return max(facts.st_size, facts.st_blocks * 512)


def _count(opener: Opener, directory: int, usage: Usage, most_entries: int, depth: int) -> None:
    if depth < 0:
        raise ToolError("the workspace is nested too deeply")
    flags = os.O_RDONLY | os.O_DIRECTORY
    with closing(opener(directory, (), flags, 0)) as opened, os.scandir(opened) as names:
        for item in names:
            usage.entries += 1
            if usage.entries > most_entries:
                return
            with suppress(FileNotFoundError):
                facts = item.stat(follow_symlinks=False)
                if not stat.S_ISDIR(facts.st_mode):
                    usage.total_bytes += weight(facts)
                    continue
                with closing(opener(opened, (item.name,), HOLD_DIRECTORY, 0)) as below:
                    _count(opener, below, usage, most_entries, depth - 1)
