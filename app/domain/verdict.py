"""Decisions of the gate and the proofs that they were made; each proof has one maker.

A function that needs a decision takes the proof, so code that skips the gate does not type-check.
`tests/architecture` holds the list of the only modules that may construct each proof.

Threat: Prompt injection via task input
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from app.domain.mode import Mode
from app.domain.run import Submission
from app.domain.step import ModelReply, ModelRequest, ToolCall, ToolResult, ToolSpec


class Point(StrEnum):
    """The nine places where the gate decides."""

    RUN_SUBMIT = "run.submit"
    LLM_REQUEST = "llm.request"
    LLM_RESPONSE = "llm.response"
    TOOL_CALL = "tool.call"
    TOOL_RESULT = "tool.result"
    AGENT_MESSAGE = "agent.message"
    RUN_OUTPUT = "run.output"
    WEBHOOK_SEND = "webhook.send"
    APPROVAL_RESOLVE = "approval.resolve"


class Verdict(StrEnum):
    """What the gate says, the mildest first."""

    ALLOW = "allow"
    REDACT = "redact"
    REQUIRE_APPROVAL = "require_approval"
    DENY = "deny"


_BY_SEVERITY = {verdict: rank for rank, verdict in enumerate(Verdict)}


def most_restrictive(verdicts: Iterable[Verdict]) -> Verdict:
    """The sternest of them; `allow` when there is none."""
    return max(verdicts, key=_BY_SEVERITY.__getitem__, default=Verdict.ALLOW)


def is_weaker(one: Verdict, other: Verdict) -> bool:
    """Whether the first lets more pass than the second."""
    return _BY_SEVERITY[one] < _BY_SEVERITY[other]


class Obligation(StrEnum):
    """What has to be done with a thing before it may pass, or because it did."""

    STRIP_LINKS = "strip_links"
    MASK = "mask"
    TRUNCATE = "truncate"
    WATERMARK = "watermark"
    NOTIFY = "notify"
    WITHHOLD = "withhold"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRef:
    """Which policy decided: its id, version and the SHA-256 of its canonical bytes (64 hex)."""

    policy_id: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision. `rules` are the ids that objected, `reasons` their codes in the same order.

    `code` is the reason of the sternest of them. `is_observed` says that the mode lets pass what
    the verdict would stop: the verdict stands in the record. `input_digest` is the SHA-256 of the
    feature record that was judged, `facts` its canonical bytes; they and the time it took take no
    part in comparing decisions.
    """

    point: Point
    verdict: Verdict
    rules: tuple[str, ...]
    code: str
    policy: PolicyRef
    mode: Mode = Mode.STANDARD
    reasons: tuple[str, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    is_observed: bool = False
    catalogue_digest: str = ""
    gate_version: str = ""
    input_digest: str = field(default="", compare=False)
    facts: bytes = field(default=b"", compare=False, repr=False)
    latency_micros: int = field(default=0, compare=False)

    @property
    def enforced(self) -> Verdict:
        """What is done."""
        return Verdict.ALLOW if self.is_observed else self.verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """A refusal. It is a value, not an exception; it is always recorded."""

    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Neither yes nor no: only a person with the scope `approve` may let this pass."""

    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedTask:
    """Proof that `run.submit` allowed the task. Made by the gate only."""

    submission: Submission
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearedRequest:
    """Proof that `llm.request` allowed this request. Made by the gate only; providers need it."""

    request: ModelRequest
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedReply:
    """Proof that `llm.response` allowed the reply. Made by the gate only."""

    reply: ModelReply
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizedCall:
    """Proof that `tool.call` allowed this very call. Made by the gate only; the toolbox asks it."""

    call: ToolCall
    spec: ToolSpec
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedResult:
    """Proof that `tool.result` lets the model see this result. Made by the gate only."""

    result: ToolResult
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedMessage:
    """Proof that `agent.message` allowed a hand-off between agents. Made by the gate only."""

    text: str
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedOutput:
    """Proof that `run.output` released the final answer. Made by the gate only."""

    text: str
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearedDelivery:
    """Proof that `webhook.send` allowed a delivery. Made by the gate only."""

    url: str
    body: bytes
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedApproval:
    """Proof that `approval.resolve` accepted a decision. Made by the gate only.

    It is good for the action of this digest and for no other.
    """

    approval_id: str
    granted: bool
    digest: bytes
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubBlock:
    """What a record says of its scrubbing: counts by type, never offsets or lengths."""

    engine: str
    rules: str  # sha256:<64 hex> of the rule set
    policy: str
    mode: str
    status: str  # ok | failed
    counts: Mapping[str, int]
    unscanned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrubbed:
    """Proof that a payload went through the scrubber. Made by the scrubber only.

    `value` is canonical JSON in UTF-8. The ledger seals nothing else.
    """

    value: bytes
    block: ScrubBlock
