"""`meshflow erase` and `meshflow eraser`: erasing by hand, across tenants, and as a process.

Threat: PHI leakage in audit logs
"""

import asyncio
import json
import socket
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from app.cli.database_setup import driver_url, serving_database
from app.cli.invocation import FAILED, OK, CommandError, Invocation
from app.cli.listening import metrics_listener, tell_metrics_url
from app.domain.erasure import ErasureReceipt, ErasureStatus, public_erasure_id
from app.domain.errors import ConfigurationError, NotFoundError
from app.domain.run import RunId, TenantId, parse_run_id
from app.erasing.assembly import EraserAtWork, build_eraser, eraser_places
from app.ledger_assembly import LedgerParts, ledger_parts
from app.process_pulse import metrics_told, pulse_of
from app.settings import Settings
from app.storage import schema

_OPERATOR = "operator"
_FORCED = "forced_erasure"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Desk:
    """One process that may erase."""

    parts: LedgerParts
    at_work: EraserAtWork


def erase(invocation: Invocation, arguments: Namespace) -> int:
    """Erase now and print the receipt as one JSON object. 0 when it was executed, else 1."""
    settings = invocation.settings(dev=True)
    with _ready(settings) as ready:
        return asyncio.run(_erase(settings, ready, arguments))


def eraser(invocation: Invocation, arguments: Namespace) -> int:
    """Execute requests until stopped, or once; `--replay` first erases again what came back."""
    settings = invocation.settings(dev=True)
    with metrics_listener(settings.operations) as metrics, _ready(settings) as ready:
        tell_metrics_url(metrics, settings.operations)
        return asyncio.run(_serve(ready, arguments, metrics))


@contextmanager
def _ready(settings: Settings) -> Iterator[Settings]:
    with serving_database(settings) as ready:
        if eraser_places(ready) is None:
            raise ConfigurationError(
                "erasing needs MESHFLOW_ERASER_DATABASE_URL and MESHFLOW_ERASURE_KEY_FILE"
            )
        yield ready


@asynccontextmanager
async def _desk(ready: Settings) -> AsyncIterator[_Desk]:
    places = eraser_places(ready)
    if places is None:
        raise ConfigurationError("erasing is not set up")
    parts = ledger_parts(ready)
    at_work = build_eraser(places, parts.shared)
    try:
        await parts.enrolment.enrol()
        yield _Desk(parts=parts, at_work=at_work)
        await parts.enrolment.leave()
    finally:
        await at_work.database.close()
        await parts.database.close()


async def _serve(ready: Settings, arguments: Namespace, metrics: socket.socket | None) -> int:
    async with _desk(ready) as desk, metrics_told(metrics, pulse_of(desk.parts, None)):
        if arguments.replay:
            print(f"erased again: {await desk.at_work.eraser.replay()}", flush=True)
        if arguments.once:
            print(f"requests: {await desk.at_work.eraser.execute_waiting()}")
            print(f"keys ended: {await desk.at_work.rotation.rotate()}")
            return OK
        await desk.at_work.eraser.serve_forever()
    return OK


async def _erase(settings: Settings, ready: Settings, arguments: Namespace) -> int:
    forced = None
    if arguments.force:
        await _require_owner(settings)
        forced = _FORCED
    async with _desk(ready) as desk:
        tenant_id = await desk.parts.erasures.log_named(arguments.tenant)
        if tenant_id is None:
            raise NotFoundError("no such tenant")
        if forced is not None:
            await _record_force(desk, tenant_id, arguments)
        asked = await _asked(desk, tenant_id, arguments)
        request = asked.request
        receipt = await desk.at_work.eraser.execute(
            request.tenant_id, request.erasure_id, forced=forced
        )
        if arguments.rotate:
            await desk.at_work.rotation.rotate()
        receipt = await desk.parts.desk.receipt(request.tenant_id, request.erasure_id)
    print(json.dumps(_told(receipt)))
    executed = receipt.status in (ErasureStatus.PENDING, ErasureStatus.COMPLETE)
    return OK if executed else FAILED


async def _require_owner(settings: Settings) -> None:
    """Force is for whoever owns the schema, and for nobody else."""
    if settings.database_url is None:
        return  # the embedded server is this user's own
    owner = settings.owner_database_url
    if owner is None or not await schema.owns_ledger(driver_url(owner)):
        raise ConfigurationError("--force needs the owner's login: MESHFLOW_OWNER_DATABASE_URL")


async def _record_force(desk: _Desk, tenant_id: TenantId, arguments: Namespace) -> None:
    """That a run is erased unverified stands in the operator log before it is."""
    run_id = None if arguments.action == "delete-tenant" else _run_id(arguments)
    admin = desk.parts.admin_log
    await admin.append(
        await admin.operator_log_id(),
        "integrity.alarm",
        {
            "log": tenant_id.hex,
            "run": None if run_id is None else run_id.hex,
            "seq": None,
            "reason": _FORCED,
        },
        actor=_OPERATOR,
    )


async def _asked(desk: _Desk, tenant_id: TenantId, arguments: Namespace) -> ErasureReceipt:
    ledger, why, ref = desk.parts.replay, arguments.legal_basis, arguments.request_ref
    match arguments.action:
        case "anonymize-run":
            return await ledger.anonymize_run(
                tenant_id,
                _run_id(arguments),
                legal_basis=why,
                request_ref=ref,
                actor=_OPERATOR,
                fields=arguments.field,
            )
        case "delete-run":
            return await ledger.delete_run(
                tenant_id, _run_id(arguments), legal_basis=why, request_ref=ref, actor=_OPERATOR
            )
        case _:
            return await ledger.delete_tenant(
                tenant_id, legal_basis=why, request_ref=ref, actor=_OPERATOR
            )


def _run_id(arguments: Namespace) -> RunId:
    run_id = parse_run_id(arguments.run)
    if run_id is None:
        raise CommandError("RUN is run_ and 32 lower-case hex digits", FAILED)
    return run_id


def _told(receipt: ErasureReceipt) -> dict[str, str | None]:
    moments = {
        "executed_at": receipt.executed_at,
        "due_at": receipt.due_at,
        "completed_at": receipt.completed_at,
    }
    return {
        "id": public_erasure_id(receipt.request.erasure_id),
        "action": receipt.request.action.value,
        "status": receipt.status.value,
        "reason": receipt.reason,
        **{name: None if at is None else at.isoformat() for name, at in moments.items()},
    }
