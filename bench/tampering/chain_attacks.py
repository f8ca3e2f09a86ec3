"""Attacks on the chain: hashes made anew or emptied, records dropped, triggers got round."""

from uuid import UUID

import asyncpg

from bench.tampering.attack import AttackClass, Deed
from bench.tampering.forging import (
    OwnWriter,
    Row,
    encode,
    header_of,
    rehash,
)
from bench.tampering.hands import MIDDLE, Hands
from bench.tampering.run_ref import RunRef
from tests.support.independent_verifier import merkle_tree_hash


async def edited(hands: Hands, run: RunRef) -> list[Row]:
    """The run's rows with one member of one header changed and every hash made to fit."""
    rows = await hands.records(run)
    row = hands.rng.choice(rows)
    members = header_of(row)
    members["actor"] = "operator" if members["actor"] != "operator" else "system"
    row["header"] = encode(members)
    rehash(run.log, run.run, rows)
    return rows


async def sign_again(
    hands: Hands, run: RunRef, writer: OwnWriter | None, *, only_its_own: bool = False
) -> None:
    """Make entries and tips of the run's batches fit; signed by `writer`, or left as signed.

    `only_its_own`: batches that other writers signed stay.
    """
    for batch in (await hands.batches(run)).values():
        if only_its_own and writer is not None and batch["writer_id"] != writer.writer_id:
            continue
        entries: list[bytes] = []
        chains: list[bytes] = []
        spans = batch["ranges"]
        for at in range(0, len(spans), 32):
            other, first = spans[at : at + 16], int.from_bytes(spans[at + 16 : at + 24])
            for seq in range(first, int.from_bytes(spans[at + 24 : at + 32]) + 1):
                chain = await hands.sql.fetchval(
                    "SELECT chain FROM record WHERE tenant_id = $1 AND run_id = $2 AND seq = $3",
                    run.ids[0],
                    UUID(bytes=other),
                    seq,
                )
                chains.append(chain)
                entries.append(other + seq.to_bytes(8) + chain)
        tip = merkle_tree_hash(entries)
        changes: Row = {"tip": tip}
        if "entries" in batch:
            changes["entries"] = b"".join(chains)
        if writer is not None:
            changes["writer_id"] = writer.writer_id
            changes["sig"] = writer.sign(run.log, batch["batch_id"], batch["n"], tip)
        sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(changes, 3))
        await hands.sql.execute(
            f"UPDATE batch SET {sets} WHERE tenant_id = $1 AND batch_id = $2",  # noqa: S608 - an attacker's own SQL
            batch["tenant_id"],
            batch["batch_id"],
            *changes.values(),
        )


async def rewrite_chain(hands: Hands) -> Deed:
    """Change and re-hash the run; batches stay."""
    run = hands.any_run()
    await hands.put_records(run, await edited(hands, run))
    return Deed(runs=(run,))


async def rewrite_with_tips(hands: Hands) -> Deed:
    """Change, re-hash the run, and make the batches' tips fit under the old signatures."""
    run = hands.any_run()
    await hands.put_records(run, await edited(hands, run))
    await sign_again(hands, run, None)
    return Deed(runs=(run,))


async def rewrite_with_own_writer(hands: Hands) -> Deed:
    """Change, re-hash, sign with a writer key of one's own that is put among the writers."""
    run = hands.any_run()
    writer = await hands.own_writer()
    rows = await hands.records(run)
    row = hands.rng.choice(rows)
    for each in rows:
        members = header_of(each)
        members["writer"] = writer.writer_id.hex
        if each is row:
            members["actor"] = "operator" if members["actor"] != "operator" else "system"
        each["header"] = encode(members)
    rehash(run.log, run.run, rows)
    await hands.put_records(run, rows)
    await sign_again(hands, run, writer)
    return Deed(runs=(run,))


