"""What the deployment offers and what each tenant may use of it."""

from collections.abc import Mapping

from app import roster
from app.api.dependencies import ApiServices
from app.api.stream_seats import StreamSeats
from app.domain.capability import Capabilities
from app.domain.mode import Mode, tightest
from app.domain.run import Budget, Caller
from app.egress.egress_client import EgressClient
from app.keys.agent_catalogue import (
    BUILT_IN_AGENT,
    DEFAULT_BUDGET,
    TenantSettings,
    load_agents,
    settings_of,
)
from app.keys.signed_cursors import SignedCursors
from app.ledger_assembly import LedgerParts, utc_now
from app.policy.gate import DascGate
from app.policy_assembly import Policies
from app.runs.approval_desk import ApprovalDesk, ApprovalParts
from app.runs.idempotency_desk import IdempotencyDesk
from app.runs.parking import RunWaker
from app.runs.recorder import RecorderParts
from app.runs.run_watch import RunWatch
from app.runs.service import RunService
from app.runs.stopping import StopSwitch
from app.sandbox.tool_runner import ToolRunner
from app.settings import Settings
from app.storage.approval_store import ApprovalStore
from app.storage.idempotency_store import IdempotencyStore
from app.tools.program_list import ProgramList
from app.tools.toolbox import Toolbox
from app.webhooks.endpoint_desk import EndpointDesk


class Catalogue:
    """What the deployment offers and what each tenant may use of it."""

    def __init__(
        self,
        settings: Settings,
        default_model: str | None,
        confined: tuple[ToolRunner, ProgramList | None],
        egress: EgressClient,
        tenants: Mapping[str, TenantSettings],
    ) -> None:
        workers, unconfined = roster.confined_tools(settings, *confined)
        web, unreachable = roster.web_tools(settings, egress)
        self._missing = unconfined | unreachable
        tools = (*workers, *web, *roster.tools(settings))
        self.toolbox = Toolbox({tool.spec.name: tool for tool in tools})
        self._seats = StreamSeats(
            per_tenant=settings.operations.max_streams_per_tenant,
            in_all=settings.operations.max_streams,
        )
        self._names = tuple(spec.name for spec in self.toolbox.specs)
        self._all = frozenset(self._names)
        self._tenants = tenants
        model = default_model or roster.DEFAULT_MODELS[settings.models.chosen]
        self._agents = load_agents(settings.config_dir, tools=self._names, default_model=model)

    def tools_of(self, tenant: str) -> frozenset[str]:
        """The deployment's tools, cut to the tenant's own list."""
        own = self._of(tenant).capabilities
        return self._all if own is None else own & self._all

    def bounds_of(self, caller: Caller, agent: str | None) -> Capabilities:
        """What runs of a key with this agent may use at most: every level above the submission."""
        tenant = self._of(caller.tenant)
        key = tenant.keys.get(caller.fingerprint)
        found = Capabilities(tools=self._all).meet(tenant.bounds)
        if key is not None:
            found = found.meet(key.bounds)
        named = self._agents.get(agent or BUILT_IN_AGENT)
        if named is None:
            return found
        return found.meet(named.capabilities).meet(Capabilities(tools=frozenset(named.tools)))

    def mode_of(self, caller: Caller, agent: str | None) -> Mode | None:
        """The mode that such runs have at least; None: the policy's own."""
        tenant, named = self._of(caller.tenant), self._agents.get(agent or BUILT_IN_AGENT)
        key = tenant.keys.get(caller.fingerprint)
        return tightest(
            tenant.mode,
            None if key is None else key.mode,
            None if named is None else named.mode,
        )

    def services(
        self,
        runs: RunService,
        parts: LedgerParts,
        recorder_parts: RecorderParts,
        gate: DascGate,
        webhooks: EndpointDesk,
        policies: Policies,
    ) -> ApiServices:
        """What the routes need."""
        bell = recorder_parts.bell
        return ApiServices(
            runs=runs,
            approvals=_approvals(parts, recorder_parts, gate),
            idempotency=IdempotencyDesk(
                store=IdempotencyStore(parts.database), digests=parts.digests, now=utc_now
            ),
            cursors=SignedCursors(parts.digests, utc_now),
            labels=parts.run_keys.labels,
            stops=StopSwitch(runs=parts.runs, admin_log=parts.admin_log),
            ledger=parts.replay,
            erasures=parts.desk,
            webhooks=webhooks,
            policies=policies.desk,
            trials=policies.trials,
            proofs=parts.proofs,
            exports=parts.exports,
            keys=parts.key_lister,
            bell=bell,
            watch=RunWatch(bell, parts.runs.heads),
            seats=self._seats,
            agents=self._agents,
            default_agent=BUILT_IN_AGENT,
            tools=self.toolbox.specs,
            unavailable_tools=self._missing,
            budget_cap=lambda tenant: self._of(tenant).max_budget.applied_to(_OPEN_CAP),
            tenant_tools=self.tools_of,
            bounds_of=self.bounds_of,
            mode_of=lambda caller, agent: self.mode_of(caller, agent) or gate.bundle.default_mode,
            tenant_scrub_phi=lambda tenant: self._of(tenant).scrub_phi,
            certificate=lambda: parts.enrolment.certificate,
        )

    def _of(self, tenant: str) -> TenantSettings:
        return settings_of(self._tenants, tenant)


def _approvals(parts: LedgerParts, recorder_parts: RecorderParts, gate: DascGate) -> ApprovalDesk:
    """Where approvals are read and decided."""
    reopen = parts.replay.reopen
    return ApprovalDesk(
        ApprovalParts(
            gate=gate,
            store=ApprovalStore(parts.database),
            runs=parts.runs,
            keys=parts.run_keys,
            waker=RunWaker(reopen=reopen, runs=parts.runs, parts=recorder_parts),
            reopen=reopen,
            now=utc_now,
        )
    )


# What a tenant without a cap of its own may ask for: ten times the built-in agent's budget.
_OPEN_CAP = Budget(
    max_steps=DEFAULT_BUDGET.max_steps * 10,
    max_tokens=DEFAULT_BUDGET.max_tokens * 10,
    max_cost_micros=DEFAULT_BUDGET.max_cost_micros * 10,
    max_wall_seconds=DEFAULT_BUDGET.max_wall_seconds * 10,
)
