"""The object graph, built once, by hand; nothing here decides anything."""

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID, uuid4

from app import roster
from app.administration.tenant_memory import TenantMemory
from app.administration.writer_enrolment import WriterEnrolment
from app.api.auth import Doorkeeper
from app.api.dependencies import ApiServices
from app.api.metrics_pulse import MetricsPulse
from app.catalogue import Catalogue
from app.domain.errors import LedgerUnavailableError, MeshFlowError
from app.egress.egress_client import EgressClient, EgressParts
from app.erasing.assembly import EraserAtWork, build_eraser, eraser_places
from app.keys.agent_catalogue import TenantSettings
from app.keys.request_rates import RequestRates
from app.ledger_assembly import LedgerParts, ledger_parts, utc_now
from app.log_keeping import KeeperOfLogs, log_keeper
from app.policy.gate import DascGate, RuleBook
from app.policy_assembly import build_policies
from app.process_pulse import pulse_of
from app.providers.price_list import load_prices
from app.providers.provider import ModelProvider
from app.run_assembly import dispatcher_of, recorder_parts_of, run_limits, takeover_of
from app.runs.dispatcher import RunDispatcher
from app.runs.executor import RunExecutor, RunLimits
from app.runs.identifiers import new_run_id
from app.runs.notifier import Bell
from app.runs.recorder import RecorderParts
from app.runs.service import RunService, ServiceParts
from app.sandbox.sandbox_profile import WorkerAccount
from app.sandbox.tool_runner import ToolRunner
from app.sandbox.workspace import WorkspaceRoot, open_workspace_root
from app.settings import Settings
from app.storage import schema
from app.storage.database import Database
from app.storage.rate_store import RateStore
from app.storage.run_store import RunStore
from app.webhooks.courier import Courier
from app.webhooks.webhook_assembly import Webhooks, WebhookSurroundings, build_webhooks