async def replace_writer_key(hands: Hands) -> Deed:
    """Change, re-hash, and put one's own public key in the place of the real writer's."""
    run = hands.any_run()
    rows = await edited(hands, run)
    await hands.put_records(run, rows)
    writer_id = UUID(header_of(rows[0])["writer"])
    writer = OwnWriter(writer_id=writer_id, private=OwnWriter.fresh().private)
    await hands.sql.execute(
        "UPDATE writer_key SET public_key = $2 WHERE writer_id = $1", writer_id, writer.public
    )
    await sign_again(hands, run, writer)
    return Deed(runs=(run,))


async def delete_middle(hands: Hands) -> Deed:
    """A record in the middle, with its payload."""
    run = hands.any_run()
    rows = await hands.records(run)
    seq = hands.rng.randrange(MIDDLE, len(rows) - MIDDLE)
    await hands.drop("payload", run, seq)
    await hands.drop("record", run, seq)
    return Deed(runs=(run,))


async def delete_middle_and_close_up(hands: Hands) -> Deed:
    """A record in the middle; those after it move down one place, columns and all."""
    run = hands.any_run()
    rows = await hands.records(run)
    seq = hands.rng.randrange(MIDDLE, len(rows) - MIDDLE)
    await hands.drop("payload", run, seq)
    await hands.drop("record", run, seq)
    for table in ("payload", "record"):
        for later in range(seq + 1, len(rows)):
            await hands.sql.execute(
                f"UPDATE {table} SET seq = seq - 1"  # noqa: S608 - an attacker's own SQL
                " WHERE tenant_id = $1 AND run_id = $2 AND seq = $3",
                *run.ids,
                later,
            )
    return Deed(runs=(run,))


async def delete_last(hands: Hands) -> Deed:
    """The last record of an open run, with payload, and its batch or the batch's last place."""
    return await cut_tail(hands, hands.open_run(), 1)


async def delete_last_of_ended(hands: Hands) -> Deed:
    """The end of a run that has ended; its row is made to look as that of an open run does."""
    run = hands.any_run()
    await hands.drop("run_result", run)
    await hands.sql.execute(
        "UPDATE runs SET status = 'running', finished_at = NULL, entries = NULL, cost_micros = 0,"
        " input_tokens = 0, output_tokens = 0, steps = 0 WHERE tenant_id = $1 AND run_id = $2",
        *run.ids,
    )
    return await cut_tail(hands, run, 1)


async def cut_tail(hands: Hands, run: RunRef, count: int) -> Deed:
    """At least the last `count` records: whole batches, so that what stays is well signed."""
    rows = await hands.records(run)
    batch_id = rows[-count]["batch_id"]
    first = min(row["seq"] for row in rows if row["batch_id"] == batch_id)
    for row in rows[first:]:
        await hands.drop("payload", run, row["seq"])
        await hands.drop("record", run, row["seq"])
    for gone in {row["batch_id"] for row in rows[first:]}:
        batch = await hands.sql.fetchrow(
            "SELECT * FROM batch WHERE tenant_id = $1 AND batch_id = $2", run.ids[0], gone
        )
        if len(batch["ranges"]) == 32:
            await hands.sql.execute(
                "DELETE FROM batch WHERE tenant_id = $1 AND batch_id = $2", run.ids[0], gone
            )
    return Deed(runs=(run,))


async def drop_before_sequencing(hands: Hands) -> Deed:
    """The newest records of an open run, which no log holds yet; the client kept what it saw."""
    run = hands.fresh_run()
    deed = await cut_tail(hands, run, hands.rng.randrange(1, 6))
    return Deed(runs=deed.runs, kept=True)


async def empty_a_hash(hands: Hands) -> Deed:
    """NULL or nothing in the place of a hash, under the table's own rules."""
    run = hands.any_run()
    row = hands.rng.choice(await hands.records(run))
    column, value = hands.rng.choice(("rc", "chain")), hands.rng.choice((None, b"", b"short"))
    try:
        await hands.set_record(run, row["seq"], **{column: value})
    except asyncpg.IntegrityConstraintViolationError as error:
        return Deed(refused=type(error).__name__)
    return Deed(runs=(run,))


