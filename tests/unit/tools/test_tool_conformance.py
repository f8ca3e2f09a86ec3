"""What holds for every built-in tool, whatever it does."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from app.domain.run import JsonObject
from app.domain.step import Effect, ToolCall, ToolResult
from app.domain.verdict import AuthorizedCall, Decision, Point, PolicyRef, Verdict
from app.sandbox.workspace import Workspace, open_workspace_root
from app.tools.calculator import Calculator
from app.tools.files import ListFiles, ReadFile, WriteFile
from app.tools.toolbox import Tool, Toolbox

TOOLS: dict[str, Tool] = {
    tool.spec.name: tool for tool in (Calculator(), ReadFile(), WriteFile(), ListFiles())
}
GOOD: dict[str, JsonObject] = {
    "calculator": {"expression": "6*7"},
    "read_file": {"path": "there.txt"},
    "write_file": {"path": "new.txt", "content": "text"},
    "list_files": {"path": "."},
}
EACH = pytest.mark.parametrize("name", sorted(TOOLS))
DECISION = Decision(
    point=Point.TOOL_CALL,
    verdict=Verdict.ALLOW,
    rules=(),
    code="",
    policy=PolicyRef(policy_id="p", version=1, digest="0" * 64),
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    root = open_workspace_root(tmp_path, forbidden=[])
    opened = root.for_run("a" * 32, "b" * 32)
    opened.write_file("there.txt", b"text")
    yield opened
    opened.close()
    root.close()


def _tree(place: Path) -> list[Path]:
    return sorted(place.rglob("*"))


async def _run(name: str, arguments: JsonObject, workspace: Workspace) -> ToolResult:
    call = ToolCall(call_id="c", name=name, arguments=arguments)
    authorized = AuthorizedCall(call=call, spec=TOOLS[name].spec, decision=DECISION)
    return await Toolbox(TOOLS).run(authorized, workspace)


@EACH
def test_what_it_calls_free_text_is_a_text_argument_of_its_own(name: str) -> None:
    spec = TOOLS[name].spec
    properties = spec.parameters["properties"]
    assert isinstance(properties, dict)
    for argument in spec.free_text:
        declared = properties[argument]
        assert isinstance(declared, dict)
        assert declared["type"] == "string"


def test_only_what_is_written_into_a_file_is_free_text() -> None:
    free = {(name, argument) for name, tool in TOOLS.items() for argument in tool.spec.free_text}
    assert free == {("write_file", "content")}


def test_the_roster_has_an_example_for_every_tool() -> None:
    assert set(GOOD) == set(TOOLS)
    assert {name: tool.spec.effect for name, tool in TOOLS.items()} == {
        "calculator": Effect.NONE,
        "read_file": Effect.READ,
        "write_file": Effect.WRITE,
        "list_files": Effect.READ,
    }


@EACH
def test_its_schema_is_valid_and_takes_the_example(name: str) -> None:
    schema = TOOLS[name].spec.parameters
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(GOOD[name], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**GOOD[name], "more": 1}, schema)


@EACH
def test_its_limits_are_finite_and_its_name_is_in_the_one_form(name: str) -> None:
    spec = TOOLS[name].spec
    assert 0 < spec.timeout_seconds <= 60
    assert 0 < spec.result_limit_bytes <= 1024 * 1024
    assert re.fullmatch(r"[a-z0-9_.-]{1,64}", name)
    assert spec.description


@EACH
@pytest.mark.anyio
async def test_the_example_works(name: str, workspace: Workspace) -> None:
    result = await _run(name, GOOD[name], workspace)
    assert (result.is_error, bool(result.content)) == (False, True)


@EACH
@pytest.mark.anyio
async def test_arguments_that_do_not_fit_are_refused_without_effect(
    name: str, workspace: Workspace, tmp_path: Path
) -> None:
    good = GOOD[name]
    field = next(iter(good))
    missing = {word: value for word, value in good.items() if word != field}
    bad: list[JsonObject] = [
        {**good, "more": "x"},
        {**good, field: 5},
        {**good, field: None},
        {**good, field: ["."]},
        {**good, field: {"path": "."}},
        {**good, field: True},
        {**good, field: "\ud800"},
        {**good, field: "x" * 5000},
    ]
    if name != "list_files":  # its only argument has a default
        bad.append(missing)
    before = _tree(tmp_path)
    for arguments in bad:
        result = await _run(name, arguments, workspace)
        assert result.is_error, arguments
        assert result.content.startswith("the arguments are not acceptable"), arguments
        assert "xxxxx" not in result.content
        assert len(result.content) < 1000
    assert _tree(tmp_path) == before


@EACH
@pytest.mark.anyio
async def test_it_never_shows_a_host_path(name: str, workspace: Workspace, tmp_path: Path) -> None:
    field = next(iter(GOOD[name]))
    hostile = ["..", "/", str(tmp_path), "there.txt/x", "missing", ".", "a\0b", "x/" * 500, "~", ""]
    for text in hostile:
        result = await _run(name, {**GOOD[name], field: text}, workspace)
        for secret in (str(tmp_path), tmp_path.name, "a" * 32, "b" * 32, "Traceback", "Errno"):
            assert secret not in result.content, (text, result.content)


@EACH
@pytest.mark.anyio
async def test_it_fails_in_plain_words_when_the_workspace_is_closed(
    name: str, workspace: Workspace
) -> None:
    workspace.close()
    result = await _run(name, GOOD[name], workspace)
    assert result.is_error == (name != "calculator")
    assert result.content in ("42", "the workspace is closed")


@EACH
@pytest.mark.anyio
async def test_it_leaves_the_event_loop_free(name: str, workspace: Workspace) -> None:
    # The first turn of the loop belongs to others: a tool that blocks would be done before.
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async def tool() -> None:
        await _run(name, GOOD[name], workspace)
        order.append("tool")

    await asyncio.gather(tool(), other())
    assert order == ["other", "tool"]
