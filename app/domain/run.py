"""The words for who asks, what is asked, and the states a run passes through."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType, TypeAlias, Union
from uuid import UUID

from app.domain.capability import UNDECLARED, Capabilities
from app.domain.label import Label
from app.domain.mode import Mode

TenantId = NewType("TenantId", UUID)
RunId = NewType("RunId", UUID)

Json: TypeAlias = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]
JsonObject: TypeAlias = dict[str, Json]

RUN_PREFIX = "run_"
OPERATOR = "!operator"  # the name of the log that is the operator's; no key can have it
_PUBLIC_ID = re.compile(r"run_[0-9a-f]{32}", re.ASCII)


def public_run_id(run_id: RunId) -> str:
    """`run_` and 32 lower-case hex digits: what callers see."""
    return f"{RUN_PREFIX}{run_id.hex}"


def parse_run_id(text: str) -> RunId | None:
    """The run id behind a public one, or None when it is not in the one accepted form."""
    digits = text.removeprefix(RUN_PREFIX)
    if _PUBLIC_ID.fullmatch(text) is None:
        return None
    return RunId(UUID(hex=digits))


class Scope(StrEnum):
    """What a key may do, always within its own tenant."""

    RUN = "run"
    INSTRUCT = "instruct"
    AUDIT = "audit"
    APPROVE = "approve"
    POLICY = "policy"
    ERASE = "erase"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An authenticated key: its tenant, its scopes, and a fingerprint that is not the key."""

    tenant_id: TenantId
    tenant: str
    scopes: frozenset[Scope]
    fingerprint: str  # first 16 hex digits of the SHA-256 of the key

    @property
    def actor(self) -> str:
        """How the ledger names this caller: a pseudonym, never a name."""
        return f"key:{self.fingerprint}"


class RunKind(StrEnum):
    """Who drives the run. The administration run of a log is driven by whoever has to say it."""

    AGENT = "agent"
    ADMIN = "admin"


class RunStatus(StrEnum):
    """Where a run is. Terminal states never change."""

    QUEUED = "queued"
    RUNNING = "running"
    AWAITING_APPROVAL = "awaiting_approval"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    BLOCKED = "blocked"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    INTERRUPTED = "interrupted"


TERMINAL: frozenset[RunStatus] = frozenset(
    {
        RunStatus.SUCCEEDED,
        RunStatus.FAILED,
        RunStatus.BLOCKED,
        RunStatus.CANCELLED,
        RunStatus.EXPIRED,
        RunStatus.INTERRUPTED,
    }
)

# The published table of transitions: from a state to every state that may follow it.
TRANSITIONS: Mapping[RunStatus, frozenset[RunStatus]] = {
    RunStatus.QUEUED: frozenset(
        {
            RunStatus.RUNNING,
            RunStatus.BLOCKED,
            RunStatus.CANCELLED,
            RunStatus.EXPIRED,
            RunStatus.INTERRUPTED,
        }
    ),
    RunStatus.RUNNING: frozenset({RunStatus.AWAITING_APPROVAL, RunStatus.CANCELLING, *TERMINAL}),
    RunStatus.AWAITING_APPROVAL: frozenset(
        {RunStatus.RUNNING, RunStatus.CANCELLED, RunStatus.EXPIRED, RunStatus.INTERRUPTED}
    ),
    RunStatus.CANCELLING: frozenset({*TERMINAL}),
    **{status: frozenset[RunStatus]() for status in TERMINAL},
}


class OutputState(StrEnum):
    """What a reader of a run's output is shown."""

    FULL = "full"
    SCRUBBED = "scrubbed"
    ERASED = "erased"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataPart:
    """A piece of material to work on. It never grants authority."""

    content: str
    source: str | None = None
    label: Label = field(default_factory=Label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most a run may use. Money is integer micro-dollars."""

    max_steps: int
    max_tokens: int
    max_cost_micros: int
    max_wall_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a run or a model call has used."""

    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    steps: int = 0

    def plus(self, other: "Usage") -> "Usage":
        """Both together."""
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost_micros=self.cost_micros + other.cost_micros,
            steps=self.steps + other.steps,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a caller asked for, resolved against the agent catalogue but not yet admitted.

    `instructions` is None when the key may not instruct; the task is then a data part.
    `capabilities` are the tools that the caller declared, None when it declared none. `authority`
    is what is left of what the platform, the tenant, the key, the agent and the caller declare;
    `mode` None is the policy's own.
    """

    instructions: str | None
    data: tuple[DataPart, ...]
    agent: str | None
    model: str
    provider: str
    system_prompt: str
    tools: tuple[str, ...]
    capabilities: frozenset[str] | None
    budget: Budget
    output_schema: JsonObject | None
    metadata: JsonObject
    scrub_phi: bool
    authority: Capabilities = UNDECLARED
    mode: Mode | None = None
    policy: str | None = None  # that stands beside the tenant's, and can only object


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A named agent that this deployment offers."""

    name: str
    description: str
    model: str
    system_prompt: str
    tools: tuple[str, ...]
    budget: Budget
    capabilities: Capabilities = UNDECLARED
    mode: Mode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs a list shows: those for which all that is named here holds."""

    status: RunStatus | None = None
    agent: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    labels: tuple[bytes, ...] = ()  # keyed digests of metadata, all of which it bears


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """The state of a run as stored beside its ledger. Holds no content."""

    tenant_id: TenantId
    run_id: RunId
    kind: RunKind
    status: RunStatus
    epoch: int
    provider: str
    model: str
    agent: str | None
    usage: Usage
    entries: int | None  # the number of records, fixed when the run ends
    error_code: str | None
    policy_digest: str
    created_at: datetime
    finished_at: datetime | None
