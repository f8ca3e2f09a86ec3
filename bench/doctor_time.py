"""How long `meshflow doctor` takes, called as a startup probe does, with and without programs."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.paired import ROOT

_RUNS = 3
# What a Debian has and the shipped refusals let an operator list.
_PROGRAMS = (
    *("cat", "head", "tail", "wc", "sort", "uniq", "cut", "tr", "grep", "sed", "ls", "cp", "mv"),
    *("mkdir", "touch", "date", "seq", "diff", "comm", "join", "paste", "fold", "nl", "od"),
)


def doctor_seconds() -> tuple[float, float, int]:
    """Medians by the clock: with a list, without one, and how many programs the list has."""
    listed = [path for name in _PROGRAMS if (path := Path("/usr/bin") / name).exists()]
    with tempfile.TemporaryDirectory(prefix="mf-doctor-") as made:
        place = Path(made)
        place.chmod(0o755)
        without = statistics.median(_once(place) for _ in range(_RUNS))
        entries = [f'[programs.{path.name}]\npath = "{path}"\n' for path in listed]
        (place / "exec.toml").write_text("\n".join(entries), encoding="utf-8")
        return statistics.median(_once(place) for _ in range(_RUNS)), without, len(listed)


def _once(place: Path) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "app/cli/entry.py", "doctor", "--json", "--accept-missing"],
        cwd=ROOT,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(ROOT),
            "MESHFLOW_CONFIG_DIR": str(place),
            "MESHFLOW_WORKSPACE_DIR": str(place / "workspaces"),
        },
        capture_output=True,
        check=False,
    )
    took = time.perf_counter() - began
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return took
