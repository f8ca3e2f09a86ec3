"""What `meshflow doctor` found, as one report: its verdict, its JSON and its table.

The JSON is described by docs/doctor-report.schema.json. Nothing of the settings but the mode, the
interpreter and the names of listed programs is in it, so no secret can be.
"""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.canary_scene import CanaryReport, Held
from app.sandbox.capabilities import Capabilities
from app.sandbox.doctor_canaries import Oracle
from app.sandbox.execution import ExecLimits
from app.sandbox.python_engine import PythonEngine

FORMAT: Final = "meshflow-doctor/v1"
Json: TypeAlias = "str | int | bool | None | list[Json] | dict[str, Json]"
_SERVER_BYTES: Final = 256 * 1024 * 1024


class Verdict(IntEnum):
    """The exit code."""

    HOLDS = 0
    REDUCED = 1  # something is missing, and what needs it is off
    UNSAFE = 2  # not to be run so


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolState:
    """A tool and whether it is offered. `needs_machine`: what keeps it off is the machine."""

    name: str
    reason: str | None
    engine: str | None = None
    needs_machine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Everything that was found. `canaries` None: nothing was tried, since nothing would hold."""

    version: str
    mode: SandboxMode
    found: Capabilities
    worker_uid: int
    concurrency: int
    engine: PythonEngine
    tools: tuple[ToolState, ...]
    first_layer: tuple[tuple[str, bool], ...]
    canaries: CanaryReport | None
    problem: str | None = None  # why no attempt could be made

    @property
    def verdict(self) -> Verdict:
        """UNSAFE when anything got out or no wall is up; REDUCED when a wall or a tool lacks."""
        if next(self._dangers(), None) is not None:
            return Verdict.UNSAFE
        return Verdict.REDUCED if next(self._gaps(), None) is not None else Verdict.HOLDS

    def _dangers(self) -> Iterator[str]:
        if self.mode is SandboxMode.OFF_UNSAFE:
            yield "MESHFLOW_SANDBOX is off-unsafe: programs of tools run without confinement"
        for end in () if self.canaries is None else self.canaries.ends:
            if end.held is Held.ESCAPED:
                yield f"an attempt got out of the worker: {end.name}"
        for name, held in self.first_layer:
            if not held:
                yield f"the first layer let pass: {name}"

    def _gaps(self) -> Iterator[str]:
        gap = self.found.gap()
        if gap is not None and self.mode is SandboxMode.STRICT:
            yield gap
        for tool in self.tools:
            if tool.reason is not None and tool.needs_machine:
                yield f"{tool.name} is not offered: {tool.reason}"
        if self.problem is not None:
            yield self.problem
        if self.canaries is not None and not self.canaries.works:
            yield "an ordinary program did not run in a worker"
        for name in () if self.canaries is None else self.canaries.not_started:
            yield f"the listed program {name} does not start in a worker"

    def _warnings(self) -> Iterator[str]:
        found, limits = self.found, ExecLimits()
        if found.uid == 0:
            yield f"the server is root; workers run as uid {self.worker_uid}, without capabilities"
        elif found.held_capabilities:
            yield "this process holds capabilities; workers give them up"
        if not found.openat2.value:
            yield f"no openat2 ({found.openat2.seen}): files are reached step by step"
        if found.is_dumpable:
            yield "other processes of this user can read this process"
        if not found.is_root_read_only:
            yield "the root file system can be written"
        wanted = self.concurrency * limits.memory_bytes + _SERVER_BYTES
        limit = found.memory_limit_bytes
        if limit is not None and limit < wanted:
            yield (
                f"the container's memory limit ({limit >> 20} MiB) is below what "
                f"{self.concurrency} programs may use at once ({wanted >> 20} MiB)"
            )
        for end in () if self.canaries is None else self.canaries.ends:
            if end.held is Held.NOT_RUN and self.canaries is not None and self.canaries.works:
                yield f"could not be tried here: {end.name}"

    def as_json(self) -> dict[str, Json]:
        """The report for machines."""
        found, canaries = self.found, self.canaries
        return {
            "format": FORMAT,
            "version": self.version,
            "verdict": self.verdict.name.lower(),
            "mode": self.mode.value,
            "python_engine": self.engine.name.value,
            "python_has_files": self.engine.has_files,
            "machine": _machine(found, self.worker_uid),
            "tools": [
                {
                    "name": tool.name,
                    "available": tool.reason is None,
                    "reason": tool.reason,
                    "engine": tool.engine,
                }
                for tool in self.tools
            ],
            "first_layer": [{"name": name, "held": held} for name, held in self.first_layer],
            "ordinary_program": None if canaries is None else canaries.works,
            "canaries": [
                {
                    "name": end.name,
                    "told_by": "program" if end.oracle is Oracle.SAID else "outside",
                    "result": end.held.value,
                }
                for end in (() if canaries is None else canaries.ends)
            ],
            "dangers": list(self._dangers()),
            "gaps": list(self._gaps()),
            "warnings": list(self._warnings()),
        }

    def lines(self) -> Iterator[str]:
        """The report for people."""
        found = self.found
        yield f"meshflow {self.version} on {found.architecture}, kernel {platform.release()}"
        yield f"  sandbox         {self.mode.value}; python runs in {self.engine.name.value}"
        yield f"  no_new_privs    {found.no_new_privs.seen}"
        yield f"  seccomp         {found.seccomp.seen}"
        abi = f"ABI {found.landlock.value}" if found.landlock.value else found.landlock.seen
        yield f"  Landlock        {abi}"
        yield f"  openat2         {found.openat2.seen}"
        yield f"  user            {found.uid}, workers {self.worker_uid}"
        yield ""
        for tool in self.tools:
            yield f"  {tool.name:<15} {'offered' if tool.reason is None else tool.reason}"
        yield ""
        held = sum(is_held for _, is_held in self.first_layer)
        yield f"  first layer     {held} of {len(self.first_layer)} refused"
        ends = () if self.canaries is None else self.canaries.ends
        for end in ends:
            yield f"  {end.held.value:<15} {end.name}"
        if not ends:
            yield "  no attempt to get out was made"
        yield ""
        for word, found_ones in (
            ("DANGER", self._dangers()),
            ("missing", self._gaps()),
            ("note", self._warnings()),
        ):
            for sentence in found_ones:
                yield f"  {word}: {sentence}"
        yield f"  verdict: {self.verdict.name.lower()}"


def _machine(found: Capabilities, worker_uid: int) -> dict[str, Json]:
    return {
        "architecture": found.architecture,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "is_known_architecture": found.is_known_architecture,
        "no_new_privs": found.no_new_privs.seen,
        "seccomp": found.seccomp.seen,
        "landlock": found.landlock.seen,
        "landlock_abi": found.landlock.value,
        "openat2": found.openat2.seen,
        "is_dumpable": found.is_dumpable,
        "uid": found.uid,
        "worker_uid": worker_uid,
        "capabilities": f"{found.held_capabilities:#x}",
        "is_root_read_only": found.is_root_read_only,
        "memory_limit_bytes": found.memory_limit_bytes,
    }
