"""create_app: the ASGI application; every route but health, version and docs is behind a key.

Threat: Unauthorised API access
"""

import asyncio
import gc
import logging
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from secrets import token_hex

from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig

import app as package
from app.api import (
    approval_routes,
    catalog_routes,
    docs_routes,
    erasure_routes,
    health_routes,
    ledger_routes,
    openapi_document,
    policy_routes,
    problems,
    run_routes,
    stop_routes,
    stream_routes,
    webhook_routes,
)
from app.api.auth import Doorkeeper, authenticated
from app.api.dependencies import services_of
from app.api.middleware import Guard
from app.domain.errors import ConfigurationError
from app.keys.agent_catalogue import load_tenant_settings, settings_of
from app.keys.key_ring import KeyRing, KeySource
from app.keys.request_rates import RequestRates
from app.process_pulse import metrics_told
from app.providers.provider import ModelProvider
from app.settings import Settings
from app.telemetry.metrics_server import MetricsServer
from app.wiring import Deployment, Door, Overrides, build

_log = logging.getLogger("meshflow")
START_RETRY_SECONDS = 1.0
# Young objects before a turn of the collector, and turns before it looks at older ones. A request
# makes hundreds of objects and no cycles: the interpreter's 700 is a turn every few requests.
COLLECTOR_THRESHOLDS = (20_000, 10, 10)
# Traces and logs of a framework hold what callers sent; they stay off until they are scrubbed.
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "auto_configure": False,
}


def create_app(
    settings: Settings,
    *,
    key_items: str | None = None,
    providers: Mapping[str, ModelProvider] | None = None,
    overrides: Overrides | None = None,
) -> FastAPI:
    """The application for these settings. ConfigurationError before anything is served.

    `key_items` are development keys in the form of MESHFLOW_API_KEYS.
    """
    door = _door(settings, key_items)
    parts = overrides or Overrides(providers=providers)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        deployment = build(settings, door, parts)
        app.state.services, app.state.readiness = deployment.services, deployment.readiness
        app.state.claim_no_more = deployment.dispatcher.claim_no_more
        async with deployment.services.watch.watching(), asyncio.TaskGroup() as tasks:
            works = _background(deployment, app.state.metrics_listener)
            background = [tasks.create_task(work) for work in works]
            # The first start is waited for a little, so that a healthy process is ready at once.
            await _settled(deployment)
            # What is loaded by now stays for good: the collector need not walk it at every turn.
            gc.freeze()
            gc.set_threshold(*COLLECTOR_THRESHOLDS)
            yield
            # The heartbeat goes first: it would open new connections while the pool closes.
            for task in background:
                task.cancel()
            await asyncio.wait(background)
            await deployment.close()

    app = openapi_document.DescribedApp(
        title="MeshFlow",
        version=package.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # A redirect is built from the Host that the caller claims, and a client that follows it
        # takes the key along, in clear where a proxy does the TLS.
        redirect_slashes=False,
        generate_unique_id_function=openapi_document.operation_id,
        separate_input_output_schemas=False,
        telemetry=NO_TELEMETRY,
    )
    app.state.doorkeeper, app.state.sandbox = door.doorkeeper, settings.sandbox.mode
    app.state.metrics_listener = None  # whoever serves may put a bound socket here
    _mount(app, docs=settings.docs)
    app.add_middleware(
        Guard,
        doorkeeper=door.doorkeeper,
        rates=door.rates,
        max_body_bytes=settings.max_body_bytes,
        new_id=token_hex,
        access_log=settings.operations.access_log,
    )
    return app


async def work(
    settings: Settings,
    told_to_leave: asyncio.Event,
    overrides: Overrides | None = None,
    metrics: socket.socket | None = None,
) -> None:
    """Drive runs and nothing else until told; without keys nobody could ask for anything.

    `metrics` is a bound socket on which figures are told.
    """
    nobody = Door(
        doorkeeper=Doorkeeper(KeySource(KeyRing(()), path=None, seen="", dev=False)),
        rates=RequestRates(limit_of=lambda _: 0, now_seconds=time.monotonic),
        tenants=load_tenant_settings(settings.config_dir),
    )
    deployment = build(settings, nobody, replace(overrides or Overrides(), is_worker=True))
    async with metrics_told(metrics, deployment.pulse), asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(duty)
            for duty in (_start_and_beat(deployment), deployment.keep_logs())
        ]
        await told_to_leave.wait()
        for task in background:
            task.cancel()
        await asyncio.wait(background)
        await deployment.close()


def _mount(app: FastAPI, *, docs: bool) -> None:
    """Every route; all but health, version and docs behind the key dependency."""
    guarded = (
        run_routes,
        stop_routes,
        approval_routes,
        stream_routes,
        erasure_routes,
        webhook_routes,
        policy_routes,
        ledger_routes,
        catalog_routes,
    )
    for routes in guarded:
        app.include_router(routes.router, prefix="/v1", dependencies=[Depends(authenticated)])
    app.include_router(health_routes.router)
    if docs:
        app.include_router(docs_routes.router)
    problems.install(app, lambda: services_of(app).certificate())


def _door(settings: Settings, key_items: str | None) -> Door:
    tenants = load_tenant_settings(settings.config_dir)
    rates = RequestRates(
        limit_of=lambda tenant: settings_of(tenants, tenant).max_requests_per_minute,
        now_seconds=time.monotonic,
    )
    keys = Doorkeeper(_key_source(settings, key_items))
    return Door(doorkeeper=keys, rates=rates, tenants=tenants)


def _key_source(settings: Settings, key_items: str | None) -> KeySource:
    if key_items is not None:
        return KeySource.from_list(key_items, dev=True)
    if settings.api_keys_file is not None:
        return KeySource.from_file(settings.api_keys_file, dev=settings.dev)
    if settings.api_keys is None:
        raise ConfigurationError("no API keys: set MESHFLOW_API_KEYS or MESHFLOW_API_KEYS_FILE")
    return KeySource.from_list(settings.api_keys.reveal(), dev=settings.dev)


async def _start_and_beat(deployment: Deployment) -> None:
    """Become known to the ledger as soon as the database lets us, then keep the heartbeat."""
    while True:
        try:
            await deployment.start()
            break
        except Exception as error:  # noqa: BLE001 - tried again until it is there
            _log.warning("not known to the ledger yet: %s", type(error).__name__)
            await asyncio.sleep(START_RETRY_SECONDS)
    async with asyncio.TaskGroup() as tasks:
        for work in deployment.dispatcher.duties():
            tasks.create_task(work)
        if deployment.erasing is not None:
            tasks.create_task(deployment.erasing.eraser.serve_forever())


def _background(
    deployment: Deployment, metrics: socket.socket | None
) -> list[Coroutine[None, None, None]]:
    """What a process does besides answering."""
    scraped = [] if metrics is None else [MetricsServer(deployment.pulse.refresh).serve(metrics)]
    return [
        *scraped,
        _start_and_beat(deployment),
        deployment.follow_keys(),
        deployment.keep_logs(),
        deployment.share_rates(),
        deployment.clear_set_aside(),
        deployment.services.idempotency.trim_forever(),
        deployment.deliver(),
    ]


async def _settled(deployment: Deployment) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(START_RETRY_SECONDS * 3):
            await deployment.ready.wait()
