"""Attacks on the order of records: forged ones put between, places changed, runs replayed."""

from uuid import uuid4

import asyncpg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bench.tampering.attack import AttackClass, Deed
from bench.tampering.forging import encode, header_of, opened, rehash, sealed
from bench.tampering.hands import MIDDLE, Hands
from bench.tampering.run_ref import RunRef


async def insert_at_taken_place(hands: Hands) -> Deed:
    """A forged record at a seq that is taken."""
    run = hands.any_run()
    rows = await hands.records(run)
    row = hands.rng.choice(rows[MIDDLE:-MIDDLE])
    try:
        await hands.insert("record", {**row, "batch_id": uuid4()})
    except asyncpg.UniqueViolationError as error:
        return Deed(refused=type(error).__name__)
    return Deed(runs=(run,))


async def insert_and_shift(hands: Hands) -> Deed:
    """A forged record in the middle, chained to the one before; those after it move up."""
    run = hands.any_run()
    rows = await hands.records(run)
    at = hands.rng.randrange(MIDDLE, len(rows) - MIDDLE)
    for table in ("payload", "record"):
        for later in reversed(range(at, len(rows))):
            await hands.sql.execute(
                f"UPDATE {table} SET seq = seq + 1"  # noqa: S608 - an attacker's own SQL
                " WHERE tenant_id = $1 AND run_id = $2 AND seq = $3",
                *run.ids,
                later,
            )
    members = header_of(rows[at])
    members |= {"event_id": uuid4().hex, "nonce": uuid4().hex, "commit": {}, "size": {}}
    forged = {**rows[at], "header": encode(members)}
    rehash(run.log, run.run, [*rows[:at], forged])
    await hands.insert("record", forged)
    return Deed(runs=(run,))


async def reorder_headers(hands: Hands) -> Deed:
    """What two records say changes places; their columns stay."""
    return await _reorder(hands, ("header", "rc", "chain"))


async def reorder_rows(hands: Hands) -> Deed:
    """Two records change places, all columns but seq."""
    return await _reorder(hands, ("epoch", "kind", "ts", "header", "rc", "chain"))


async def reorder_and_rehash(hands: Hands) -> Deed:
    """Two records change places, with all of their columns and hashes made to fit."""
    run = hands.any_run()
    rows = await hands.records(run)
    one, other = sorted(hands.rng.sample(range(len(rows)), 2))
    for name in ("epoch", "kind", "ts", "header"):
        rows[one][name], rows[other][name] = rows[other][name], rows[one][name]
    rehash(run.log, run.run, rows)
    await hands.put_records(run, rows)
    return Deed(runs=(run,))


async def _reorder(hands: Hands, names: tuple[str, ...]) -> Deed:
    run = hands.any_run()
    rows = await hands.records(run)
    one, other = hands.rng.sample(rows, 2)
    first = {name: one[name] for name in names}
    await hands.set_record(run, one["seq"], **{name: other[name] for name in names})
    await hands.set_record(run, other["seq"], **first)
    return Deed(runs=(run,))


async def replay_under_another_id(hands: Hands) -> Deed:
    """A whole run again under another id, its key wrapped for the new place."""
    run = hands.any_run()
    twin = RunRef(tenant=run.tenant, log=run.log, run=f"{run.run[:16]}{uuid4().hex[:16]}")
    await _copy(hands, run, twin)
    return Deed(runs=(twin,))


async def move_to_another_tenant(hands: Hands) -> Deed:
    """A whole run in another tenant's ledger, under its own id."""
    run = hands.any_run()
    other = hands.rng.choice([r for r in hands.scene.closed if r.tenant != run.tenant])
    twin = RunRef(tenant=other.tenant, log=other.log, run=run.run)
    await _copy(hands, run, twin)
    return Deed(runs=(twin,))


async def _copy(hands: Hands, run: RunRef, twin: RunRef) -> None:
    key = await hands.run_key(run)
    place = dict(zip(("tenant_id", "run_id"), twin.ids, strict=True))
    for table in ("runs", "record"):
        for row in await hands.sql.fetch(
            f"SELECT * FROM {table} WHERE tenant_id = $1 AND run_id = $2",  # noqa: S608 - as above
            *run.ids,
        ):
            await hands.insert(table, {**row, **place})
    for row in await hands.payloads(run):
        clear = opened(key, row)
        blob = sealed(key, twin.log, twin.run, row["seq"], row["field"], clear)
        await hands.insert("payload", {**row, **place, "blob": blob})
    if twin.log != run.log:
        for batch in (await hands.batches(run)).values():
            await hands.insert("batch", {**batch, "tenant_id": place["tenant_id"]})
    kek_id = await hands.sql.fetchval(
        "SELECT kek_id FROM run_key WHERE tenant_id = $1 LIMIT 1", twin.ids[0]
    )
    kek = hands.key_file(kek_id)
    aad, nonce = bytes.fromhex(twin.log) + bytes.fromhex(twin.run), uuid4().bytes[:12]
    wrapped = nonce + AESGCM(kek).encrypt(nonce, key, aad)
    await hands.insert("run_key", {**place, "kek_id": kek_id, "wrapped": wrapped})


CLASSES = (
    AttackClass(
        number=14,
        title="insert a forged record in the middle",
        who="A2",
        named=frozenset({"D1", "D11"}),
        acts=(("place taken", insert_at_taken_place), ("others moved up", insert_and_shift)),
        also={"others moved up": frozenset({"D2"})},
    ),
    AttackClass(
        number=16,
        title="reorder two records",
        who="A2",
        named=frozenset({"D1", "D2"}),
        acts=(
            ("headers", reorder_headers),
            ("rows", reorder_rows),
            ("rows, re-hashed", reorder_and_rehash),
        ),
    ),
    AttackClass(
        number=17,
        title="replay a run under another id; move it to another tenant",
        who="A2",
        named=frozenset({"D2"}),
        acts=(("another id", replay_under_another_id), ("tenant", move_to_another_tenant)),
    ),
)
