"""Attacks by those who hold the log key: another history, a shorter one, an old one, two at once.

Each is made on a stopped copy of the witnessed deployment, which is then started again: honest
software, dishonest history. The witness's memory is the only thing that the attacker does not have.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from bench.tampering import undo
from bench.tampering.attack import Outcome, Told, Trial
from bench.tampering.chain_attacks import edited, sign_again
from bench.tampering.hands import Hands, hands
from bench.tampering.log_forging import (
    admin_run,
    close_up,
    make_log_anew,
    replace_notes,
)
from bench.tampering.run_ref import RunRef
from bench.tampering.scene import TENANTS, Scene
from bench.tampering.witnessed import (
    Deployment,
    Snapshot,
    copied,
    cosigned,
    halted,
    receipts,
    started,
    until,
)
from tests.support.databases import connect
from tests.support.witness_process import WitnessProcess, witness_process

Rewrite = Callable[[Hands, Deployment], Awaitable[None]]
_ALONE, _KEYLESS = "tenant's log alone", "tenant's log alone, no key"
_HALT = "the ledger is halted"
_NOTES = "SELECT count(*) FROM record WHERE kind = 'checkpoint.tenant'"


async def nothing(_hands: Hands, _deployment: Deployment) -> None:
    """Only a restart."""


async def rewrite_everything(attacker: Hands, deployment: Deployment) -> None:
    """Change a run, and make everything above it fit: hashes, batches, trees, notes, both logs."""
    run = attacker.rng.choice(attacker.scene.runs)
    await attacker.put_records(run, await edited(attacker, run))
    await sign_again(attacker, run, await attacker.stolen_writer(run))
    await _upwards(attacker, deployment, UUID(run.log))


async def rewrite_below_the_notes(attacker: Hands, deployment: Deployment) -> None:
    """Change a run and make its tenant's log fit, notes and all; the operator log stays."""
    run = attacker.rng.choice(attacker.scene.runs)
    await attacker.put_records(run, await edited(attacker, run))
    writer = await attacker.stolen_writer(run)
    await sign_again(attacker, run, writer)
    # The stolen key is another one than the real: what else the writer signed is signed by it, too.
    admin = await admin_run(attacker.sql, deployment.operator)
    await sign_again(attacker, admin, writer, only_its_own=True)
    await make_log_anew(attacker.sql, UUID(run.log), deployment.log_seed)


async def _upwards(attacker: Hands, deployment: Deployment, log: UUID) -> None:
    """From a changed tenant's log to the operator log's notes."""
    changed = await make_log_anew(attacker.sql, log, deployment.log_seed)
    admin = await admin_run(attacker.sql, deployment.operator)
    await replace_notes(attacker, admin, changed)
    await sign_again(attacker, admin, await attacker.stolen_writer(admin))
    await make_log_anew(attacker.sql, deployment.operator, deployment.log_seed)


async def rewrite_operator_log(attacker: Hands, deployment: Deployment) -> None:
    """Change a record of the operator log itself, and make it fit."""
    admin = await admin_run(attacker.sql, deployment.operator)
    await attacker.put_records(admin, await edited(attacker, admin))
    await sign_again(attacker, admin, await attacker.stolen_writer(admin))
    await make_log_anew(attacker.sql, deployment.operator, deployment.log_seed)


async def truncate_operator_log(attacker: Hands, deployment: Deployment) -> None:
    """The operator log's newest records, leaves, tiles and checkpoints: as if never written."""
    admin = await admin_run(attacker.sql, deployment.operator)
    rows = await attacker.records(admin)
    await _cut(attacker, admin, attacker.rng.randrange(2, len(rows)))
    await make_log_anew(attacker.sql, deployment.operator, deployment.log_seed)


async def truncate_tenants_log(attacker: Hands, deployment: Deployment) -> None:
    """The end of a tenant's log and its checkpoints; the operator log's notes of them stay."""
    run = attacker.scene.runs[-1]
    rows = await attacker.records(run)
    await _cut(attacker, run, attacker.rng.randrange(3, len(rows)))
    await close_up(attacker.sql, UUID(run.log))
    await make_log_anew(attacker.sql, UUID(run.log), deployment.log_seed)


async def truncate_without_keys(attacker: Hands, _deployment: Deployment) -> None:
    """The end of a tenant's log: records, leaves, tiles, and the checkpoints; nothing is signed."""
    run = attacker.scene.runs[-1]
    rows = await attacker.records(run)
    await _cut(attacker, run, attacker.rng.randrange(3, len(rows)))
    await close_up(attacker.sql, UUID(run.log))
    await make_log_anew(attacker.sql, UUID(run.log), None)


async def truncate_both(attacker: Hands, deployment: Deployment) -> None:
    """The end of a tenant's log, and of the operator log from its first note about it on."""
    await truncate_tenants_log(attacker, deployment)
    await truncate_operator_log(attacker, deployment)


async def _cut(attacker: Hands, run: RunRef, first: int) -> None:
    for table in ("payload", "record", "leaf"):
        await attacker.sql.execute(
            f"DELETE FROM {table} WHERE tenant_id = $1 AND run_id = $2 AND seq >= $3",  # noqa: S608 - an attacker's own SQL
            *run.ids,
            first,
        )
    await attacker.sql.execute(
        "DELETE FROM batch b WHERE tenant_id = $1 AND NOT EXISTS (SELECT 1 FROM record r"
        " WHERE r.tenant_id = b.tenant_id AND r.batch_id = b.batch_id)",
        run.ids[0],
    )


