"""The loop by itself: it acts only on what is recorded, and never beyond the run's budget."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import roster
from app.agents.loop import AgentLoop
from app.agents.loop_parts import LoopParts
from app.agents.model_retry import RetryParts
from app.agents.progress import NOTHING_YET, Progress
from app.domain.errors import LedgerUnavailableError
from app.domain.record import (
    ModelRequested,
    ModelResponded,
    RunEvent,
    RunFinished,
    ToolDecided,
    ToolFinished,
)
from app.domain.run import Budget, JsonObject, RunStatus, Submission, Usage
from app.domain.step import ModelReply, ModelRequest, StopReason, ToolCall
from app.domain.verdict import AdmittedTask, Point, Verdict
from app.policy.gate import DascGate
from app.policy.gate_inputs import SubmitInput
from app.providers.prices import ModelPrice, model_named, usage_of
from app.providers.provider import ModelProvider
from app.providers.scripted import Scripted, ScriptedProvider
from app.sandbox.workspace import Workspace, open_workspace_root
from app.tools.calculator import Calculator
from app.tools.toolbox import Toolbox
from tests.support.planted_rules import NAMES, planted, reply_of, task_of

PRICE = model_named("scripted")
WRITES = ToolCall(call_id="c1", name="write_file", arguments={"path": "a", "content": "x"})


class ListJournal:
    """A ledger that is a list. It refuses the record after `room` of them."""

    def __init__(self, room: int = 10_000) -> None:
        self._room = room
        self._held: list[RunEvent] = []
        self.events: list[RunEvent] = []
        self.spent: list[Usage] = []
        self.asked: list[tuple[str, bytes, int]] = []

    def hold(self, event: RunEvent) -> None:
        self._held.append(event)

    def ask(self, tool: str, action: bytes, expires_seconds: int) -> None:
        self.asked.append((tool, action, expires_seconds))

    def digest(self, action: bytes) -> bytes:
        return action[:1] + b"digest"

    async def record(self, event: RunEvent, usage: Usage) -> int:
        if len(self.spent) >= self._room:
            raise LedgerUnavailableError("no room")
        self.events += [*self._held, event]
        self._held.clear()
        self.spent.append(usage)
        return len(self.events) - 1

    def of(self, kind: type[RunEvent]) -> list[RunEvent]:
        return [event for event in self.events if type(event) is kind]

    @property
    def end(self) -> RunFinished:
        last = self.events[-1]
        assert isinstance(last, RunFinished)
        return last


def no_workspace() -> Workspace:
    raise AssertionError("no tool was to run")


class Files:
    """A workspace that nobody keeps; how often somebody was asked to."""

    def __init__(self, opened: Callable[[], Workspace]) -> None:
        self._opened = opened
        self.kept = 0

    async def workspace(self) -> Workspace:
        return self._opened()

    async def keep(self) -> None:
        self.kept += 1


def driven(
    provider: ModelProvider,
    journal: ListJournal,
    task: Submission,
    *,
    gate: DascGate | None = None,
    workspace: Any = no_workspace,
    toolbox: Toolbox | None = None,
    platform: frozenset[str] = frozenset(NAMES),
    retry: RetryParts | None = None,
    price: ModelPrice | None = PRICE,
    since: Progress = NOTHING_YET,
) -> AgentLoop:
    deciding = gate or DascGate(roster.rule_book())
    admitted = deciding.run_submit(SubmitInput(submission=task, platform_tools=platform))
    assert isinstance(admitted, AdmittedTask)
    assert price is not None
    parts = LoopParts(
        gate=deciding,
        provider=provider,
        price=price,
        toolbox=toolbox or Toolbox({tool.spec.name: tool for tool in roster.TOOLS}),
        files=Files(workspace),
        journal=journal,
        monotonic=lambda: 0.0,
        model_timeout_seconds=5,
        retry=retry or RetryParts(jitter=lambda: 0.5),
    )
    return AgentLoop(admitted, parts, may_instruct=True, since=since)


@pytest.mark.anyio
async def test_every_act_is_recorded_before_it_and_again_after_it(tmp_path: Path) -> None:
    root = open_workspace_root(tmp_path, forbidden=())
    workspace = root.for_run("0" * 32, "1" * 32)
    journal, at_request = ListJournal(), list[int]()

    async def look(_request: ModelRequest) -> None:
        at_request.append(len(journal.events))
        assert isinstance(journal.events[-1], ModelRequested)

    provider = ScriptedProvider([reply_of("", (WRITES,)), reply_of("done")], before_reply=look)
    await driven(provider, journal, task_of(), workspace=lambda: workspace).run()
    kinds = [type(event) for event in journal.events]
    assert kinds == [
        ModelRequested,
        ModelResponded,
        ToolDecided,
        ToolFinished,
        ModelRequested,
        ModelResponded,
        RunFinished,
    ]
    assert at_request == [1, 5]
    intents = [e.intent for e in journal.events if isinstance(e, ModelResponded | ToolFinished)]
    assert intents == [0, 2, 4]
    assert (tmp_path / ("0" * 32) / ("1" * 32) / "a").read_text() == "x"
    workspace.close()
    root.close()


@pytest.mark.anyio
@pytest.mark.parametrize("room", [0, 1, 2])
async def test_what_cannot_be_recorded_is_not_done(room: int) -> None:
    journal = ListJournal(room)
    opened: list[int] = []

    def workspace() -> Workspace:
        opened.append(1)
        raise AssertionError("reached the tool")

    provider = ScriptedProvider([reply_of("", (WRITES,)), reply_of("done")])
    expected = LedgerUnavailableError if room < 2 else AssertionError
    with pytest.raises(expected):
        await driven(provider, journal, task_of(), workspace=workspace).run()
    # The first record clears the model call, the second the tool call.
    assert len(provider.requests) == min(room, 1)
    assert len(opened) == (room == 2)


@pytest.mark.anyio
@pytest.mark.parametrize("stop", [StopReason.REFUSAL, StopReason.MAX_TOKENS])
@pytest.mark.parametrize("calls", [(), (WRITES,)])
async def test_a_reply_that_is_no_answer_fails_the_run_and_none_of_its_calls_is_made(
    stop: StopReason, calls: tuple[ToolCall, ...]
) -> None:
    journal = ListJournal()
    reply = replace(reply_of("half", calls), stop_reason=stop)
    await driven(ScriptedProvider([reply]), journal, task_of()).run()
    assert journal.end.status is RunStatus.FAILED
    assert journal.end.output is None
    assert journal.of(ToolDecided) == []


class SaysNothing:
    rule_id = "planted.no"

    def judge(self, _subject: object) -> str | None:
        return "planted:no"


@pytest.mark.anyio
async def test_a_refusal_is_held_and_recorded_with_what_comes_next() -> None:
    journal = ListJournal()
    provider = ScriptedProvider([reply_of("", (WRITES,)), reply_of("done")])
    gate = DascGate(planted(Point.TOOL_CALL, SaysNothing()))
    await driven(provider, journal, task_of(), gate=gate).run()
    (decided,) = journal.of(ToolDecided)
    assert isinstance(decided, ToolDecided)
    assert decided.decision.verdict is Verdict.DENY
    assert journal.events.index(decided) < len(journal.events) - 1
    assert journal.of(ToolFinished) == []
    assert journal.end.status is RunStatus.SUCCEEDED


budgets = st.builds(
    Budget,
    max_steps=st.integers(1, 6),
    max_tokens=st.integers(1, 20_000),
    max_cost_micros=st.integers(0, 200_000),
    max_wall_seconds=st.just(60),
)
shares = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8)


class WithinReserve:
    """Uses some share of what each call reserved: input as estimated, output as allowed."""

    def __init__(self, share: tuple[float, float]) -> None:
        self._share = share

    def __call__(self, request: ModelRequest) -> ModelReply:
        assert PRICE is not None
        # At least three bytes a token, so what the loop reserves for the prompt is never less.
        size = len(request.system) + sum(len(str(message)) // 9 for message in request.messages)
        usage = usage_of(
            PRICE,
            input_tokens=int(self._share[0] * (size // 3)),
            output_tokens=int(self._share[1] * request.max_output_tokens),
        )
        call = ToolCall(call_id="c", name="calculator", arguments={"expression": "1+1"})
        return ModelReply(text="", calls=(call,), stop_reason=StopReason.TOOL_USE, usage=usage)


@settings(max_examples=150, deadline=None)
@given(budgets, shares)
def test_no_run_spends_more_than_its_budget(
    budget: Budget, used: Sequence[tuple[float, float]]
) -> None:
    journal = ListJournal()
    replies: list[Scripted] = [WithinReserve(share) for share in used]
    task = task_of(budget=budget, tools=("calculator",))
    loop = driven(
        ScriptedProvider(replies),
        journal,
        task,
        workspace=lambda: _NO_FILES,  # not used by sums
    )
    asyncio.run(loop.run())
    for spent in (*journal.spent, loop.spent):
        assert spent.cost_micros <= budget.max_cost_micros
        assert spent.input_tokens + spent.output_tokens <= budget.max_tokens
        assert spent.steps <= budget.max_steps
    assert journal.end.status in {RunStatus.BLOCKED, RunStatus.FAILED}
    assert loop.spent.steps == len(
        [e for e in journal.events if isinstance(e, ModelResponded) and e.reply is not None]
    )


_NO_FILES: Any = None


class SeldomTool:
    """A tool that may run twice in a run."""

    spec = replace(Calculator.spec, max_calls=2)

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        del arguments, workspace
        return "42"


@pytest.mark.anyio
async def test_a_tool_runs_no_more_often_in_a_run_than_it_declares() -> None:
    sums = tuple(
        ToolCall(call_id=f"c{n}", name="calculator", arguments={"expression": "1"})
        for n in range(3)
    )
    journal = ListJournal()
    provider = ScriptedProvider([reply_of("", sums[:1]), reply_of("", sums[1:]), reply_of("done")])
    await driven(
        provider,
        journal,
        task_of(tools=("calculator",)),
        workspace=lambda: None,
        toolbox=Toolbox({"calculator": SeldomTool()}),
    ).run()
    decided = [event.decision.code for event in journal.events if isinstance(event, ToolDecided)]
    assert decided == ["allow", "allow", "budget:calls"]
    assert len(journal.of(ToolFinished)) == 2
