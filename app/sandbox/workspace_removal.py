"""Removes the workspace of an erased run, or all workspaces of an erased tenant.

Threat: PHI leakage in audit logs
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from app.sandbox.set_aside import PLACE
from app.sandbox.workspace_quota import wipe

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_workspace(root: Path, tenant_hex: str, run_hex: str | None) -> None:
    """Remove the directory and all it holds, and what was set aside of it; it need not be there.

    Links are removed and never followed; what a program closed to everybody is removed, too.
    OSError when something cannot be removed.
    """
    for name in (tenant_hex, run_hex):
        if name is not None and _ID.fullmatch(name) is None:
            raise ValueError("a workspace is named by ids")
    aside = f"{tenant_hex}." if run_hex is None else f"{tenant_hex}.{run_hex}."
    with suppress(FileNotFoundError):
        for name in os.listdir(root / PLACE):  # noqa: PTH208 - names, no paths
            if name.startswith(aside):
                _remove(root / PLACE / name)
    _remove(root / tenant_hex if run_hex is None else root / tenant_hex / run_hex)


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(folder, _FLAGS)
        try:
            wipe(descriptor)
        finally:
            os.close(descriptor)
        folder.rmdir()
