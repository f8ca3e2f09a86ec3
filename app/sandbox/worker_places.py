"""Holds, while a zygote still may open it, what its workers may read later, and nothing more.

Threat: Privilege escalation via tool calls
"""

import fcntl
import os
from contextlib import suppress
from typing import Final

from app.sandbox.engine_choice import reachable
from app.sandbox.landlock import PathRule
from app.sandbox.zygote_configuration import ZygoteConfiguration

_ABOVE_THE_CALLS: Final = 16  # a worker gives the lowest numbers to what its call came with


def held_places(configured: ZygoteConfiguration) -> list[PathRule]:
    """Descriptors of what a worker may read, opened while this process still may."""
    found: list[PathRule] = []
    for path, access in reachable(configured):
        with suppress(FileNotFoundError):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _ABOVE_THE_CALLS)
            os.close(opened)
            is_directory = os.path.isdir(path)  # noqa: PTH112 - a plain string is all there is
            found.append(PathRule(descriptor=descriptor, is_directory=is_directory, access=access))
    return found
