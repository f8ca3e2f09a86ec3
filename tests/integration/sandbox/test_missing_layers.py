"""A kernel that lacks a layer: no engine, a reason that names the layer, and nothing is ever run.

The lack is real for the program under test: an outer filter answers in the kernel's place.
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.escape_scene import NUMBERS

ROOT = Path(__file__).parents[3]
_LANDLOCK = ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")


def _number(name: str) -> int:
    number = NUMBERS[os.uname().machine][name]
    assert isinstance(number, int)
    return number


def _reported(answers: list[tuple[int, int | None, int]], mode: str = "strict") -> dict[str, Any]:
    """What the sandbox says of a kernel that answers so."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.support.outer_filter",
            json.dumps(answers),
            str(ROOT / "tests" / "support" / "sandbox_report.py"),
            mode,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _without(*names: str, code: int) -> list[tuple[int, int | None, int]]:
    return [(_number(name), None, code) for name in names]


def test_a_whole_kernel_confines_and_runs() -> None:
    told = _reported([])
    assert told["gap"] is None
    assert told["asked"] == ["ok", "42\n", ""]
    assert told["forced"] == ["ok", "42\n", ""]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP])
def test_without_landlock_nothing_runs_and_the_reason_names_it(code: int) -> None:
    told = _reported(_without(*_LANDLOCK, code=code))
    assert "Landlock" in told["gap"]
    assert errno.errorcode[code] in told["gap"]
    assert told["asked"][:2] == ["unavailable", ""]
    assert told["forced"][:2] == ["unavailable", ""]
    assert "Landlock" in told["forced"][2]
    assert told["file"] == "text"


@pytest.mark.parametrize("name", _LANDLOCK[1:])
def test_a_half_landlock_is_none(name: str) -> None:
    """The probe cannot see it; the worker does, and runs nothing."""
    told = _reported(_without(name, code=errno.EPERM))
    assert told["forced"][:2] == ["unavailable", ""]
    assert "Landlock" in told["forced"][2]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_without_seccomp_nothing_runs_and_the_reason_names_it(code: int) -> None:
    told = _reported(_without("seccomp", code=code))
    assert "seccomp" in told["gap"]
    assert told["asked"][:2] == ["unavailable", ""]
    assert told["forced"][:2] == ["unavailable", ""]
    assert "seccomp" in told["forced"][2]
    assert told["file"] == "text"


def test_without_no_new_privs_nothing_runs_and_the_reason_names_it() -> None:
    answers: list[tuple[int, int | None, int]] = [
        (_number("prctl"), option, errno.EINVAL) for option in (38, 39)
    ]
    told = _reported(answers)
    assert "no_new_privs" in told["gap"]
    assert told["asked"][:2] == ["unavailable", ""]
    assert told["forced"][:2] == ["unavailable", ""]
    assert "no_new_privs" in told["forced"][2]


def test_without_resource_limits_nothing_runs() -> None:
    told = _reported(_without("prlimit64", "setrlimit", code=errno.EPERM))
    assert told["forced"][:2] == ["unavailable", ""]


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM])
def test_without_openat2_files_and_programs_work_all_the_same(code: int) -> None:
    told = _reported(_without("openat2", code=code))
    assert told["openat2"] == errno.errorcode[code]
    assert told["file"] == "text"
    assert told["asked"] == ["ok", "42\n", ""]


def test_off_unsafe_runs_without_the_walls_and_needs_none() -> None:
    told = _reported(_without(*_LANDLOCK, "seccomp", code=errno.ENOSYS), "off-unsafe")
    assert told["gap"] is None
    assert told["asked"] == ["ok", "42\n", ""]
