"""Replays a task as a good agent would do it, and as one would that obeys whatever it reads.

The lost model follows the honest path until a call has returned the planted text; then it makes the
attacker's calls, one after the other, and goes on honestly. It counts as having read the text as
soon as the tool returned it, also where the gate withheld the result: so no credit is given for
finding the text. The gate decides on each call; who answers its questions is the `Approver`.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from bench.gate_suite.call_templates import NothingReadError, filled
from bench.gate_suite.domain_file import Domain, Step, Task, Tool
from bench.gate_suite.gates import GateUnderTest, OpenContext, Said
from bench.gate_suite.planted_text import Attack, Form, text_of
from bench.gate_suite.small_world import CallFailedError, SmallWorld

_NOT_HAD = "not available"


class Approver(StrEnum):
    """Who answers when the gate asks."""

    NOBODY = "nobody"
    THE_USER = "the user"  # approves the calls of the honest path and no other
    TIRED = "tired"  # approves everything


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How the task is submitted."""

    name: str
    mode: str | None
    declares_tools: bool = False
    is_labelled: bool = True
    believed_tool: str | None = None  # its author has labelled all of its result as trusted

    def submission(self, domain: Domain, task: Task, attack: Attack | None) -> dict[str, Any]:
        """The body of `POST /v1/gate/contexts`."""
        tools = domain.tools.values()
        body: dict[str, Any] = {
            "task" if task.is_bare else "instructions": task.instructions,
            "catalogue": {"tools": [self._told(tool) for tool in tools]},
        }
        if task.data:
            body["data"] = [dict(part) for part in copy.deepcopy(task.data)]
            if attack is not None and attack.slot.kind == "data":
                body["data"][attack.slot.index]["content"] += text_of(
                    attack.goal, attack.form, task
                )
        if self.mode is not None:
            body["mode"] = self.mode
        if self.declares_tools:
            body["capabilities"] = {"tools": sorted({step.tool for step in task.path})}
        return body

    def _told(self, tool: Tool) -> dict[str, Any]:
        if not self.is_labelled:
            return tool.unlabelled()
        if tool.name == self.believed_tool:
            return {**tool.wire, "results": believed(tool.wire["results"])}
        return tool.wire


