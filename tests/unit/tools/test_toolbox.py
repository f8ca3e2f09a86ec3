"""The toolbox runs only what was authorized and turns every outcome into a bounded result."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.domain.errors import ConfigurationError, ToolError
from app.domain.label import Integrity, Label
from app.domain.run import JsonObject
from app.domain.step import Effect, Role, ToolCall, ToolResult, ToolSpec
from app.domain.verdict import AuthorizedCall, Decision, Point, PolicyRef, Verdict
from app.sandbox.workspace import Workspace, open_workspace_root
from app.tools.toolbox import Toolbox

CLOSED: JsonObject = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 10}},
    "required": ["text"],
    "additionalProperties": False,
}
SPEC = ToolSpec(
    name="probe",
    description="says what it is told to",
    effect=Effect.NONE,
    parameters=CLOSED,
    roles={"text": Role.QUERY},
    labels={"": Label()},
    result_limit_bytes=60,
    timeout_seconds=30.0,
)
ALLOWED = Decision(
    point=Point.TOOL_CALL,
    verdict=Verdict.ALLOW,
    rules=(),
    code="",
    policy=PolicyRef(policy_id="p", version=1, digest="0" * 64),
)


class Probe:
    """A tool that answers or raises what the test says, and remembers that it ran."""

    def __init__(self, answer: str | BaseException = "fine", spec: ToolSpec = SPEC) -> None:
        self.spec = spec
        self.answer = answer
        self.ran = 0

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        del arguments, workspace
        self.ran += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


class Sleeper:
    """A tool that never ends by itself."""

    def __init__(self, effect: Effect) -> None:
        self.spec = replace(SPEC, effect=effect, timeout_seconds=0.02, result_limit_bytes=1000)

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        del arguments, workspace
        await asyncio.Event().wait()
        return "never"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    root = open_workspace_root(tmp_path, forbidden=[])
    opened = root.for_run("a" * 32, "b" * 32)
    yield opened
    opened.close()
    root.close()


def _authorized(spec: ToolSpec = SPEC, decision: Decision = ALLOWED) -> AuthorizedCall:
    call = ToolCall(call_id="c1", name=spec.name, arguments={"text": "x"})
    return AuthorizedCall(call=call, spec=spec, decision=decision)


async def _run(probe: Probe, workspace: Workspace) -> ToolResult:
    return await Toolbox({probe.spec.name: probe}).run(_authorized(probe.spec), workspace)


@pytest.mark.anyio
async def test_an_authorized_call_gives_the_tools_answer(workspace: Workspace) -> None:
    result = await _run(Probe("fine"), workspace)
    assert result == ToolResult(call_id="c1", name="probe", content="fine", is_error=False)


@pytest.mark.anyio
async def test_a_tool_that_is_not_there_is_an_error(workspace: Workspace) -> None:
    result = await Toolbox({}).run(_authorized(), workspace)
    assert (result.is_error, result.content) == (True, "this tool is not available")


@pytest.mark.anyio
async def test_a_proof_for_another_spec_or_another_verdict_runs_nothing(
    workspace: Workspace,
) -> None:
    probe = Probe()
    box = Toolbox({"probe": probe})
    call = _authorized().call
    for forged in (
        _authorized(replace(SPEC, effect=Effect.WRITE)),
        _authorized(replace(SPEC, timeout_seconds=9e9)),
        _authorized(replace(SPEC, labels={"": Label(integrity=Integrity.TOOL)})),
        _authorized(decision=replace(ALLOWED, verdict=Verdict.DENY)),
        _authorized(decision=replace(ALLOWED, point=Point.LLM_REQUEST)),
        AuthorizedCall(
            call=replace(call, name="other"), spec=replace(SPEC, name="other"), decision=ALLOWED
        ),
        AuthorizedCall(call=call, spec=replace(SPEC, name="other"), decision=ALLOWED),
    ):
        result = await box.run(forged, workspace)
        assert (result.is_error, result.content) == (True, "this tool is not available")
    assert probe.ran == 0


@pytest.mark.anyio
async def test_a_tool_error_is_told_and_an_unexpected_one_is_not(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    told = await _run(Probe(ToolError("no such file")), workspace)
    assert (told.is_error, told.content) == (True, "no such file")
    assert caplog.records == []
    with caplog.at_level(logging.DEBUG):
        hidden = await _run(Probe(RuntimeError("/srv/secret/path and an argument")), workspace)
    assert (hidden.is_error, hidden.content) == (True, "the tool failed")
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    assert all(record.exc_info is None for record in caplog.records)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "failure",
    [
        OSError(2, "No such file", "/srv/host"),
        TimeoutError("/srv"),
        RecursionError(),
        MemoryError(),
        ExceptionGroup("/srv", [ValueError("/srv")]),
        AssertionError("/srv"),
    ],
)
async def test_whatever_a_tool_raises_becomes_the_same_words(
    workspace: Workspace, failure: Exception
) -> None:
    assert (await _run(Probe(failure), workspace)).content == "the tool failed"


@pytest.mark.anyio
async def test_cancelling_the_caller_is_not_swallowed(workspace: Workspace) -> None:
    sleeper = Sleeper(Effect.NONE)
    sleeper.spec = replace(sleeper.spec, timeout_seconds=60.0)
    box = Toolbox({"probe": sleeper})
    task = asyncio.create_task(box.run(_authorized(sleeper.spec), workspace))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.anyio
async def test_a_tool_that_does_not_end_is_ended_and_says_whether_it_may_still_act(
    workspace: Workspace,
) -> None:
    for effect, tail in [(Effect.READ, "0.02 s"), (Effect.WRITE, "may still take effect")]:
        sleeper = Sleeper(effect)
        result = await Toolbox({"probe": sleeper}).run(_authorized(sleeper.spec), workspace)
        assert result.is_error
        assert result.content.startswith("the tool did not finish")
        assert result.content.endswith(tail)


@pytest.mark.anyio
@pytest.mark.parametrize("letter", ["x", "é", "€", "𝄞"])
@pytest.mark.parametrize("shift", range(4))
async def test_a_long_answer_is_cut_between_characters_and_says_so(
    workspace: Workspace, letter: str, shift: int
) -> None:
    for outcome in ("a" * shift + letter * 100, ToolError("a" * shift + letter * 100)):
        result = await _run(Probe(outcome), workspace)
        assert result.content.endswith("[truncated]")
        assert 60 - 4 < len(result.content.encode()) <= 60
        assert result.content.startswith("a" * shift + letter)


@pytest.mark.anyio
async def test_an_answer_of_just_the_limit_is_whole(workspace: Workspace) -> None:
    assert (await _run(Probe("é" * 30), workspace)).content == "é" * 30


@pytest.mark.anyio
async def test_a_limit_smaller_than_the_note_still_holds(workspace: Workspace) -> None:
    probe = Probe("x" * 100, spec=replace(SPEC, result_limit_bytes=5))
    assert len((await _run(probe, workspace)).content) == 5


@pytest.mark.anyio
async def test_control_characters_are_taken_out_but_newline_and_tab(workspace: Workspace) -> None:
    every = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)])) + "\ud800é"
    for outcome in (every, ToolError(every)):
        assert (await _run(Probe(outcome), workspace)).content == "\t\né"


def test_specs_are_told_in_order() -> None:
    second = replace(SPEC, name="second")
    assert Toolbox({"probe": Probe(), "second": Probe(spec=second)}).specs == (SPEC, second)


def test_a_tool_under_another_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="calls itself"):
        Toolbox({"other": Probe()})


def test_a_tool_that_breaks_the_contract_is_refused() -> None:
    for spec in (replace(SPEC, parameters={"type": "object"}), replace(SPEC, roles={})):
        with pytest.raises(ConfigurationError, match="the tool 'probe' does not keep"):
            Toolbox({"probe": Probe(spec=spec)})