async def zero_a_hash(hands: Hands) -> Deed:
    """32 zero bytes in the place of a hash."""
    run = hands.any_run()
    row = hands.rng.choice(await hands.records(run))
    await hands.set_record(run, row["seq"], **{hands.rng.choice(("rc", "chain")): bytes(32)})
    return Deed(runs=(run,))


async def empty_without_rules(hands: Hands) -> Deed:
    """NULL or nothing in the place of a hash, or of all of them, after dropping the rules."""
    for column in ("rc", "chain"):
        await hands.sql.execute(f"ALTER TABLE record DROP CONSTRAINT IF EXISTS ck_record_{column}")
        await hands.sql.execute(f"ALTER TABLE record ALTER COLUMN {column} DROP NOT NULL")
    run = hands.any_run()
    rows = await hands.records(run)
    column, value = hands.rng.choice(("rc", "chain")), hands.rng.choice((None, b""))
    for row in hands.rng.choice((rows, [hands.rng.choice(rows)])):
        await hands.set_record(run, row["seq"], **{column: value})
    return Deed(runs=(run,))


async def update_as_replica(hands: Hands) -> Deed:
    """An UPDATE under session_replication_role = replica, triggers as the migrations left them."""
    run = hands.any_run()
    row = await hands.some_payload(run)
    try:
        await hands.put_payload({**row, "blob": hands.rng.randbytes(len(row["blob"]))})
    except asyncpg.PostgresError as error:
        return Deed(refused=f"{type(error).__name__}: {error}")
    return Deed(runs=(run,))


async def update_between(hands: Hands) -> Deed:
    """DISABLE TRIGGER, update, ENABLE ALWAYS TRIGGER: nothing of it shows in the catalogue."""
    run = hands.any_run()
    row = await hands.some_payload(run)
    for how in ("DISABLE", "ENABLE ALWAYS"):
        for table in ("payload", "payload_default"):
            await hands.sql.execute(f"ALTER TABLE {table} {how} TRIGGER payload_no_change")
        if how == "DISABLE":
            await hands.put_payload({**row, "blob": hands.rng.randbytes(len(row["blob"]))})
    return Deed(runs=(run,))


_REWRITES = (
    ("tips stay", rewrite_chain),
    ("tips made to fit", rewrite_with_tips),
    ("own writer key added", rewrite_with_own_writer),
    ("writer key replaced", replace_writer_key),
)
CLASSES = (
    AttackClass(
        number=6,
        title="change and re-hash the run",
        who="A2",
        named=frozenset({"D7", "D4"}),
        acts=_REWRITES,
        waits={
            "own writer key added": frozenset({"certificates"}),
            "writer key replaced": frozenset({"certificates"}),
        },
    ),
    AttackClass(
        number=9,
        title="delete a middle record",
        who="A2",
        named=frozenset({"D1"}),
        acts=(("gap", delete_middle), ("closed up", delete_middle_and_close_up)),
        also={"closed up": frozenset({"D2"})},
    ),
    AttackClass(
        number=10,
        title="delete the last record of a run",
        who="A2",
        named=frozenset({"D4"}),
        acts=(("open run", delete_last), ("ended run", delete_last_of_ended)),
        needs=frozenset({"log"}),
    ),
    AttackClass(
        number=12,
        title="drop records before they are sequenced",
        who="A2",
        named=frozenset({"D9"}),
        acts=(("newest", drop_before_sequencing),),
    ),
    AttackClass(
        number=18,
        title="NULL or empty the hashes",
        who="A2",
        named=frozenset({"D1", "D11"}),
        acts=(
            ("under the rules", empty_a_hash),
            ("zeros", zero_a_hash),
            ("rules dropped", empty_without_rules),
        ),
    ),
    AttackClass(
        number=38,
        title="disable triggers or replicate, update, restore",
        who="A2",
        named=frozenset({"D3", "D11"}),
        acts=(("replica", update_as_replica), ("disabled between", update_between)),
        guarded=True,
    ),
)
