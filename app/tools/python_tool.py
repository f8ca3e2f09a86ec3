"""Runs a Python program for an agent: read first, then run by a confined worker, never in here.

Threat: Privilege escalation via tool calls
"""

import asyncio
import sys
import sysconfig
from dataclasses import replace

from pydantic import Field

from app.domain.errors import OverloadedError, ToolError
from app.domain.label import Label
from app.domain.run import JsonObject
from app.domain.step import Effect, Role, ToolSpec
from app.sandbox.execution import (
    EngineName,
    ExecRequest,
    ExecResult,
    ExecStatus,
    Runner,
    SourceText,
)
from app.sandbox.python_engine import PythonEngine
from app.sandbox.workspace import Workspace
from app.tools.monty_output import without_marks
from app.tools.python_guard import PythonRefusals, first_objection
from app.tools.toolbox import ClosedArguments, closed_schema, parse_arguments

NAME = "python"
# The parser holds the interpreter while it reads, at up to 2 us a character on a slow core: longer
# texts would stop the event loop for more than 50 ms.
MAX_PROGRAM_CHARS = 20_000
# Beyond the program's own ten seconds: waiting for a seat, and for a worker to come up.
_TIMEOUT_SECONDS = 45.0


_NATIVE = PythonEngine()


class _PythonArguments(ClosedArguments):
    code: str = Field(
        min_length=1,
        max_length=MAX_PROGRAM_CHARS,
        description="The whole program; the value of a last expression is shown",
    )


_MONTY_LANGUAGE = (
    "a part of Python without class inheritance, yield, del, input and most modules: math, json, "
    "re, datetime, asyncio, typing and few others are there"
)


def _language(engine: PythonEngine) -> str:
    if engine.name is EngineName.MONTY:
        return _MONTY_LANGUAGE
    return f"CPython {sys.version_info.major}.{sys.version_info.minor}, standard library only"


def _needs(engine: PythonEngine) -> frozenset[str]:
    always = frozenset({"no_new_privs", "seccomp"})
    return always | {"landlock"} if engine.has_files else always


def python_spec(engine: PythonEngine) -> ToolSpec:
    """What the tool declares when this engine is behind it."""
    files = (
        "Nothing is kept between calls but files in the current directory, the workspace."
        if engine.has_files
        else "Nothing is kept between calls, and there are no files."
    )
    return ToolSpec(
        name=NAME,
        description=(
            f"Run a Python program (engine: {engine.name.value}, {_language(engine)}). Print "
            f"what you want to see. {files} No network, no other programs, at most 10 seconds."
        ),
        effect=Effect.EXECUTE,
        parameters=closed_schema(_PythonArguments),
        roles={"code": Role.COMMAND},
        labels={"": Label()},
        free_text=frozenset({"code"}),
        needs=_needs(engine),
        timeout_seconds=_TIMEOUT_SECONDS,
        engine=engine.name.value,
    )


class PythonTool:
    """The tool `python`. Holds no state of its own and none of any run."""

    def __init__(
        self,
        runner: Runner,
        refusals: PythonRefusals | None,
        engine: PythonEngine = _NATIVE,
        *,
        is_confined: bool = True,
    ) -> None:
        """Without `refusals` there is no first layer: only tests of the boundary go without."""
        self._runner = runner
        self._refusals = refusals
        self._engine = engine.name
        self.spec = replace(python_spec(engine), is_confined=is_confined)

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """What the program wrote. ToolError when it was refused, failed or was ended."""
        asked = parse_arguments(_PythonArguments, arguments)
        if self._refusals is not None:
            objection = await asyncio.to_thread(first_objection, asked.code, self._refusals)
            if objection is not None:
                raise ToolError(f"refused before it ran: {objection}")
        with workspace.lend() as directory:
            request = ExecRequest(
                engine=self._engine,
                program=SourceText(text=asked.code),
                tenant_hex=workspace.tenant_hex,
                run_hex=workspace.run_hex,
                workspace_fd=directory,
                workspace=workspace,
            )
            try:
                result = await self._runner.run(request)
            except OverloadedError:
                raise ToolError("too many programs are running; try again in a moment") from None
        if self._engine is EngineName.MONTY:
            result = without_marks(result)
        text = shown_result(result)
        if result.status is not ExecStatus.OK:
            raise ToolError(text)
        return text


def shown_result(result: ExecResult) -> str:
    """What the model is told: what the program wrote, then how it ended when that matters."""
    parts = [_shown(result.stdout, is_cut=result.stdout_truncated)]
    if result.stderr:
        parts.append("[stderr]\n" + _shown(result.stderr, is_cut=result.stderr_truncated))
    match result.status:
        case ExecStatus.OK:
            pass
        case ExecStatus.ERROR:
            parts.append(f"[exit code {result.exit_code}]")
        case _:
            parts.append(f"[{result.status.value}: {result.reason}]")
    return "\n".join(part for part in parts if part) or "[no output]"


def _shown(data: bytes, *, is_cut: bool) -> str:
    """The text, without the places on this host that tracebacks name."""
    text = data.decode(errors="replace").rstrip("\n")
    for place in sorted(_HOST_PLACES, key=len, reverse=True):
        text = text.replace(place, "<python>")
    return text + "\n[truncated]" * is_cut


_HOST_PLACES = frozenset(
    {
        *(path for path in sysconfig.get_paths().values() if len(path) > 1),
        sysconfig.get_path("stdlib"),
        *(prefix for prefix in (sys.prefix, sys.base_prefix) if prefix not in ("/", "/usr")),
    }
)