_log = logging.getLogger("meshflow")
KEY_RELOAD_SECONDS = 2.0
DRAIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """What is known before anything is built: who may enter, how often, and with what settings."""

    doorkeeper: Doorkeeper
    rates: RequestRates
    tenants: Mapping[str, TenantSettings]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What tests and the demo put in the place of a part; None keeps the real one."""

    providers: Mapping[str, ModelProvider] | None = None
    book: RuleBook | None = None
    gate: DascGate | None = None
    default_model: str | None = None
    egress: EgressParts | None = None
    is_worker: bool = False  # a process that only drives runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """The running parts of one process. `run_forever` belongs in a task; `close` ends it."""

    services: ApiServices
    pulse: MetricsPulse
    doorkeeper: Doorkeeper
    rates: RequestRates
    database: Database
    heartbeat: Database
    dispatch: Database
    runs: RunStore
    tenants: TenantMemory
    dispatcher: RunDispatcher
    enrolment: WriterEnrolment
    erasing: EraserAtWork | None  # None: another process holds the erasure key
    writer_id: UUID
    providers: Mapping[str, ModelProvider]
    egress: EgressClient
    courier: Courier
    workspaces: WorkspaceRoot
    runner: ToolRunner
    logs: KeeperOfLogs | None
    ready: asyncio.Event

    async def start(self) -> None:
        """Make this process known to the ledger. LedgerUnavailableError when it cannot be."""
        await (self.enrolment.enrol() if self.logs is None else self.logs.enrol())
        await self._learn_tenants()
        self.ready.set()

    async def follow_keys(self) -> None:
        """Follow the key file: a removed key stops working within seconds."""
        while True:
            await asyncio.sleep(KEY_RELOAD_SECONDS)
            news = await asyncio.to_thread(self.doorkeeper.source.reload_if_changed)
            if news is not None and news.error is not None:
                _log.error("the key file was not taken over: %s", news.error)
            elif news is not None:
                _log.info("keys changed: +%d -%d", len(news.added), len(news.removed))
            if not self.ready.is_set():
                continue  # no task may enter before the key that signs its records is known
            try:
                await self._learn_tenants()
            except Exception as error:  # noqa: BLE001 - the keys in force stay in force
                _log.warning("tenants of new keys are not known yet: %s", type(error).__name__)

    async def share_rates(self) -> None:
        """Tell the database once a second how often each key asked, and learn of all others."""
        await RateStore(self.heartbeat).share_forever(self.rates, self.doorkeeper.known_tenants)

    async def keep_logs(self) -> None:
        """Sequence and sign, in turn with the other processes that may; nothing where none may."""
        if self.logs is not None:
            await self.logs.keeper.run_forever()

    async def clear_set_aside(self) -> None:
        """Remove what a process that died had set aside of workspaces."""
        try:
            await asyncio.to_thread(self.workspaces.set_aside.remove_all)
        except OSError as refused:
            _log.error("what was set aside could not be removed (errno %s)", refused.errno)

    async def deliver(self) -> None:
        """Tell webhooks what is committed, once this process may write."""
        await self.ready.wait()
        await self.courier.deliver_forever()

    async def _learn_tenants(self) -> None:
        # A tenant that was deleted and named again has another id.
        names = await self.tenants.look(
            self.doorkeeper.known_tenants(), self.doorkeeper.unknown_tenants()
        )
        self.doorkeeper.forget(names.gone)
        if names.taken:
            _log.error(
                "%d tenants are named in the database as others, and their logs are still there:"
                " this process goes by the logs",
                len(names.taken),
            )
        self.doorkeeper.learn(names.found)

    async def readiness(self) -> str | None:
        """None when this process can serve, else the first reason why not."""
        try:
            async with asyncio.timeout(2):
                revision = await self.database.revision()
                is_known = revision == schema.known_revision()
                halted = await self.runs.halted() if is_known else None
                is_retired = is_known and await self.runs.is_retired(self.writer_id)
        except (LedgerUnavailableError, TimeoutError):
            return "the database does not answer"
        except Exception as error:  # noqa: BLE001 - whatever it is, the answer is not ready
            return f"the database refused ({type(error).__name__})"
        if revision != schema.known_revision():
            return f"the schema is at {revision}, this server needs {schema.known_revision()}"
        if halted is not None:
            return f"the ledger is halted: {halted}"
        if is_retired:
            return "the key of this process was retired: restart it"
        if self.doorkeeper.unknown_tenants():
            return "tenants are not known yet"
        return None

    async def close(self) -> None:
        """End runs, say goodbye, then close connections."""
        await self.dispatcher.leave(DRAIN_SECONDS)
        await self.runner.close()
        with suppress(MeshFlowError):  # who cannot say goodbye is missed in time
            await self.enrolment.leave()
        if self.logs is not None:
            await self.logs.close()
        for provider in self.providers.values():
            await provider.close()
        await self.egress.close()
        await self.heartbeat.close()
        await self.dispatch.close()
        if self.erasing is not None:
            await self.erasing.database.close()
        await self.database.close()
        self.workspaces.close()


def build(settings: Settings, door: Door, overrides: Overrides) -> Deployment:
    """Everything of one process. ConfigurationError on the first thing that is not right."""
    parts = ledger_parts(settings)
    account, no_account = roster.worker_account()
    workspaces, bell = _workspaces(settings, account), Bell()
    workers = roster.worker_runner(settings, account, no_account)
    logs, recorder_parts = log_keeper(settings, parts), recorder_parts_of(settings, parts, bell)
    egress = EgressClient(denied=settings.egress.denied, parts=overrides.egress)
    catalogue = Catalogue(settings, overrides.default_model, workers, egress, door.tenants)
    models = load_prices(settings.config_dir)
    plugged = dict(overrides.providers or roster.providers(settings, models))
    gate = _gate(overrides, recorder_parts)
    policies = build_policies(parts, gate)
    takeover = takeover_of(
        settings, parts, policies.runs, recorder_parts, workspaces, catalogue, (plugged, models)
    )
    executor = RunExecutor(_limits_of(settings, overrides))
    dispatcher = dispatcher_of(settings, parts, executor, takeover, door.tenants)
    service = RunService(
        ServiceParts(
            policies=policies.runs,
            providers=plugged,
            models=models,
            toolbox=catalogue.toolbox,
            recorder_parts=recorder_parts,
            run_keys=parts.run_keys,
            executor=executor,
            dispatch=dispatcher,
            opener=takeover.opener,
            runs=parts.runs,
            now=utc_now,
            new_run_id=lambda: new_run_id(utc_now(), os.urandom),
            new_command_id=uuid4,
            bounds_of=catalogue.bounds_of,
            workers_are_full=lambda: workers[0].is_full,
        )
    )
    webhooks = _webhooks(settings, parts, egress)
    return Deployment(
        services=catalogue.services(service, parts, recorder_parts, gate, webhooks.desk, policies),
        pulse=pulse_of(parts, logs),
        doorkeeper=door.doorkeeper,
        rates=door.rates,
        database=parts.database,
        heartbeat=parts.heartbeat,
        dispatch=parts.dispatch,
        runs=parts.runs,
        tenants=TenantMemory(settings.ledger_key_dir, parts.runs, os.urandom),
        dispatcher=dispatcher,
        enrolment=parts.enrolment,
        erasing=_erasing(settings, parts),
        writer_id=parts.writer_id,
        providers=plugged,
        egress=egress,
        courier=webhooks.courier,
        workspaces=workspaces,
        runner=workers[0],
        logs=logs,
        ready=asyncio.Event(),
    )


def _limits_of(settings: Settings, overrides: Overrides) -> RunLimits:
    has_worker = overrides.is_worker or settings.dispatch.serve_workers
    return run_limits(settings, has_worker=has_worker)


def _gate(overrides: Overrides, recorder_parts: RecorderParts) -> DascGate:
    """The gate, which says of each decision how long it took."""
    if overrides.gate is not None:
        return overrides.gate
    book = overrides.book or roster.rule_book()
    return DascGate(book.masking(recorder_parts.scrubber.scrub_text), time.monotonic_ns)


def _webhooks(settings: Settings, parts: LedgerParts, egress: EgressClient) -> Webhooks:
    return build_webhooks(
        WebhookSurroundings(
            database=parts.database,
            keys=parts.keys,
            egress=egress,
            policy=settings.egress.webhook_policy(),
            admin_log=parts.admin_log,
            now=utc_now,
            monotonic=time.monotonic,
            entropy=os.urandom,
            new_id=lambda: new_run_id(utc_now(), os.urandom),
        )
    )


def _erasing(settings: Settings, parts: LedgerParts) -> EraserAtWork | None:
    places = eraser_places(settings)
    return None if places is None else build_eraser(places, parts.shared)


def _workspaces(settings: Settings, owner: WorkerAccount | None) -> WorkspaceRoot:
    """The workspace root: the operator's, or a private directory made under the data directory."""
    root, keep_out = settings.workspace_dir, [settings.ledger_key_dir]
    if settings.config_dir is not None:
        keep_out.append(settings.config_dir)
    if root == settings.data_dir / "workspace":
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        keep_out.append(settings.data_dir / "postgres")
    else:
        keep_out.append(settings.data_dir)
    return open_workspace_root(root, forbidden=keep_out, owner=owner)
