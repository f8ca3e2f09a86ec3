"""What routes need, declared here and fulfilled by wiring above."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Request

from app.api.stream_seats import StreamSeats
from app.audit.erasure_desk import ErasureDesk
from app.audit.export import BundleExporter
from app.audit.key_list import KeyLister
from app.audit.policy_trials import PolicyTrials
from app.audit.proof_desk import ProofDesk
from app.audit.replay_ledger import ReplayLedger
from app.bundles.policy_desk import PolicyDesk
from app.domain.capability import Capabilities
from app.domain.mode import Mode
from app.domain.run import Agent, Budget, Caller
from app.domain.step import ToolSpec
from app.keys.signed_cursors import SignedCursors
from app.runs.approval_desk import ApprovalDesk
from app.runs.idempotency_desk import IdempotencyDesk
from app.runs.notifier import Bell
from app.runs.run_labels import RunLabels
from app.runs.run_watch import RunWatch
from app.runs.service import RunService
from app.runs.stopping import StopSwitch
from app.webhooks.endpoint_desk import EndpointDesk


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """The use cases and the catalogue behind the routes."""

    runs: RunService
    stops: StopSwitch
    approvals: ApprovalDesk
    idempotency: IdempotencyDesk
    cursors: SignedCursors
    labels: RunLabels
    ledger: ReplayLedger
    erasures: ErasureDesk
    webhooks: EndpointDesk
    policies: PolicyDesk
    trials: PolicyTrials
    proofs: ProofDesk
    exports: BundleExporter
    keys: KeyLister
    bell: Bell
    watch: RunWatch
    seats: StreamSeats
    agents: Mapping[str, Agent]
    default_agent: str
    tools: tuple[ToolSpec, ...]
    unavailable_tools: Mapping[str, str]
    budget_cap: Callable[[str], Budget]
    tenant_tools: Callable[[str], frozenset[str]]
    bounds_of: Callable[[Caller, str | None], Capabilities]  # with an agent, by its name
    mode_of: Callable[[Caller, str | None], Mode]
    tenant_scrub_phi: Callable[[str], bool]
    certificate: Callable[[], bytes]  # of the key with which this process signs records


async def services(request: Request) -> ApiServices:
    """The services of this process. Async, so that no thread is borrowed for it."""
    return services_of(request.app)


def services_of(app: FastAPI) -> ApiServices:
    """The services that wiring gave to an application. TypeError before it did."""
    found = app.state.services
    if not isinstance(found, ApiServices):
        raise TypeError("the application is not wired")
    return found


ServicesDep = Annotated[ApiServices, Depends(services)]
