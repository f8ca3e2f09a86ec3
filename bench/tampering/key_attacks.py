"""Attacks with keys at the wrong time, and on the records that say when which key counts.

Made on the rows of the rotated deployment (`rotated.py`): the log key of before and the one of
after are both real, and the enrolment key is stolen (A3, A4).
"""

from uuid import UUID

import asyncpg

from bench.tampering.appending import call_append, forged_after
from bench.tampering.attack import AttackClass, Deed
from bench.tampering.forging import OwnWriter, Row
from bench.tampering.hands import Hands
from bench.tampering.log_forging import admin_run, note_of
from bench.tampering.run_ref import RunRef

_COVERING = """
SELECT c.* FROM checkpoint c WHERE c.tenant_id = $1 AND c.size = (
  SELECT {least}(c.size) FROM checkpoint c JOIN leaf l ON l.tenant_id = c.tenant_id
    AND l.idx < c.size WHERE c.tenant_id = $1 AND l.run_id = $2
    AND l.seq = (SELECT max(seq) FROM record WHERE tenant_id = $1 AND run_id = $2))
"""
_TEXT = b'{"arguments":{"path":"a.txt"},"call_id":"offline_99","name":"read_file"}'


def _early(hands: Hands) -> RunRef:
    """A run of before the rotation: those are the first of the scene."""
    return hands.scene.closed[hands.rng.randrange(len(hands.scene.closed) // 3)]


def _new(hands: Hands) -> RunRef:
    """A run of after the rotation."""
    closed = hands.scene.closed
    return closed[-1 - hands.rng.randrange(len(closed) // 3)]


async def _covering(hands: Hands, run: RunRef, least: str) -> asyncpg.Record:
    row = await hands.sql.fetchrow(_COVERING.format(least=least), *run.ids)
    assert row is not None
    return row


async def _sign(hands: Hands, row: asyncpg.Record, number: int) -> None:
    """The checkpoint again, by the log key of before (1) or of after (2)."""
    seed = hands.key_file(f"signing/log.{number}")
    note = note_of(row["origin"], row["size"], row["root"], seed)
    assert note != row["note"]
    await hands.sql.execute(
        "UPDATE checkpoint SET note = $3 WHERE tenant_id = $1 AND size = $2",
        row["tenant_id"],
        row["size"],
        note,
    )


async def retired_log_key(hands: Hands) -> Deed:
    """The newest checkpoint, of after the rotation, signed by the key of before."""
    run = _new(hands)
    await _sign(hands, await _covering(hands, run, "max"), 1)
    return Deed(runs=(run,))


async def future_log_key(hands: Hands) -> Deed:
    """A checkpoint of before the rotation, signed by the key of after; later ones are gone."""
    run = _early(hands)
    row = await _covering(hands, run, "min")
    for table in ("checkpoint", "cosignature"):
        await hands.sql.execute(
            f"DELETE FROM {table} WHERE tenant_id = $1 AND size > $2",  # noqa: S608 - an attacker's own SQL
            run.ids[0],
            row["size"],
        )
    await _sign(hands, row, 2)
    return Deed(runs=(run,))


async def _by_retired_writer(hands: Hands) -> tuple[RunRef, Row]:
    """A record after the end of an open run, by a certified writer whose retirement is recorded."""
    run = hands.fresh_run()
    rows = await hands.records(run)
    retired = await hands.sql.fetch(
        "SELECT writer_id FROM writer_key WHERE retirement_seq IS NOT NULL"
    )
    writer = OwnWriter(
        writer_id=UUID(bytes=hands.rng.choice(retired)["writer_id"].bytes),
        private=OwnWriter.fresh().private,
    )
    await hands.sql.execute(
        "UPDATE writer_key SET public_key = $2, certificate = $3 WHERE writer_id = $1",
        writer.writer_id,
        writer.public,
        hands.signing("enrolment").sign(writer.claim),
    )
    like = next(row for row in rows if row["kind"] == "tool.decided")
    key = await hands.run_key(run)
    return run, forged_after(run, rows[-1], like, writer=writer, key=key, text=_TEXT)


async def retired_writer(hands: Hands) -> Deed:
    """The ledger's own function is asked to append it."""
    run, made = await _by_retired_writer(hands)
    try:
        await call_append(hands.sql, made)
    except asyncpg.PostgresError as error:
        return Deed(refused=f"{type(error).__name__}: {error}")
    return Deed(runs=(run,))


async def retired_writer_past_the_function(hands: Hands) -> Deed:
    """Its rows are inserted as they are."""
    run, made = await _by_retired_writer(hands)
    log, run_id = run.ids
    one = {name: made[f"p_{name}s"][0] for name in ("seq", "epoch", "kind", "header", "rc")}
    one |= {"ts": made["p_ts"][0], "chain": made["p_chains"][0], "batch_id": made["p_batch"]}
    await hands.insert("record", {"tenant_id": log, "run_id": run_id, **one})
    field = {"seq": one["seq"], "field": made["p_fields"][0], "blob": made["p_blobs"][0]}
    await hands.insert("payload", {"tenant_id": log, "run_id": run_id, **field})
    batch = {"tenant_id": log, "batch_id": made["p_batch"], "writer_id": made["p_writer"], "n": 1}
    batch |= {name: made[f"p_{name}"] for name in ("ranges", "tip", "sig")}
    await hands.insert("batch", batch)
    return Deed(runs=(run,))


async def _of_operator(hands: Hands, kind: str) -> tuple[RunRef, list[int]]:
    """The administration run of the operator log, and the seqs of its records of a kind."""
    log = await hands.sql.fetchval("SELECT tenant_id FROM tenants WHERE name = '!operator'")
    admin = await admin_run(hands.sql, log)
    rows = await hands.records(admin)
    found = [row["seq"] for row in rows if row["kind"] == kind]
    assert found, kind
    return admin, found


async def delete_rotation(hands: Hands) -> Deed:
    """The record of the rotation: its row and its content."""
    admin, (seq, *_) = await _of_operator(hands, "key.rotated")
    await hands.drop("payload", admin, seq)
    await hands.drop("record", admin, seq)
    return Deed(runs=(_new(hands),))


async def delete_rotation_and_all_after(hands: Hands) -> Deed:
    """The record of the rotation and the rest of the run, so that no gap is left."""
    admin, (seq, *_) = await _of_operator(hands, "key.rotated")
    for row in (await hands.records(admin))[seq:]:
        await hands.drop("payload", admin, row["seq"])
        await hands.drop("record", admin, row["seq"])
        await hands.sql.execute(
            "DELETE FROM batch WHERE tenant_id = $1 AND batch_id = $2",
            admin.ids[0],
            row["batch_id"],
        )
    return Deed(runs=(_new(hands),))


async def delete_rotation_content(hands: Hands) -> Deed:
    """What the record of the rotation says."""
    admin, (seq, *_) = await _of_operator(hands, "key.rotated")
    await hands.drop("payload", admin, seq)
    return Deed(runs=(_new(hands),))


async def delete_rotation_and_close_up(hands: Hands) -> Deed:
    """The record of the rotation with its place in the log; those after it move down."""
    admin, (seq, *_) = await _of_operator(hands, "key.rotated")
    rows = await hands.records(admin)
    for table in ("payload", "leaf", "record"):
        await hands.drop(table, admin, seq)
        for later in range(seq + 1, len(rows)):
            await hands.sql.execute(
                f"UPDATE {table} SET seq = seq - 1"  # noqa: S608 - an attacker's own SQL
                " WHERE tenant_id = $1 AND run_id = $2 AND seq = $3",
                *admin.ids,
                later,
            )
    return Deed(runs=(_new(hands),))


CLASSES = (
    AttackClass(
        number=36,
        title="a retired or a future key signs",
        who="A3",
        named=frozenset({"D5"}),
        acts=(
            ("retired log key", retired_log_key),
            ("future log key", future_log_key),
            ("retired writer", retired_writer),
            ("retired writer, rows inserted", retired_writer_past_the_function),
        ),
        also={
            "retired writer": frozenset({"D11"}),
            "retired writer, rows inserted": frozenset({"D7"}),
        },
        needs=frozenset({"log"}),
    ),
    AttackClass(
        number=37,
        title="delete a rotation record",
        who="A2",
        named=frozenset({"D4"}),
        acts=(
            ("record", delete_rotation),
            ("and all after it", delete_rotation_and_all_after),
            ("content", delete_rotation_content),
            ("closed up", delete_rotation_and_close_up),
        ),
        # Without the record nothing ties the new key to the deployment.
        also={"record": frozenset({"D5"}), "and all after it": frozenset({"D5"})},
        own_server=True,
        needs=frozenset({"log"}),
    ),
)
