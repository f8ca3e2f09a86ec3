"""Decides which interpreter runs the tool `python` here: what the machine offers, what was asked.

The choice is told in the tool's description and in every record; it never changes in silence.

Threat: Privilege escalation via tool calls
"""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.capabilities import Capabilities
from app.sandbox.execution import EngineName

# Its interface moves from version to version: another one is another engine.
MONTY_VERSION: Final = "1.4.0"
_DISTRIBUTION = "pydantic-monty-runtime"
PYTHON_ENGINES: Final = (EngineName.NATIVE, EngineName.MONTY)


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonEngine:
    """The interpreter, and whether its programs see the files of the workspace."""

    name: EngineName = EngineName.NATIVE
    has_files: bool = True
    interpreter: str = ""  # the program that `monty` is


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMonty:
    """The interpreter as it is installed: its file, or why there is none."""

    path: str = ""
    problem: str = ""


def installed_monty() -> FoundMonty:
    """Where the extra `monty` put its program; nothing of it is imported or run."""
    try:
        found = importlib.metadata.distribution(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return FoundMonty(problem="the extra `monty` is not installed")
    if found.version != MONTY_VERSION:
        return FoundMonty(problem=f"the extra `monty` is not at {MONTY_VERSION}")
    for file in found.files or ():
        if file.name == "monty":
            path = Path(str(found.locate_file(file))).resolve()
            if path.is_file():
                return FoundMonty(path=str(path))
    return FoundMonty(problem="the program of the extra `monty` is missing")


def monty_gap(found: Capabilities, mode: SandboxMode, monty: FoundMonty) -> str | None:
    """Why `monty` cannot run here, or None. It does not need Landlock, but all other walls."""
    if monty.problem:
        return monty.problem
    return found.gap(needs_landlock=False) if mode is SandboxMode.STRICT else None


def choose_python_engine(
    found: Capabilities, mode: SandboxMode, *, forced: EngineName | None, monty: FoundMonty
) -> PythonEngine:
    """`native` where all walls are, `monty` where only Landlock lacks, or what was asked for.

    Whether the choice can run here is for whoever lists the gaps.
    """
    name = forced or EngineName.NATIVE
    lacks_landlock = mode is SandboxMode.STRICT and found.gap() is not None
    if forced is None and lacks_landlock and monty_gap(found, mode, monty) is None:
        name = EngineName.MONTY
    if name is not EngineName.MONTY:
        return PythonEngine(name=name)
    has_files = mode is SandboxMode.OFF_UNSAFE or bool(found.landlock.value)
    return PythonEngine(name=name, has_files=has_files, interpreter=monty.path)
