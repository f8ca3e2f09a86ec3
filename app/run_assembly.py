"""What drives runs, built once, by hand: places, the queue's side, recorders, and takeovers."""

import os
import secrets
import time
from collections.abc import Mapping

from app import roster
from app.agents.model_retry import RetryParts
from app.catalogue import Catalogue
from app.keys.agent_catalogue import TenantSettings, settings_of
from app.ledger_assembly import LedgerParts, utc_now
from app.privacy.scrubber import Scrubber
from app.providers.prices import Models
from app.providers.provider import ModelProvider
from app.runs.dispatcher import DispatchLimits, DispatchParts, RunDispatcher
from app.runs.executor import RunExecutor, RunLimits
from app.runs.notifier import Bell
from app.runs.opening import DrivingParts
from app.runs.recorder import RecorderParts
from app.runs.run_policy import RunPolicies
from app.runs.takeover import Takeover, TakeoverParts
from app.sandbox.workspace import WorkspaceRoot
from app.settings import Settings
from app.storage.run_queue import RunQueue
from app.storage.run_store import RunStore


def run_limits(settings: Settings, *, has_worker: bool) -> RunLimits:
    """How much one process takes on."""
    return RunLimits(
        max_concurrent=settings.max_concurrent_runs,
        max_queued=settings.max_queued_runs,
        has_worker=has_worker,
    )


def dispatcher_of(
    settings: Settings,
    parts: LedgerParts,
    executor: RunExecutor,
    takeover: Takeover,
    tenants: Mapping[str, TenantSettings],
) -> RunDispatcher:
    """What claims runs, and keeps them."""

    def most_of_tenant(name: str) -> int:
        own = settings_of(tenants, name).max_concurrent_runs
        return settings.dispatch.most_of_tenant if own is None else own

    return RunDispatcher(
        DispatchParts(
            queue=RunQueue(parts.dispatch, parts.writer_id),
            beats=RunQueue(parts.heartbeat, parts.writer_id),
            store=RunStore(parts.heartbeat),
            keys=parts.run_keys,
            executor=executor,
            restore=takeover.restore,
            writer_id=parts.writer_id,
            now=utc_now,
            jitter=_jitter,
            limits=DispatchLimits(
                lease_seconds=settings.lease_seconds,
                most_everywhere=settings.dispatch.most_everywhere,
                most_of_tenant=most_of_tenant,
            ),
        )
    )


def takeover_of(
    settings: Settings,
    parts: LedgerParts,
    policies: RunPolicies,
    recorder_parts: RecorderParts,
    workspaces: WorkspaceRoot,
    catalogue: Catalogue,
    answering: tuple[Mapping[str, ModelProvider], Models],
) -> Takeover:
    """What drives runs, and puts those together again that lost their process."""
    places = settings.workspace_dir
    driving = DrivingParts(
        toolbox=catalogue.toolbox,
        workspaces=workspaces,
        work=parts.runs.work,
        recorder_parts=recorder_parts,
        monotonic=time.monotonic,
        model_timeout_seconds=float(settings.model_timeout_seconds),
        retry=RetryParts(jitter=_jitter),
    )
    return Takeover(
        TakeoverParts(
            reopen=parts.replay.reopen,
            runs=parts.runs,
            keys=parts.run_keys,
            driving=driving,
            policies=policies,
            providers=answering[0],
            models=answering[1],
            tenant_tools=catalogue.tools_of,
            has_workspace=lambda tenant, run: (places / tenant.hex / run.hex).is_dir(),
            now=utc_now,
        )
    )


def recorder_parts_of(settings: Settings, parts: LedgerParts, bell: Bell) -> RecorderParts:
    """What every run's recorder shares."""
    return RecorderParts(
        store=parts.ledger,
        keys=parts.run_keys,
        writer=parts.writer,
        scrubber=Scrubber(_own_secrets(settings)),
        bell=bell,
        now=utc_now,
        entropy=os.urandom,
        result_ttl_seconds=settings.result_ttl_seconds,
        told=roster.span_teller(settings),
        sandbox=settings.sandbox.mode.value,
    )


def _own_secrets(settings: Settings) -> list[str]:
    held = (
        settings.api_keys,
        settings.database_url,
        settings.owner_database_url,
        settings.sequencer_database_url,
        settings.eraser_database_url,
        settings.audit_database_url,
    )
    found = [secret.reveal() for secret in held if secret is not None]
    found += settings.models.secret_values()
    found += settings.egress.secret_values()
    if settings.api_keys is not None:
        # Each key by itself too: a list is never what leaks.
        found += [item.rpartition(":")[2] for item in settings.api_keys.reveal().split(",")]
    return found


def _jitter() -> float:
    return secrets.randbelow(1 << 16) / (1 << 16)
