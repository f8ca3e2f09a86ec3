"""What holds for every tool of the roster, present and future, whatever it does.

A new tool gets one example here. Everything else is made from what it declares: arguments that do
not fit are put to the gate, which must refuse them, and past it to the tool, which must too.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

import jsonschema
import pytest

from app import roster
from app.domain.run import Json, JsonObject
from app.domain.sandbox_mode import SandboxMode
from app.domain.step import Effect, ToolCall, ToolResult, ToolSpec
from app.domain.verdict import AuthorizedCall, Decision, Point, PolicyRef, Verdict
from app.egress.egress_client import EgressClient
from app.egress.url_blocklist import UrlBlocklist
from app.egress.url_policy import HostRules, UrlPolicy
from app.policy.gate_inputs import CallInput
from app.policy.schema_check import check_schema
from app.sandbox.runner_assembly import build_runner
from app.sandbox.sandbox_settings import SandboxSettings
from app.sandbox.tool_runner import ToolRunner
from app.sandbox.workspace import Workspace, open_workspace_root
from app.tools.http_fetch import HttpFetch
from app.tools.python_guard import load_refusals
from app.tools.python_tool import PythonTool
from app.tools.shell_guard import load_shell_refusals
from app.tools.shell_tool import ShellTool
from app.tools.tool_contract import contract_gaps
from app.tools.toolbox import Tool, Toolbox
from tests.support.egress_field import egress_field
from tests.support.escape_scene import open_directory, worker_account
from tests.support.planted_rules import allowed, facts_with, refused


def _runner() -> ToolRunner:
    """As a server assembles it."""
    asked = SandboxSettings(mode=SandboxMode.STRICT, python_engine=None)
    return build_runner(asked, account=worker_account())


def _confined(runner: ToolRunner) -> tuple[Tool, Tool]:
    """The tools that need a worker."""
    return (
        PythonTool(runner, load_refusals(None), runner.python_engine),
        ShellTool(runner, load_shell_refusals(None)),
    )


def _web(client: EgressClient) -> HttpFetch:
    return HttpFetch(client, UrlPolicy(hosts=HostRules(any_host=True), blocklist=UrlBlocklist()))


ALL = (*roster.TOOLS, *_confined(_runner()), _web(EgressClient()))
TOOLS: dict[str, Tool] = {tool.spec.name: tool for tool in ALL}
GOOD: dict[str, JsonObject] = {
    "calculator": {"expression": "6*7"},
    "current_time": {},
    "json_query": {"document": '{"a": [1]}', "query": "/a/0"},
    "read_file": {"path": "there.txt"},
    "write_file": {"path": "new.txt", "content": "text"},
    "list_files": {"path": "."},
    "search_files": {"query": "text"},
    "python": {"code": "print(6 * 7)"},
    "shell": {"command": "echo text"},
    "http_fetch": {"url": "http://www.allowed.example/page"},
}
# The rest has no use for the files of the run.
NEEDS_A_WORKSPACE = {Effect.READ, Effect.WRITE, Effect.EXECUTE}
EACH = pytest.mark.parametrize("name", sorted(TOOLS))
DECISION = Decision(
    point=Point.TOOL_CALL,
    verdict=Verdict.ALLOW,
    rules=(),
    code="",
    policy=PolicyRef(policy_id="p", version=1, digest="0" * 64),
)


@pytest.fixture
def place() -> Iterator[Path]:
    with open_directory() as base:
        yield base


@pytest.fixture
def workspace(place: Path) -> Iterator[Workspace]:
    root = open_workspace_root(place, forbidden=[], owner=worker_account())
    opened = root.for_run("a" * 32, "b" * 32)
    opened.write_file("there.txt", b"text")
    yield opened
    opened.close()
    root.close()


def _tree(place: Path) -> list[Path]:
    return sorted(place.rglob("*"))


@asynccontextmanager
async def _working(name: str) -> AsyncIterator[Toolbox]:
    """A toolbox in which this tool has all that it works with: workers, a web of its own."""
    if TOOLS[name].spec.effect is Effect.EXECUTE:
        runner = _runner()
        try:
            yield Toolbox({**TOOLS, **{tool.spec.name: tool for tool in _confined(runner)}})
        finally:
            await runner.close()
    elif name == "http_fetch":
        async with egress_field() as field:
            client = EgressClient(parts=field.parts)
            yield Toolbox({**TOOLS, "http_fetch": _web(client)})
            await client.close()
    else:
        yield Toolbox(TOOLS)


async def _run(
    toolbox: Toolbox, name: str, arguments: JsonObject, workspace: Workspace
) -> ToolResult:
    call = ToolCall(call_id="c", name=name, arguments=arguments)
    authorized = AuthorizedCall(call=call, spec=TOOLS[name].spec, decision=DECISION)
    return await toolbox.run(authorized, workspace)


def _texts(spec: ToolSpec) -> dict[str, int]:
    """Its text arguments and how long each may be."""
    properties = spec.parameters["properties"]
    assert isinstance(properties, dict)
    found: dict[str, int] = {}
    for name, schema in properties.items():
        assert isinstance(schema, dict)
        if schema["type"] == "string" and "enum" not in schema:
            most = schema["maxLength"]
            assert isinstance(most, int)
            found[name] = most
    return found


def _asked(name: str, arguments: JsonObject, calls_made: int = 0) -> CallInput:
    facts = replace(
        facts_with(), offered=(TOOLS[name].spec,), calls_made={name: calls_made, "other": 9}
    )
    return CallInput(call=ToolCall(call_id="c", name=name, arguments=arguments), facts=facts)


def _code(name: str, arguments: JsonObject) -> str:
    return refused(Point.TOOL_CALL, _asked(name, arguments))


@EACH
def test_it_keeps_the_tool_contract(name: str) -> None:
    assert list(contract_gaps(TOOLS[name].spec)) == []


@EACH
def test_its_schema_is_one_that_the_gate_can_check(name: str) -> None:
    check_schema(TOOLS[name].spec.parameters)


@EACH
def test_the_gate_takes_its_example_and_no_unknown_argument(name: str) -> None:
    assert allowed(Point.TOOL_CALL, _asked(name, GOOD[name]))
    for more in ("more", "__class__", "path ", "PATH"):
        assert _code(name, {**GOOD[name], more: "x"}) == "schema:arguments"


@EACH
def test_the_gate_refuses_every_text_that_is_longer_than_declared(name: str) -> None:
    spec = TOOLS[name].spec
    for argument, most in _texts(spec).items():
        code = _code(name, {**GOOD[name], argument: "a" * (most + 1)})
        assert code in {"schema:arguments", "schema:arguments_too_long"}, argument


@EACH
def test_the_gate_refuses_arguments_beyond_the_limit_in_bytes(name: str) -> None:
    spec = TOOLS[name].spec
    for argument in _texts(spec):
        long = {**GOOD[name], argument: "a" * spec.argument_limit_bytes}
        assert _code(name, long) == "schema:arguments_too_long", argument


@EACH
@pytest.mark.parametrize("char", ["\x00", "\u200b", "\u202e", "\u00ad", "\U000e0061", "\ud800"])
def test_the_gate_refuses_what_nobody_sees_in_any_text(name: str, char: str) -> None:
    for argument in _texts(TOOLS[name].spec):
        hidden = {**GOOD[name], argument: f"a{char}b"}
        assert _code(name, hidden) == "schema:invisible_characters", argument


@EACH
def test_the_gate_refuses_disguised_letters_but_in_free_text(name: str) -> None:
    spec = TOOLS[name].spec
    for argument in _texts(spec):
        disguised = _asked(name, {**GOOD[name], argument: "\uff41"})
        if argument in spec.free_text:
            assert allowed(Point.TOOL_CALL, disguised)
        else:
            assert refused(Point.TOOL_CALL, disguised) == "schema:not_canonical"


@EACH
def test_the_gate_lets_it_run_as_often_as_it_says_and_no_more(name: str) -> None:
    most = TOOLS[name].spec.max_calls
    assert allowed(Point.TOOL_CALL, _asked(name, GOOD[name], most - 1))
    assert refused(Point.TOOL_CALL, _asked(name, GOOD[name], most)) == "budget:calls"


@EACH
def test_what_it_calls_free_text_is_a_text_argument_of_its_own(name: str) -> None:
    spec = TOOLS[name].spec
    properties = spec.parameters["properties"]
    assert isinstance(properties, dict)
    for argument in spec.free_text:
        declared = properties[argument]
        assert isinstance(declared, dict)
        assert declared["type"] == "string"


def test_only_what_is_kept_or_looked_into_as_it_is_is_free_text() -> None:
    free = {(name, argument) for name, tool in TOOLS.items() for argument in tool.spec.free_text}
    assert free == {
        ("write_file", "content"),
        ("json_query", "document"),
        ("python", "code"),
        ("shell", "command"),
    }


def test_the_roster_has_an_example_for_every_tool() -> None:
    assert set(GOOD) == set(TOOLS)
    assert {name: tool.spec.effect for name, tool in TOOLS.items()} == {
        "calculator": Effect.NONE,
        "current_time": Effect.NONE,
        "json_query": Effect.NONE,
        "read_file": Effect.READ,
        "write_file": Effect.WRITE,
        "list_files": Effect.READ,
        "search_files": Effect.READ,
        "python": Effect.EXECUTE,
        "shell": Effect.EXECUTE,
        "http_fetch": Effect.NETWORK,
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
    assert 0 < spec.argument_limit_bytes <= 256 * 1024
    assert 0 < spec.max_calls <= 10_000
    assert name == name.lower().strip()
    assert spec.description


@EACH
@pytest.mark.anyio
async def test_the_example_works(name: str, workspace: Workspace) -> None:
    async with _working(name) as toolbox:
        result = await _run(toolbox, name, GOOD[name], workspace)
    assert (result.is_error, bool(result.content)) == (False, True), result


@EACH
@pytest.mark.anyio
async def test_arguments_that_do_not_fit_are_refused_without_effect(
    name: str, workspace: Workspace, place: Path
) -> None:
    good = GOOD[name]
    bad: list[JsonObject] = [{**good, "more": "x"}]
    for field in list(good)[:1]:
        most = _texts(TOOLS[name].spec)[field]
        unfit: list[Json] = [5, None, ["."], {"path": "."}, True, "\ud800", "x" * (most + 1)]
        bad += [{**good, field: value} for value in unfit]
        if name != "list_files":  # its only argument has a default
            bad.append({word: value for word, value in good.items() if word != field})
    before = _tree(place)
    async with _working(name) as toolbox:
        for arguments in bad:
            result = await _run(toolbox, name, arguments, workspace)
            assert result.is_error, arguments
            assert result.content.startswith("the arguments are not acceptable"), arguments
            assert "xxxxx" not in result.content
            assert len(result.content) < 1000
    assert _tree(place) == before


@EACH
@pytest.mark.anyio
async def test_it_never_shows_a_host_path(name: str, workspace: Workspace, place: Path) -> None:
    hostile = ["..", "/", "there.txt/x", "missing", ".", "a\0b", "x/" * 500, "~", ""]
    secrets = [str(place), place.name, "a" * 32, "b" * 32, str(Path(__file__).parents[3])]
    if TOOLS[name].spec.effect is not Effect.EXECUTE:
        # Elsewhere these are the program's own words, and what it was given is no news to it.
        hostile.append(str(place))
        secrets += ["Traceback", "Errno"]
    async with _working(name) as toolbox:
        for field, text in product(list(GOOD[name])[:1], hostile):
            result = await _run(toolbox, name, {**GOOD[name], field: text}, workspace)
            for secret in secrets:
                assert secret not in result.content, (text, result.content)


@EACH
@pytest.mark.anyio
async def test_it_fails_in_plain_words_when_the_workspace_is_closed(
    name: str, workspace: Workspace
) -> None:
    workspace.close()
    async with _working(name) as toolbox:
        result = await _run(toolbox, name, GOOD[name], workspace)
    needs_it = TOOLS[name].spec.effect in NEEDS_A_WORKSPACE
    assert (result.is_error, result.content == "the workspace is closed") == (needs_it, needs_it)


@pytest.mark.parametrize("name", sorted(name for name, good in GOOD.items() if good))
@pytest.mark.anyio
async def test_it_leaves_the_event_loop_free(name: str, workspace: Workspace) -> None:
    # The first turn of the loop belongs to others: a tool that blocks would be done before.
    order: list[str] = []

    async def other() -> None:
        order.append("other")

    async with _working(name) as toolbox:

        async def tool() -> None:
            await _run(toolbox, name, GOOD[name], workspace)
            order.append("tool")

        await asyncio.gather(tool(), other())
    assert order == ["other", "tool"]


# Deeper than any workspace may be: no matter of time, as a number of names is.
_DEEP = "/".join("d" * 40)
_FLOODS: dict[str, JsonObject] = {
    "python": {"code": f"import os\nos.makedirs('{_DEEP}')"},
    "shell": {"command": f"mkdir -p {_DEEP}"},
}


@pytest.mark.parametrize("name", sorted(_FLOODS))
@pytest.mark.anyio
async def test_a_flooded_workspace_is_taken_away_and_an_empty_one_is_in_its_place(
    name: str, workspace: Workspace, place: Path
) -> None:
    """Another directory stands there: nobody waited for the flood to be taken apart."""
    run_directory = place / ("a" * 32) / ("b" * 32)
    before = run_directory.stat().st_ino
    async with _working(name) as toolbox:
        result = await _run(toolbox, name, _FLOODS[name], workspace)
    assert "held more than its quota and was emptied" in result.content
    assert run_directory.stat().st_ino != before
    assert workspace.list_files(".") == ()
    workspace.write_file("after.txt", b"x")
    assert [path.name for path in run_directory.iterdir()] == ["after.txt"]


def test_every_tool_that_runs_programs_is_flooded() -> None:
    execute = {name for name, tool in TOOLS.items() if tool.spec.effect is Effect.EXECUTE}
    assert execute == set(_FLOODS)
