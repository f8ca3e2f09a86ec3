"""What the gate is asked at each of its nine points: everything a rule may look at.

Threat: Prompt injection via task input
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.domain.features import OutputFeature
from app.domain.mode import Mode
from app.domain.run import Budget, JsonObject, Submission, Usage
from app.domain.step import ModelReply, ModelRequest, ToolCall, ToolResult, ToolSpec
from app.domain.verdict import ResolvedApproval
from app.policy.canary import NO_CANARIES, Canaries
from app.policy.label_state import LabelState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the gate knows of a run at any point. `spent` includes nothing that is reserved.

    `calls_made` counts by tool the calls that were let through. `state` is what the run knows of
    its values; without one nothing is proven. `mode` None is the policy's default. `canaries` are
    the marks that must never leave.
    """

    offered: tuple[ToolSpec, ...]
    declared: frozenset[str] | None
    may_instruct: bool
    budget: Budget
    spent: Usage
    elapsed_seconds: float
    calls_made: Mapping[str, int] = field(default_factory=dict)
    mode: Mode | None = None
    state: LabelState | None = None
    canaries: Canaries = NO_CANARIES


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitInput:
    """`run.submit`: the task and what this deployment would let the tenant use at most."""

    submission: Submission
    platform_tools: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInput:
    """`llm.request`: the request and the most it could cost."""

    request: ModelRequest
    facts: RunFacts
    reserve_tokens: int
    reserve_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseInput:
    """`llm.response`: what the model said and the calls it proposes."""

    reply: ModelReply
    facts: RunFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class CallInput:
    """`tool.call`: one proposed call.

    `approval` is what was decided on it, `digest` the keyed digest of the action as it is now.
    """

    call: ToolCall
    facts: RunFacts
    approval: ResolvedApproval | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultInput:
    """`tool.result`: what a tool gave back."""

    result: ToolResult
    facts: RunFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageInput:
    """`agent.message`: a hand-off from one agent to another."""

    sender: str
    receiver: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputInput:
    """`run.output`: the final answer."""

    text: str
    output_schema: JsonObject | None
    facts: RunFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryInput:
    """`webhook.send`: where a body would go."""

    url: str
    body: bytes
    is_declared: bool = True
    output: OutputFeature | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalInput:
    """`approval.resolve`: who decides on what, and whether it is still asked, and unchanged.

    `digest` is of the action that was judged.
    """

    approval_id: str
    granted: bool
    requested_by: str
    decided_by: str
    digest: bytes = b""
    is_current: bool = True


GateInput = (
    SubmitInput
    | RequestInput
    | ResponseInput
    | CallInput
    | ResultInput
    | MessageInput
    | OutputInput
    | DeliveryInput
    | ApprovalInput
)