async def delete_run_below_the_notes(attacker: Hands, deployment: Deployment) -> None:
    """A whole run, its tenant's log numbered and signed anew; the operator log stays."""
    run = await _without_a_run(attacker)
    await make_log_anew(attacker.sql, UUID(run.log), deployment.log_seed)


async def delete_run_without_keys(attacker: Hands, _deployment: Deployment) -> None:
    """A whole run, its tenant's log numbered anew, the checkpoints above it deleted."""
    run = await _without_a_run(attacker)
    await make_log_anew(attacker.sql, UUID(run.log), None)


async def delete_run_and_reindex(attacker: Hands, deployment: Deployment) -> None:
    """A whole run, its places in the log too; everything above numbered and signed anew."""
    run = await _without_a_run(attacker)
    await _upwards(attacker, deployment, UUID(run.log))


async def _without_a_run(attacker: Hands) -> RunRef:
    run = attacker.rng.choice(attacker.scene.runs)
    for table in ("payload", "record", "leaf", "run_key", "run_result", "run_command", "runs"):
        await attacker.drop(table, run)
    await close_up(attacker.sql, UUID(run.log))
    return run


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryClass:
    """A class of the table that only the witness can tell."""

    number: int
    title: str
    who: str
    acts: tuple[tuple[str, Rewrite], ...]
    # Variants that stay undetected until a tenant's tree has to continue the operator log's notes.
    waits: frozenset[str] = frozenset()
    is_old: bool = False  # the database is the early snapshot, the witness remembers the late one


CLASSES = (
    HistoryClass(
        number=8,
        title="rewrite everything with writer and log keys",
        who="A4",
        acts=(
            ("a run", rewrite_everything),
            ("operator log", rewrite_operator_log),
            (_ALONE, rewrite_below_the_notes),
        ),
        waits=frozenset({_ALONE}),
    ),
    HistoryClass(
        number=11,
        title="truncate records, leaves and the newest checkpoint",
        who="A4",
        acts=(
            ("operator log", truncate_operator_log),
            ("both logs", truncate_both),
            (_ALONE, truncate_tenants_log),
            (_KEYLESS, truncate_without_keys),
        ),
        waits=frozenset({_ALONE, _KEYLESS}),
    ),
    HistoryClass(
        number=13,
        title="delete a run; the same re-indexed and re-signed",
        who="A2/A4",
        acts=(
            ("re-signed", delete_run_and_reindex),
            (_ALONE, delete_run_below_the_notes),
            (_KEYLESS, delete_run_without_keys),
        ),
        waits=frozenset({_ALONE, _KEYLESS}),
    ),
    HistoryClass(
        number=26,
        title="restore an old snapshot and go on",
        who="ops/A4",
        acts=(("restored", nothing),),
        is_old=True,
    ),
)
CONTROL = HistoryClass(number=0, title="restart", who="ops", acts=(("restart", nothing),))


async def history_trial(deployment: Deployment, one: HistoryClass, act: str, do: Rewrite) -> Trial:
    """Attack a copy, start it, and see whether it goes on or stops with the witness's word."""
    assert deployment.early is not None
    assert deployment.late is not None
    database: Snapshot = deployment.early if one.is_old else deployment.late
    async with copied(deployment, database, deployment.late) as (roles, files):
        sql = await connect(roles.superuser)
        try:
            stage = await deployment.stage(sql, roles, "")
            stage.runs = list(database.runs)
            await undo.set_guards(sql, on=False)
            async with hands(stage) as attacker:
                await do(attacker, deployment)
            await undo.set_guards(sql, on=True)
            kept = deployment.receipts <= await receipts(roles)
            with (
                witness_process(files, [deployment.watched]) as witness,
                started(deployment, roles, witness) as url,
            ):
                stage.url = url
                told = await _watched(stage, witness)
        finally:
            await sql.close()
    outcome = Outcome.DETECTED if told else Outcome.UNDETECTED
    layers = {_layer(said) for said in told} | ({"D9"} if told and not kept else set())
    return Trial(
        number=one.number, act=act, outcome=outcome, told=tuple(told), layers=frozenset(layers)
    )


def _layer(said: Told) -> str:
    """A halt because a log does not go on as it was noted is the logs' own, not a witness's."""
    is_seen = "has seen" in said.reason or "refused" in said.reason
    return "D6" if is_seen else "D4"


async def _watched(stage: Scene, witness: WitnessProcess) -> list[Told]:
    """Until the deployment says that it is halted, or every tenant's log went on, cosigned."""
    sql = stage.superuser
    notes, before = await sql.fetchval(_NOTES), await cosigned(sql)
    for tenant in TENANTS:
        async with stage.client(tenant) as http:
            await http.post("/v1/runs", json={"task": "Calculate 6*7."})
    said: list[str] = []

    async def over() -> bool:
        reason = await halted(stage.url)
        if reason is not None and _HALT in reason:
            said.append(reason)
        grown = await sql.fetchval(_NOTES) >= notes + len(TENANTS)
        return bool(said) or (grown and await cosigned(sql) > before + 1)

    assert await until(over), "neither halted nor cosigned"
    evidence = await asyncio.to_thread(
        witness.files.run, "witness", "evidence", "--state", str(witness.files.state)
    )
    if said:
        return [Told(detector="D6", reason=said[0])]
    if not evidence.out.startswith("0 refused"):
        return [Told(detector="D6", reason=evidence.out.splitlines()[0])]
    return []
