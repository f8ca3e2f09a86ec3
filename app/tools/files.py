"""The tools that read, write, list and search files of the run's workspace.

Threat: Privilege escalation via tool calls
"""

import asyncio
import codecs
from typing import Annotated

from pydantic import Field

from app.domain.errors import ToolError
from app.domain.label import Label
from app.domain.run import JsonObject
from app.domain.step import Effect, Role, ToolSpec
from app.privacy.linear_regex import compiled_within, quoted
from app.sandbox.workspace import Workspace
from app.sandbox.workspace_path import MAX_PATH_BYTES
from app.sandbox.workspace_search import LineMatcher
from app.tools.toolbox import ClosedArguments, closed_schema, parse_arguments

# Below a result's limit, so that the note on how to read on is never what is cut off.
_WINDOW_BYTES = 48 * 1024
_MAX_OFFSET = 1 << 40
_MAX_CONTENT_CHARS = 1024 * 1024
_MAX_QUERY_CHARS = 256
_PATTERN_MEMORY = 1024 * 1024
# Of a path's longest spelling in JSON, where one character may take twelve.
_PATH_ARGUMENTS_BYTES = 64 * 1024

_Path = Annotated[
    str,
    Field(
        max_length=MAX_PATH_BYTES,
        description="Path relative to the workspace, for example notes/today.txt",
    ),
]


class _ReadArguments(ClosedArguments):
    path: _Path
    offset: int = Field(default=0, ge=0, le=_MAX_OFFSET, description="First byte to read")


class _WriteArguments(ClosedArguments):
    path: _Path
    content: str = Field(max_length=_MAX_CONTENT_CHARS, description="The whole new content")


class _ListArguments(ClosedArguments):
    path: str = Field(
        default=".",
        max_length=MAX_PATH_BYTES,
        description="Directory relative to the workspace; . is the workspace itself",
    )


class _SearchArguments(ClosedArguments):
    query: str = Field(
        min_length=1, max_length=_MAX_QUERY_CHARS, description="What a line must hold"
    )
    path: str = Field(
        default=".",
        max_length=MAX_PATH_BYTES,
        description="File or directory to search, relative to the workspace",
    )
    is_pattern: bool = Field(
        default=False, description="Whether the query is a regular expression (RE2), else text"
    )
    ignore_case: bool = Field(default=False, description="Whether A also finds a")


class ReadFile:
    """Reads UTF-8 text from a file, a window at a time."""

    spec = ToolSpec(
        name="read_file",
        description="Read a text file of the workspace. Long files come in parts; use offset.",
        effect=Effect.READ,
        parameters=closed_schema(_ReadArguments),
        roles={"path": Role.PATH, "offset": Role.OPTION},
        labels={"": Label()},
        argument_limit_bytes=_PATH_ARGUMENTS_BYTES,
    )

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """The text, with a note where to read on when there is more. ToolError if not text."""
        asked = parse_arguments(_ReadArguments, arguments)
        data = await asyncio.to_thread(
            workspace.read_file, asked.path, _WINDOW_BYTES + 1, offset=asked.offset
        )
        more = len(data) > _WINDOW_BYTES
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            text = decoder.decode(data[:_WINDOW_BYTES], final=not more)
        except UnicodeDecodeError:
            raise ToolError("the file is not UTF-8 text from that offset") from None
        if more:
            cut, _ = (
                decoder.getstate()
            )  # the beginning of a character whose end is in the next part
            following = asked.offset + _WINDOW_BYTES - len(cut)
            text += f"\n[truncated: read on with offset {following}]"
        return text


class WriteFile:
    """Writes a whole text file."""

    spec = ToolSpec(
        name="write_file",
        description="Write a text file of the workspace, replacing it when it exists.",
        effect=Effect.WRITE,
        parameters=closed_schema(_WriteArguments),
        roles={"path": Role.PATH, "content": Role.CONTENT},
        # The one number in it is the length of what the model wrote: an echo, not a fact.
        labels={"": Label()},
        free_text=frozenset({"content"}),
        is_confined=True,
    )

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """How many bytes were written. ToolError when nothing was."""
        asked = parse_arguments(_WriteArguments, arguments)
        data = asked.content.encode()
        await asyncio.to_thread(workspace.write_file, asked.path, data)
        return f"wrote {len(data)} bytes"


class ListFiles:
    """Lists a directory."""

    spec = ToolSpec(
        name="list_files",
        description="List a directory of the workspace: kind, size in bytes and name of each.",
        effect=Effect.READ,
        parameters=closed_schema(_ListArguments),
        roles={"path": Role.PATH},
        labels={"": Label()},
        argument_limit_bytes=_PATH_ARGUMENTS_BYTES,
    )

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """One line per name: kind, size, name. Links are named, never followed."""
        asked = parse_arguments(_ListArguments, arguments)
        entries = await asyncio.to_thread(workspace.list_files, asked.path)
        if not entries:
            return "(empty)"
        return "\n".join(f"{entry.kind.value}\t{entry.size}\t{entry.name}" for entry in entries)


class SearchFiles:
    """Finds the lines of files that hold a text or match an expression."""

    spec = ToolSpec(
        name="search_files",
        description="Search text files of the workspace line by line, for a text or an RE2 regular "
        "expression. Gives path:line:text of each match.",
        effect=Effect.READ,
        parameters=closed_schema(_SearchArguments),
        roles={
            "query": Role.QUERY,
            "path": Role.PATH,
            "is_pattern": Role.OPTION,
            "ignore_case": Role.OPTION,
        },
        labels={"": Label()},
        argument_limit_bytes=_PATH_ARGUMENTS_BYTES,
    )

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """One line for each match, then what was left out. ToolError when it cannot search."""
        asked = parse_arguments(_SearchArguments, arguments)
        matcher = _matcher(asked)
        found = await asyncio.to_thread(workspace.search_files, asked.path, matcher)
        said = [f"{line.path}:{line.number}:{line.text}" for line in found.lines]
        if not said:
            said = [f"(no match in {found.files_read} files)"]
        if found.is_cut:
            said.append("[truncated: there is more; search for less or in fewer files]")
        if found.files_left_out:
            said.append(f"[not searched: {found.files_left_out} files, too large or not text]")
        return "\n".join(said)


def _matcher(asked: _SearchArguments) -> LineMatcher:
    """What looks for it. A model's pattern only ever meets an engine that cannot backtrack."""
    if not asked.is_pattern and not asked.ignore_case:
        wanted = asked.query.encode()
        return LineMatcher(finds=lambda line: wanted in line)
    body = asked.query if asked.is_pattern else quoted(asked.query)
    pattern = compiled_within(f"(?i:{body})" if asked.ignore_case else body, _PATTERN_MEMORY)
    if pattern is None:
        raise ToolError("the query is not a regular expression that RE2 takes, or is too large")
    search = pattern.search
    return LineMatcher(finds=lambda line: search(line) is not None, cost=pattern.programsize)
