"""Confines one process that ends at once, so that a zygote knows before its first call that it can.

Threat: Privilege escalation via tool calls
"""

import os

from app.domain.errors import ConfinementError
from app.sandbox.confinement import Walls, confine
from app.sandbox.execution import ExecLimits
from app.sandbox.kernel_calls import Kernel


def tried(kernel: Kernel, walls: Walls | None) -> str:
    """Why a worker could not be confined just now, or nothing: one is made, and ends at once."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            root = os.open("/", os.O_PATH | os.O_CLOEXEC)
            confine(kernel, walls, workspace_fd=root, limits=ExecLimits())
            code = 0
        except ConfinementError as refused:
            os.write(writer, str(refused).encode())
        finally:
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(pid, 0)
    problem = os.read(reader, 512).decode(errors="replace")
    os.close(reader)
    return problem or ("" if status == 0 else "a worker could not be confined")
