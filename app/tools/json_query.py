"""A question to a JSON text, answered without running anything: a pointer or a path.

Threat: Privilege escalation via tool calls
"""

import asyncio
import json

from pydantic import Field

from app.domain.errors import ToolError
from app.domain.label import Label
from app.domain.run import Json, JsonObject
from app.domain.step import Effect, Role, ToolSpec
from app.sandbox.workspace import Workspace
from app.tools.json_path import Scene, StepMeter, at_pointer, nodes
from app.tools.json_path_text import MAX_CHARS, read_json_path
from app.tools.toolbox import ClosedArguments, closed_schema, parse_arguments

MAX_DOCUMENT_CHARS = 200_000
MAX_DOCUMENT_DEPTH = 64
MAX_FOUND = 1000
_RESULT_BYTES = 48 * 1024


def query_json(document: str, query: str) -> str:
    """What a pointer or path finds, as JSON: one value, or a list of all. ToolError.

    Pure. Its work is bounded by the document's size, its depth, and the nodes that are looked at.
    """
    value = _parsed(document)
    if not query.startswith("$"):
        return _shown([at_pointer(value, query)])[0]
    scene = Scene(value, StepMeter())
    found = nodes(read_json_path(query), value, scene)
    shown = _shown(found[:MAX_FOUND])
    note = "" if len(shown) == len(found) else f"\n[truncated: {len(shown)} of {len(found)}]"
    return "[" + ", ".join(shown) + "]" + note


def _parsed(document: str) -> Json:
    """The value, read as every reader would. ToolError for anything else."""
    try:
        value: Json = json.loads(document, object_pairs_hook=_distinct, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ToolError("the document is nested too deeply") from None
    except ValueError:
        raise ToolError("the document is not JSON, or not such as every reader reads") from None
    level = [value]
    for _ in range(MAX_DOCUMENT_DEPTH):
        level = [child for node in level for child in _below(node)]
        if not level:
            return value
    raise ToolError("the document is nested too deeply")


def _below(node: Json) -> list[Json]:
    match node:
        case dict():
            return list(node.values())
        case list():
            return node
        case _:
            return []


def _distinct(pairs: list[tuple[str, Json]]) -> JsonObject:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name twice")
    return made


def _no_constant(name: str) -> Json:
    raise ValueError(name)


def _shown(found: list[Json]) -> list[str]:
    """As many values as fit, each as JSON; the first always."""
    shown: list[str] = []
    size = 0
    for value in found:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size += len(text.encode()) + 2
        if shown and size > _RESULT_BYTES:
            break
        shown.append(text)
    return shown


class _JsonQueryArguments(ClosedArguments):
    document: str = Field(max_length=MAX_DOCUMENT_CHARS, description="The JSON text to look in")
    query: str = Field(
        max_length=MAX_CHARS,
        description="A JSON pointer such as /items/0/name, or a JSONPath such as "
        "$.items[?@.price > 10].name (RFC 9535, without functions)",
    )


class JsonQuery:
    """Finds parts of a JSON text; touches nothing."""

    spec = ToolSpec(
        name="json_query",
        description="Find parts of a JSON text by JSON pointer (gives that value) or JSONPath "
        "(gives a JSON array of all values found).",
        effect=Effect.NONE,
        parameters=closed_schema(_JsonQueryArguments),
        roles={"document": Role.CONTENT, "query": Role.QUERY},
        # A part of a text is no more trusted than whoever brought the text.
        labels={"": Label()},
        free_text=frozenset({"document"}),
        timeout_seconds=5.0,
    )

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """What was found, as JSON. ToolError when the text or the query is refused."""
        del workspace  # it needs none
        asked = parse_arguments(_JsonQueryArguments, arguments)
        return await asyncio.to_thread(query_json, asked.document, asked.query)
