"""Reads all files of a workspace into memory, within bounds, and lays them out again elsewhere.

What a worker made is hostile: whatever is not a plain file under a plain name, or is too much,
makes the whole uncopied; nothing is followed. Empty directories and modes are not kept.

Threat: Privilege escalation via tool calls
"""

import os
import stat
from collections.abc import Mapping
from types import MappingProxyType

from app.domain.errors import ToolError
from app.sandbox.held_files import READ_FLAGS, closing, read_window, require_private_file
from app.sandbox.workspace import Workspace
from app.sandbox.workspace_path import MAX_DEPTH, TEMPORARY_PREFIX, parse_file_path
from app.sandbox.workspace_quota import wipe

MOST_BYTES = 8 * 1024 * 1024
MOST_FILES = 1000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = READ_FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC


class UncopiedError(Exception):
    """There is something in the workspace that a copy cannot hold."""


def read_all(workspace: Workspace) -> Mapping[str, bytes]:
    """Every file by its path. UncopiedError when the copy would not be the whole of it."""
    found: dict[str, bytes] = {}
    try:
        with workspace.lend() as top:
            _read(top, "", found, MAX_DEPTH)
    except (OSError, ToolError) as error:
        raise UncopiedError("the workspace cannot be read") from error
    return MappingProxyType(found)


def lay_out(workspace: Workspace, files: Mapping[str, bytes]) -> None:
    """Make these the files of the workspace, and the only ones. ToolError, OSError."""
    with workspace.lend() as top:
        wipe(top)
    for path, content in files.items():
        workspace.write_file(path, content)


def _read(directory: int, above: str, found: dict[str, bytes], depth: int) -> None:
    if depth < 0:
        raise UncopiedError("nested too deep")
    with closing(os.open(".", _DIRECTORY, dir_fd=directory)) as opened:
        for name in os.listdir(opened):  # noqa: PTH208 - through a descriptor
            if name.startswith(TEMPORARY_PREFIX):
                continue
            path = f"{above}{name}"
            facts = os.stat(name, dir_fd=opened, follow_symlinks=False)
            if stat.S_ISDIR(facts.st_mode):
                with closing(os.open(name, _DIRECTORY, dir_fd=opened)) as below:
                    _read(below, f"{path}/", found, depth - 1)
                continue
            parse_file_path(path)  # what no tool could write under that name is not laid out again
            with closing(os.open(name, _FILE, dir_fd=opened)) as file:
                require_private_file(os.fstat(file))
                left = MOST_BYTES - sum(map(len, found.values()))
                content = read_window(file, left + 1)
            if len(content) > left or len(found) >= MOST_FILES:
                raise UncopiedError("there is more than a copy may hold")
            found[path] = content