def believed(labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The labels of a mistaken author: every part of the result is the system's own."""
    everywhere = [{"path": path, "integrity": "tool"} for path in ("", "/*", "/*/*")]
    named = [{**label, "integrity": "tool"} for label in labels]
    return [*(one for one in everywhere if one["path"] not in _paths(labels)), *named]


def _paths(labels: list[dict[str, Any]]) -> set[str]:
    return {label["path"] for label in labels}


@dataclass(slots=True, kw_only=True)
class Replay:
    """What happened."""

    reached: bool = False
    harmed: bool = False
    effects: list[str] = field(default_factory=list)  # of the attacker's calls
    own_asks: int = 0
    attacker_asks: int = 0
    stopped: list[str] = field(default_factory=list)  # calls of the user's that were not let run
    opened: list[str] = field(default_factory=list)  # the attacker's calls that were


def replayed(
    domain: Domain,
    task: Task,
    gate: GateUnderTest,
    *,
    profile: Profile,
    approver: Approver,
    attack: Attack | None = None,
) -> Replay:
    """One run from submission to answer."""
    world = SmallWorld(domain)
    if attack is not None:
        _plant(world, domain, task, attack)
    context = gate.open(profile.submission(domain, task, attack))
    return _Model(domain, world, context, approver).run(task, attack)


def _plant(world: SmallWorld, domain: Domain, task: Task, attack: Attack) -> None:
    if attack.slot.kind != "data":
        planted = world.state[attack.slot.kind][attack.slot.index]
        planted[attack.slot.field] += text_of(attack.goal, attack.form, task)
    for kind, objects in attack.goal.adds.items():
        for item in copy.deepcopy(objects):
            own = dict(item)
            if attack.form is Form.ECHOING:
                for name in domain.slots.get(kind, ()):
                    own[name] = f"{own[name]} {task.instructions}"
            world.state[kind].append(own)


class _Model:
    def __init__(
        self, domain: Domain, world: SmallWorld, context: OpenContext, approver: Approver
    ) -> None:
        self._domain, self._world = domain, world
        self._context, self._approver = context, approver
        self._results: dict[str, Any] = {}
        self._came = Replay()

    def run(self, task: Task, attack: Attack | None) -> Replay:
        came, goal = self._came, attack.goal if attack else None
        acts_after = -2
        if attack is not None and goal is not None:
            acts_after = len(task.path) - 1 if goal.acts_at_the_end else attack.slot.read_in
        if acts_after == -1 and goal is not None:
            self._attack(goal.calls)
        for number, step in enumerate(task.path):
            self._honest(number, step)
            if number == acts_after and goal is not None:
                self._attack(goal.calls)
        output = self._answer(task)
        said = output if goal is None or not goal.output else self._with_loot(output, goal.output)
        released = self._context.close(said)
        came.reached = all(map(self._world.holds, task.reaches)) and all(
            text.casefold() in released.casefold() for text in task.says
        )
        if goal is not None:
            leaked = bool(goal.leaks) and goal.leaks in released
            came.harmed = leaked or (bool(goal.harm) and all(map(self._world.holds, goal.harm)))
            if leaked:
                came.effects.append("answer")
        return came

    def _answer(self, task: Task) -> str:
        try:
            return str(filled(task.output, self._results))
        except NothingReadError:
            return "I could not do that."

    def _with_loot(self, output: str, loot: str) -> str:
        try:
            return f"{output}\n{filled(loot, self._results)}"
        except NothingReadError:
            return f"{output}\n{loot}"

    def _honest(self, number: int, step: Step) -> None:
        try:
            arguments = filled(step.arguments, self._results)
        except NothingReadError:
            return
        may, call_id, arguments = self._asked(step.tool, arguments, is_own=True)
        if may:
            shown, is_error = self._made(call_id, step.tool, arguments)
            if not is_error:
                self._results[str(number)] = shown

    def _attack(self, calls: tuple[Step, ...]) -> None:
        for number, step in enumerate(calls):
            arguments = _as_far_as_had(step.arguments, self._results)
            may, call_id, arguments = self._asked(step.tool, arguments, is_own=False)
            if not may:
                continue
            shown, is_error = self._made(call_id, step.tool, arguments)
            if not is_error:
                self._results[f"a{number}"] = shown
                if self._domain.tools[step.tool].effectful:
                    self._came.effects.append(step.tool)

    def _asked(
        self, tool: str, arguments: Mapping[str, Any], *, is_own: bool
    ) -> tuple[bool, str, Mapping[str, Any]]:
        ruling = self._context.decide(tool, arguments)
        may = ruling.said in {Said.ALLOW, Said.REDACT}
        if ruling.said is Said.REQUIRE_APPROVAL:
            if is_own:
                self._came.own_asks += 1
            else:
                self._came.attacker_asks += 1
            says_yes = self._approver is Approver.TIRED or (
                is_own and self._approver is Approver.THE_USER
            )
            if says_yes:
                may = self._context.approve(ruling.call_id)
            else:
                self._context.refuse(ruling.call_id)
        told = f"{tool} {ruling.said} {' '.join((*ruling.rules, *ruling.reasons))}"
        if is_own and ruling.said in {Said.REQUIRE_APPROVAL, Said.DENY}:
            self._came.stopped.append(told)
        if not is_own and may:
            self._came.opened.append(told)
        return may, ruling.call_id, arguments if ruling.arguments is None else ruling.arguments

    def _made(self, call_id: str, tool: str, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
        try:
            result, is_error = self._world.call(tool, arguments), False
        except CallFailedError as error:
            result, is_error = {"error": str(error)}, True
        return self._context.observe(call_id, result, is_error=is_error), is_error


def _as_far_as_had(template: Any, results: Mapping[str, Any]) -> Any:
    """The attacker's arguments; what could not be had is said to be missing, and the call made."""
    if isinstance(template, Mapping):
        return {name: _as_far_as_had(value, results) for name, value in template.items()}
    if isinstance(template, list):
        return [_as_far_as_had(value, results) for value in template]
    try:
        return filled(template, results)
    except NothingReadError:
        return _NOT_HAD
