"""Holds, while a zygote still may open it, what its workers may read later, and nothing more.

Threat: Privilege escalation via tool calls
"""

import fcntl
import os
import sys
import sysconfig
from contextlib import suppress
from typing import Final

from app.sandbox.execution import EngineName
from app.sandbox.landlock import DEVICE, READ, PathRule
from app.sandbox.monty_engine import interpreter_places
from app.sandbox.zygote_configuration import ZygoteConfiguration

_ABOVE_THE_CALLS: Final = 16  # a worker gives the lowest numbers to what its call came with
# Never readable, though they lie in the standard library's directory: other people's code.
_NOT_THE_LIBRARY: Final = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "ensurepip",
        "idlelib",
        "lib-dynload",  # nothing can be mapped to run any more
        "lib2to3",
        "site-packages",
        "test",
        "tkinter",
        "turtledemo",
    }
)


def held_places(configured: ZygoteConfiguration) -> list[PathRule]:
    """Descriptors of what a worker may read, opened while this process still may."""
    places = [(path, READ) for path in configured.profile.readable]
    places += [(path, DEVICE) for path in configured.profile.devices]
    if configured.engine is EngineName.MONTY:
        places += interpreter_places(configured.interpreter)
    else:
        places += _library_places()
    found: list[PathRule] = []
    for path, access in places:
        with suppress(FileNotFoundError):
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            descriptor = fcntl.fcntl(opened, fcntl.F_DUPFD_CLOEXEC, _ABOVE_THE_CALLS)
            os.close(opened)
            is_directory = os.path.isdir(path)  # noqa: PTH112 - a plain string is all there is
            found.append(PathRule(descriptor=descriptor, is_directory=is_directory, access=access))
    return found


def _library_places() -> list[tuple[str, int]]:
    """The interpreter's standard library, without what lies in its directory by others."""
    library = sysconfig.get_path("stdlib")
    with os.scandir(library) as entries:
        # What is loaded already is not read again, and each rule costs every worker its share.
        names = [entry.name for entry in entries if _is_still_read(entry.name)]
    return [(f"{library}/{name}", READ) for name in sorted(names)]


def _is_still_read(name: str) -> bool:
    stem, _, ending = name.partition(".")
    is_loaded = ending == "py" and stem in sys.modules
    return not is_loaded and name not in _NOT_THE_LIBRARY
