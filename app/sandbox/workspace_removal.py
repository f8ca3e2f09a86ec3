"""Removes the workspace of an erased run, or all workspaces of an erased tenant.

Threat: PHI leakage in audit logs
"""

import re
import shutil
from contextlib import suppress
from pathlib import Path

_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


def remove_workspace(root: Path, tenant_hex: str, run_hex: str | None) -> None:
    """Remove the directory and all it holds; nothing happens when it is not there.

    Links are removed and never followed. OSError when something cannot be removed.
    """
    for name in (tenant_hex, run_hex):
        if name is not None and _ID.fullmatch(name) is None:
            raise ValueError("a workspace is named by ids")
    folder = root / tenant_hex if run_hex is None else root / tenant_hex / run_hex
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
