"""Runs a shell command for an agent: read first, then run by a confined worker; no shell sees it.

Two engines, of which the operator chooses one: `virtual`, an interpreter that starts no program,
and `exec`, which runs one program of the operator's list by its words.

Threat: Exfiltration via web/shell tools
"""

import asyncio
from dataclasses import replace

from pydantic import Field

from app.domain.errors import OverloadedError, ToolError
from app.domain.label import Label
from app.domain.run import JsonObject
from app.domain.step import Effect, Role, ToolSpec
from app.sandbox.execution import (
    Argv,
    EngineName,
    ExecRequest,
    ExecStatus,
    Program,
    Runner,
    SourceText,
)
from app.sandbox.workspace import Workspace
from app.tools.program_list import ProgramList
from app.tools.python_tool import shown_result
from app.tools.shell_guard import ShellRefusals, refused
from app.tools.toolbox import ClosedArguments, closed_schema, parse_arguments

NAME = "shell"
MAX_COMMAND_CHARS = 8_000
# Beyond the command's own ten seconds: waiting for a seat, and for a worker to come up.
_TIMEOUT_SECONDS = 45.0


class _ShellArguments(ClosedArguments):
    command: str = Field(
        min_length=1, max_length=MAX_COMMAND_CHARS, description="The whole command line or script"
    )


def shell_spec(programs: ProgramList | None, *, has_files: bool = True) -> ToolSpec:
    """What the tool declares: with a list its engine is `exec`, without one `virtual`.

    `has_files` says whether the virtual shell sees the workspace.
    """
    engine = EngineName.VIRTUAL_SHELL if programs is None else EngineName.EXEC
    needs = {"no_new_privs", "seccomp"}
    return ToolSpec(
        name=NAME,
        description=_description(programs, has_files=has_files),
        effect=Effect.EXECUTE,
        parameters=closed_schema(_ShellArguments),
        roles={"command": Role.COMMAND},
        labels={"": Label()},
        free_text=frozenset({"command"}),
        needs=frozenset(needs if programs is None and not has_files else needs | {"landlock"}),
        timeout_seconds=_TIMEOUT_SECONDS,
        engine=engine.value,
    )


def _description(programs: ProgramList | None, *, has_files: bool) -> str:
    kept = "Nothing is kept between calls but files in the current directory, the workspace. "
    if programs is None and not has_files:
        kept = "Nothing is kept between calls: its files lie in memory, and it sees no others. "
    kept += "No network, at most 10 seconds."
    if programs is None:
        return (
            "Run a shell command (engine: virtual, a bash that has the usual commands built in, "
            "such as grep, sed, awk, jq, sort, find, tar, and starts no other program). " + kept
        )
    return (
        f"Run one program (engine: exec) of these: {', '.join(programs.names)}. Its name and its "
        "words, quoted where needed: no pipes, redirections, variables or wildcards. " + kept
    )


class ShellTool:
    """The tool `shell`. Holds no state of its own and none of any run."""

    def __init__(
        self,
        runner: Runner,
        refusals: ShellRefusals | None,
        programs: ProgramList | None = None,
        *,
        has_files: bool = True,
        is_confined: bool = True,
    ) -> None:
        """Without `refusals` there is no first layer: only tests of the boundary go without."""
        self._runner = runner
        self._refusals = refusals
        self._programs = programs
        self.spec = replace(shell_spec(programs, has_files=has_files), is_confined=is_confined)

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """What the command wrote. ToolError when it was refused, failed or was ended."""
        command = parse_arguments(_ShellArguments, arguments).command
        if self._refusals is not None:
            objection = await asyncio.to_thread(refused, command, self._refusals)
            if objection is not None:
                raise ToolError(f"refused before it ran: {objection}")
        engine, program = self._program(command)
        with workspace.lend() as directory:
            request = ExecRequest(
                engine=engine,
                program=program,
                tenant_hex=workspace.tenant_hex,
                run_hex=workspace.run_hex,
                workspace_fd=directory,
                workspace=workspace,
            )
            try:
                result = await self._runner.run(request)
            except OverloadedError:
                raise ToolError("too many programs are running; try again in a moment") from None
        text = shown_result(result)
        if result.status is not ExecStatus.OK:
            raise ToolError(text)
        return text

    def _program(self, command: str) -> tuple[EngineName, Program]:
        if self._programs is None:
            return EngineName.VIRTUAL_SHELL, SourceText(text=command)
        return EngineName.EXEC, Argv(words=self._programs.argv(command))
