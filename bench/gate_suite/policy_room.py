"""The gate in this process: the nine methods of the policy room, as the service would call them."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from app import roster
from app.domain.capability import Capabilities
from app.domain.label import Confidentiality, Integrity, Label
from app.domain.mode import Mode
from app.domain.run import Budget, Usage
from app.domain.step import ToolCall, ToolResult, ToolSpec
from app.domain.verdict import Ask, AuthorizedCall, Decision, Deny, ReleasedOutput
from app.policy.authority import Authority, LabelledPart
from app.policy.gate import DascGate
from app.policy.gate_inputs import CallInput, OutputInput, ResultInput, RunFacts
from app.policy.label_state import LabelState, is_labelled
from bench.gate_suite.gates import OpenContext, Ruling, Said
from bench.gate_suite.wire_tools import tool_spec

_BUDGET = Budget(
    max_steps=1000, max_tokens=1_000_000, max_cost_micros=1_000_000_000, max_wall_seconds=3600
)
_WITHHELD = {"withheld": "by policy"}


class PolicyRoomGate:
    """The built-in policy, whoever the tenant."""

    def __init__(self) -> None:
        self._gate = DascGate(roster.rule_book())
        self.decide_ms: list[float] = []  # processor time of each verdict on a call

    def open(self, submission: Mapping[str, Any]) -> OpenContext:
        """A context that keeps its label state as a run does."""
        return _Context(self._gate, submission, self.decide_ms)


class _Context:
    def __init__(
        self, gate: DascGate, submission: Mapping[str, Any], decide_ms: list[float]
    ) -> None:
        self._gate, self._decide_ms = gate, decide_ms
        self._specs = tuple(map(tool_spec, submission["catalogue"]["tools"]))
        self._declared = submission.get("capabilities")
        default = Mode.STANDARD if is_labelled(self._specs) else Mode.STRICT
        self._mode = Mode(submission["mode"]) if "mode" in submission else default
        self._state = LabelState.start(self._authority(submission))
        self._calls: dict[str, ToolCall] = {}
        self._made: Counter[str] = Counter()

    def decide(self, tool: str, arguments: Mapping[str, Any]) -> Ruling:
        call_id = f"call_{len(self._calls) + 1}"
        call = ToolCall(call_id=call_id, name=tool, arguments=dict(arguments))
        began = time.thread_time()
        said = self._gate.tool_call(CallInput(call=call, facts=self._facts()))
        self._decide_ms.append((time.thread_time() - began) * 1000)
        self._calls[call_id] = call
        match said:
            case AuthorizedCall():
                self._calls[call_id] = said.call
                self._made[tool] += 1
                return _ruling(call_id, Said.ALLOW, said.decision, said.call.arguments)
            case Ask():
                return _ruling(call_id, Said.REQUIRE_APPROVAL, said.decision)
            case Deny():
                return _ruling(call_id, Said.DENY, said.decision)

    def approve(self, call_id: str) -> bool:
        self._made[self._calls[call_id].name] += 1
        return True

    def refuse(self, call_id: str) -> None:
        assert call_id in self._calls
        self._state = self._state.refused()

    def observe(self, call_id: str, result: Any, *, is_error: bool) -> Any:
        call = self._calls[call_id]
        told = ToolResult(
            call_id=call_id, name=call.name, content=json.dumps(result), is_error=is_error
        )
        said = self._gate.tool_result(ResultInput(result=told, facts=self._facts()))
        if isinstance(said, Deny):
            return _WITHHELD
        spec = self._spec(call.name)
        self._state = self._state.observed(call, spec, said.result.content, is_error=is_error)
        return json.loads(said.result.content)

    def close(self, output: str) -> str:
        said = self._gate.run_output(
            OutputInput(text=output, output_schema=None, facts=self._facts())
        )
        return said.text if isinstance(said, ReleasedOutput) else ""

    def _authority(self, submission: Mapping[str, Any]) -> Authority:
        declared = self._declared or {}
        return Authority(
            instructions=submission.get("instructions") or submission.get("task"),
            data=tuple(
                LabelledPart(
                    content=part["content"],
                    label=Label(
                        integrity=Integrity(part.get("integrity", "untrusted")),
                        confidentiality=Confidentiality(part.get("confidentiality", "tenant")),
                    ),
                )
                for part in submission.get("data", ())
            ),
            capabilities=_capabilities(declared),
            is_declared=self._declared is not None,
            catalogue=self._specs,
            mode=self._mode,
        )

    def _facts(self) -> RunFacts:
        declared = (self._declared or {}).get("tools")
        return RunFacts(
            offered=self._specs,
            declared=None if declared is None else frozenset(declared),
            may_instruct=True,
            budget=_BUDGET,
            spent=Usage(),
            elapsed_seconds=0.0,
            calls_made=dict(self._made),
            mode=self._mode,
            state=self._state,
        )

    def _spec(self, name: str) -> ToolSpec:
        return next(spec for spec in self._specs if spec.name == name)


def _capabilities(declared: Mapping[str, Any]) -> Capabilities:
    def names(key: str) -> frozenset[str] | None:
        return None if declared.get(key) is None else frozenset(declared[key])

    amount = declared.get("max_amount")
    return Capabilities(
        tools=names("tools"),
        recipients=names("recipients"),
        domains=names("domains"),
        paths=names("paths"),
        max_amount=None if amount is None else Decimal(str(amount)),
        max_calls=declared.get("max_calls", {}),
        readers=names("readers"),
    )


def _ruling(
    call_id: str,
    said: Said,
    decision: Decision,
    arguments: Mapping[str, Any] | None = None,
) -> Ruling:
    return Ruling(
        call_id=call_id,
        said=said,
        rules=decision.rules,
        reasons=decision.reasons or (decision.code,),
        arguments=arguments,
    )
