"""Builds the runner of this process: what the machine offers decides which engines there are.

Threat: Privilege escalation via tool calls
"""

import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.capabilities import Capabilities, probe
from app.sandbox.execution import EngineName
from app.sandbox.kernel_calls import PR_SET_DUMPABLE, Kernel, LinuxKernel
from app.sandbox.python_engine import (
    FoundMonty,
    choose_python_engine,
    installed_monty,
    monty_gap,
)
from app.sandbox.sandbox_profile import SandboxProfile, WorkerAccount
from app.sandbox.sandbox_settings import SandboxSettings
from app.sandbox.tool_runner import RunnerOptions, ToolRunner

_log = logging.getLogger(__name__)
_NO_MONTY = FoundMonty(problem="the extra `monty` is not installed")
# Its interface moves with every version: no other is taken.
_BASHKIT = "0.20.1"
NO_BASHKIT = f"the extra `shell` (bashkit {_BASHKIT}) is not installed"
NO_PROGRAMS = "no program is listed in exec.toml"
_REMEDY = "see docs/operations/sandbox.md, or set MESHFLOW_SANDBOX=off-unsafe and mean it"


def close_process_to_peers(kernel: Kernel | None = None) -> None:
    """Keep other processes of this user out of this one's environment, memory and descriptors.

    Before any key is read. Where the kernel has no such switch nothing happens.
    """
    if sys.platform == "linux":
        (kernel or LinuxKernel()).prctl(PR_SET_DUMPABLE, 0)


def build_runner(
    asked: SandboxSettings,
    *,
    account: WorkerAccount | None,
    no_account: str | None = None,
    executable: Sequence[str] = (),
    kernel: Kernel | None = None,
) -> ToolRunner:
    """The runner. `no_account` says why root has nobody to run workers as. Says what it found.

    `executable` are the programs that the engine `exec` may run.
    """
    mode, found, monty = asked.mode, probe(kernel or LinuxKernel()), installed_monty()
    gaps = engine_gaps(found, mode, no_account=no_account, monty=monty)
    library = bashkit_place()
    if library is None:
        gaps.setdefault(EngineName.VIRTUAL_SHELL, NO_BASHKIT)
    if not executable:
        gaps.setdefault(EngineName.EXEC, NO_PROGRAMS)
    python = choose_python_engine(found, mode, forced=asked.python_engine, monty=monty)
    if mode is SandboxMode.OFF_UNSAFE:
        _log.warning("MESHFLOW_SANDBOX is off-unsafe: tools run programs without confinement")
    else:
        _log.info(
            "sandbox: strict; Landlock %s, seccomp %s, openat2 %s",
            found.landlock.value or found.landlock.seen,
            found.seccomp.seen,
            found.openat2.seen,
        )
    if python.name in gaps:
        _log.warning("no engine %s: %s", python.name.value, gaps[python.name])
    else:
        _log.info("the engine of python is %s", python.name.value)
    return ToolRunner(
        RunnerOptions(
            profile=SandboxProfile(mode=mode, executable=tuple(executable)),
            account=account,
            gaps=gaps,
            libraries={} if library is None else {EngineName.VIRTUAL_SHELL: (library,)},
            concurrency=2 * (os.cpu_count() or 1),
            keeps_spare=True,
            python=python,
            shell_has_files=mode is SandboxMode.OFF_UNSAFE or bool(found.landlock.value),
        )
    )


def engine_gaps(
    found: Capabilities,
    mode: SandboxMode,
    *,
    no_account: str | None = None,
    monty: FoundMonty = _NO_MONTY,
) -> dict[EngineName, str]:
    """Which engines this machine cannot confine, and why: the sentence names what is missing."""
    missing = found.gap() if mode is SandboxMode.STRICT else None
    reason = missing or no_account
    gaps = {} if reason is None else dict.fromkeys(EngineName, f"{reason}; {_REMEDY}")
    # Two that need no files need no Landlock either.
    without_files = found.gap(needs_landlock=False) if mode is SandboxMode.STRICT else None
    for engine, lacks in (
        (EngineName.MONTY, monty_gap(found, mode, monty)),
        (EngineName.VIRTUAL_SHELL, without_files),
    ):
        reason = lacks or no_account
        if reason is None:
            gaps.pop(engine, None)
        else:
            gaps[engine] = f"{reason}; {_REMEDY}"
    return gaps


def bashkit_place() -> str | None:
    """The directory that bashkit lies in, or None without the version this was written for.

    It is only looked up: this process never imports it.
    """
    try:
        found = metadata.distribution("bashkit")
    except metadata.PackageNotFoundError:
        return None
    return str(found.locate_file("")) if found.version == _BASHKIT else None
