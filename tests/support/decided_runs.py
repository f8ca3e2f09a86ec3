"""Runs whose ledgers hold decisions with their feature records, appended as any run's are."""

import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from app import roster
from app.domain.features import DecisionInput
from app.domain.mode import Mode
from app.domain.run import Caller, RunId, RunKind, RunStatus, Scope, TenantId
from app.domain.verdict import Decision, Point, Verdict
from app.ledger.writing import ChainHead, Draft, RunWriter
from app.ledger_assembly import LedgerParts, ledger_parts, utc_now
from app.policy.bundle import PolicyBundle
from app.policy.decide import decide
from app.policy.gate import DascGate
from app.policy_assembly import Policies, build_policies
from app.runs.event_drafts import decided_facts
from app.runs.identifiers import new_run_id
from app.storage.companions import NewRun
from tests.support.databases import Roles
from tests.support.live_server import settings_for

GATE = DascGate(roster.rule_book(), time.monotonic_ns)
ENTERS = DecisionInput(point=Point.RUN_SUBMIT, mode=Mode.STANDARD)


def caller(tenant_id: TenantId, who: str = "1" * 16) -> Caller:
    """A key of a tenant that may do everything."""
    return Caller(tenant_id=tenant_id, tenant="acme", scopes=frozenset(Scope), fingerprint=who)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyScene:
    """A process without a server: its ledger, its policies, and a tenant."""

    parts: LedgerParts
    policies: Policies
    tenant_id: TenantId

    @property
    def built_in(self) -> PolicyBundle:
        """What is in force while nothing was activated."""
        return self.policies.shelf.built_in.bundle

    async def decided(
        self,
        questions: Sequence[DecisionInput],
        bundle: PolicyBundle | None = None,
        *,
        told: Verdict | None = None,
        with_features: bool = True,
        repeated: bool = False,
    ) -> RunId:
        """A run that was asked these. `told`: what its records say, whatever was decided."""
        return await decided_run(
            self.parts,
            self.tenant_id,
            questions,
            bundle or self.built_in,
            told=told,
            with_features=with_features,
            repeated=repeated,
        )


async def decided_run(
    parts: LedgerParts,
    tenant_id: TenantId,
    questions: Sequence[DecisionInput],
    bundle: PolicyBundle,
    *,
    told: Verdict | None = None,
    with_features: bool = True,
    repeated: bool = False,
) -> RunId:
    """A run of a tenant with one record for each question, after that of its submission."""
    now = utc_now()
    run_id = new_run_id(now, os.urandom)
    run_key, wrapped = parts.run_keys.new_run_key(tenant_id, run_id, now)
    writer = RunWriter(
        log=tenant_id.bytes,
        run=run_id.bytes,
        run_key=run_key,
        writer=parts.writer,
        entropy=os.urandom,
    )
    drafts = [
        _draft(_told(decide(question, bundle), told), with_features=with_features)
        for question in (ENTERS, *questions)
    ]
    if repeated:
        drafts.append(replace(drafts[-1], fields={}))
    drafts[0] = replace(drafts[0], kind="run.submitted", engine="offline", model="offline")
    sealed = writer.seal(ChainHead.empty(tenant_id.bytes, run_id.bytes), drafts, epoch=1, at=now)
    new_run = NewRun(
        kind=RunKind.AGENT,
        status=RunStatus.QUEUED,
        provider="offline",
        model="offline",
        agent=None,
        policy_digest=bundle.digest,
        created_at=now,
        key=wrapped,
    )
    await parts.ledger.append(tenant_id, run_id, sealed, [new_run])
    return run_id


def _told(decision: Decision, told: Verdict | None) -> Decision:
    return decision if told is None else replace(decision, verdict=told)


def _draft(decision: Decision, *, with_features: bool) -> Draft:
    return Draft(
        kind="tool.decided",
        actor="model",
        decision=decision,
        outcome=decision.code,
        fields={"features": decided_facts(decision)} if with_features else {},
    )


@asynccontextmanager
async def policy_scene(roles: Roles, directory: Path) -> AsyncIterator[PolicyScene]:
    """A process of a deployment on this database."""
    parts = ledger_parts(settings_for(directory, roles))
    try:
        await parts.enrolment.enrol()
        tenant_id = await parts.runs.ensure_tenant("acme")
        yield PolicyScene(parts=parts, policies=build_policies(parts, GATE), tenant_id=tenant_id)
    finally:
        for database in (parts.database, parts.heartbeat, parts.dispatch):
            await database.close()
