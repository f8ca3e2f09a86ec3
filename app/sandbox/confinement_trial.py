"""Confines one process that ends at once, so that a zygote knows before its first call that it can.

Threat: Privilege escalation via tool calls
"""

import os

from app.domain.errors import ConfinementError
from app.sandbox.confinement import Walls, confine
from app.sandbox.execution import ExecLimits
from app.sandbox.kernel_calls import Kernel
from app.sandbox.removed_files import can_be_seen

_CONFINED = b"\0"


def tried(kernel: Kernel, walls: Walls | None) -> str:
    """Why a worker could not be confined just now, or nothing: one is made, and ends at once."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    held, end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.close(end)
            root = os.open("/", os.O_PATH | os.O_CLOEXEC)
            confine(kernel, walls, workspace_fd=root, limits=ExecLimits())
            os.write(writer, _CONFINED)
            os.read(held, 1)  # until it was looked at
        except ConfinementError as refused:
            os.write(writer, str(refused).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.close(held)
    told = os.read(reader, 512)
    is_seen = walls is None or not walls.sees_files or can_be_seen(pid)
    os.close(end)
    os.waitpid(pid, 0)
    os.close(reader)
    if told == _CONFINED:
        return "" if is_seen else "files that a program has removed could not be counted (/proc)"
    return told.decode(errors="replace") or "a worker could not be confined"
