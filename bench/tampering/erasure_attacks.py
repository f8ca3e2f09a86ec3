"""Attacks that claim to be lawful: content gone without a statement, forged ones, and content back.

Each tenant of the scene has a run of which two fields were erased and one that was deleted, both by
the service's own eraser.
"""

from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.tampering.appending import call_append, forged_after
from bench.tampering.attack import AttackClass, Deed
from bench.tampering.chain_attacks import edited
from bench.tampering.forging import FIELD_NAMES, Row, header_of
from bench.tampering.hands import Hands
from bench.tampering.log_forging import admin_run
from bench.tampering.run_ref import RunRef
from tests.support.independent_verifier import canonical, tagged


async def drop_payload(hands: Hands) -> Deed:
    """One payload row, as if it had been erased."""
    run = hands.any_run()
    row = await hands.some_payload(run)
    await hands.sql.execute(
        "DELETE FROM payload WHERE tenant_id = $1 AND run_id = $2 AND seq = $3 AND field = $4",
        *run.ids,
        row["seq"],
        row["field"],
    )
    return Deed(runs=(run,))


async def drop_all_payload(hands: Hands) -> Deed:
    """Every payload row of a run."""
    run = hands.any_run()
    await hands.drop("payload", run)
    return Deed(runs=(run,))


async def blank_header(hands: Hands) -> Deed:
    """One record as `delete_run` leaves it."""
    run = hands.any_run()
    row = hands.rng.choice(await hands.records(run))
    await hands.drop("payload", run, row["seq"])
    await _blank(hands, run, row["seq"])
    return Deed(runs=(run,))


async def blank_run(hands: Hands) -> Deed:
    """A whole run as `delete_run` leaves it, row and key included; and a row that says so."""
    run = hands.any_run()
    for row in await hands.records(run):
        await _blank(hands, run, row["seq"])
    for table in ("payload", "run_key", "run_result", "run_command", "runs"):
        await hands.drop(table, run)
    log = await hands.sql.fetchrow(
        "SELECT * FROM erasure WHERE tenant_id = $1 AND action = 'delete_run' LIMIT 1", run.ids[0]
    )
    claim = {**log, "erasure_id": UUID(bytes=hands.rng.randbytes(16)), "run_id": run.ids[1]}
    await hands.insert("erasure", claim)
    return Deed(runs=(run,))


async def _blank(hands: Hands, run: RunRef, seq: int) -> None:
    await hands.set_record(run, seq, header=None, kind=None, ts=None, epoch=None)


async def erase_more(hands: Hands) -> Deed:
    """One field more of a run of which some were erased lawfully."""
    run = hands.erased_run("anonymized")
    row = await hands.some_payload(run)
    await hands.sql.execute(
        "DELETE FROM payload WHERE tenant_id = $1 AND run_id = $2 AND seq = $3 AND field = $4",
        *run.ids,
        row["seq"],
        row["field"],
    )
    return Deed(runs=(run,))


async def resurrect_field(hands: Hands) -> Deed:
    """An erased field, back from a copy."""
    run = hands.erased_run("anonymized")
    there = {(row["seq"], row["field"]) for row in await hands.payloads(run)}
    gone = [
        row
        for row in hands.scene.kept[run.run]["payload"]
        if (row["seq"], row["field"]) not in there
    ]
    await hands.insert("payload", hands.rng.choice(gone))
    return Deed(runs=(run,))


async def resurrect_header(hands: Hands) -> Deed:
    """A header of a deleted run, back from a copy."""
    run = hands.erased_run("deleted")
    row = hands.rng.choice(hands.scene.kept[run.run]["record"])
    names = ("header", "kind", "ts", "epoch")
    await hands.set_record(run, row["seq"], **{name: row[name] for name in names})
    return Deed(runs=(run,))


async def resurrect_run(hands: Hands) -> Deed:
    """Everything of a deleted run, back from a backup: rows, payload, keys."""
    run = hands.erased_run("deleted")
    kept = hands.scene.kept[run.run]
    for row in kept["record"]:
        names = ("header", "kind", "ts", "epoch")
        await hands.set_record(run, row["seq"], **{name: row[name] for name in names})
    for table in ("runs", "payload", "run_key"):
        for row in kept[table]:
            await hands.insert(table, row)
    return Deed(runs=(run,))


async def delete_erasure_record(hands: Hands) -> Deed:
    """The record of an erasure, out of the administration run, with what comes after it."""
    run = hands.erased_run(hands.rng.choice(("anonymized", "deleted")))
    admin = await admin_run(hands.sql, run.ids[0])
    rows = await hands.records(admin)
    action = "anonymize_run" if run.erased == "anonymized" else "delete_run"
    seq = next(row["seq"] for row in rows if row["kind"] == f"erasure.{action}")
    for row in rows[seq:]:
        await hands.drop("payload", admin, row["seq"])
        await hands.drop("record", admin, row["seq"])
        await hands.sql.execute(
            "DELETE FROM batch WHERE tenant_id = $1 AND batch_id = $2",
            run.ids[0],
            row["batch_id"],
        )
    return Deed(runs=(run,))


async def _stated(
    hands: Hands, run: RunRef, action: str, items: list[Row], key: Ed25519PrivateKey
) -> None:
    """An erasure record with a statement of the attacker's, appended to the administration run."""
    statement = canonical(
        {
            "v": 1,
            "action": action,
            "log": run.log,
            "run": run.run,
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "actor": "operator",
            "legal_basis": "gdpr.art17",
            "request_ref": sha256(hands.rng.randbytes(16)).hexdigest(),
            "items": items,
            "checkpoint": None,
        }
    )
    note = canonical(
        {
            "statement": statement.decode(),
            "signature": key.sign(tagged("erasure", statement)).hex(),
            "key": key.public_key().public_bytes_raw().hex(),
        }
    )
    admin = await admin_run(hands.sql, run.ids[0])
    rows = await hands.records(admin)
    like = next(row for row in rows if row["kind"] == f"erasure.{action}")
    await call_append(
        hands.sql,
        forged_after(
            admin,
            rows[-1],
            like,
            writer=await hands.honest_writer(),
            key=await hands.run_key(admin),
            text=note,
        ),
    )


async def statement_with_own_key(hands: Hands) -> Deed:
    """A field goes, and a statement names it that is signed with a key of the attacker's own."""
    run = hands.any_run()
    rows, row = await hands.records(run), await hands.some_payload(run)
    items: list[Row] = [
        {"seq": r["seq"], "rc": r["rc"].hex(), "chain": r["chain"].hex(), "fields": []}
        for r in rows
    ]
    items[row["seq"]]["fields"] = [FIELD_NAMES[row["field"]]]
    await _stated(hands, run, "anonymize_run", items, Ed25519PrivateKey.generate())
    await hands.sql.execute(
        "DELETE FROM payload WHERE tenant_id = $1 AND run_id = $2 AND seq = $3 AND field = $4",
        *run.ids,
        row["seq"],
        row["field"],
    )
    return Deed(runs=(run,))


async def tamper_then_delete(hands: Hands) -> Deed:
    """With the erasure key: change a run, re-hash it, delete it with a good statement."""
    run = hands.any_run()
    rows = await edited(hands, run)
    await hands.put_records(run, rows)
    items = [
        {
            "seq": r["seq"],
            "rc": r["rc"].hex(),
            "chain": r["chain"].hex(),
            "fields": sorted(header_of(r)["commit"]),
        }
        for r in rows
    ]
    await _stated(hands, run, "delete_run", items, hands.erasure_key())
    for row in rows:
        await _blank(hands, run, row["seq"])
    for table in ("payload", "run_key", "run_result", "run_command", "runs"):
        await hands.drop(table, run)
    return Deed(runs=(run,))


_NEEDS = frozenset({"erasure"})
CLASSES = (
    AttackClass(
        number=19,
        title="delete a payload without an erasure record",
        who="A2",
        named=frozenset({"D8"}),
        acts=(("one field", drop_payload), ("all fields", drop_all_payload)),
        needs=_NEEDS,
    ),
    AttackClass(
        number=20,
        title="blank a header, claim a lawful deletion",
        who="A2",
        named=frozenset({"D8"}),
        acts=(("one record", blank_header), ("a run", blank_run)),
        also={"a run": frozenset({"D4"})},  # its places in the log are looked for first
        needs=_NEEDS,
    ),
    AttackClass(
        number=21,
        title="an erasure record with a wrong key",
        who="A3",
        named=frozenset({"D8"}),
        acts=(("own key", statement_with_own_key),),
        own_server=True,
        needs=_NEEDS,
    ),
    AttackClass(
        number=22,
        title="erase one field more than authorised",
        who="A2",
        named=frozenset({"D8"}),
        acts=(("field", erase_more),),
        needs=_NEEDS,
    ),
    AttackClass(
        number=23,
        title="bring erased content back",
        who="ops",
        named=frozenset({"D8"}),
        acts=(
            ("field", resurrect_field),
            ("header", resurrect_header),
            ("run", resurrect_run),
        ),
        also={"field": frozenset({"D3"})},
        needs=_NEEDS,
    ),
    AttackClass(
        number=24,
        title="delete the erasure record",
        who="A2",
        named=frozenset({"D1", "D4", "D8"}),
        acts=(("record", delete_erasure_record),),
        needs=_NEEDS,
    ),
    AttackClass(
        number=25,
        title="tamper, then erase the evidence",
        who="A2/A5",
        named=frozenset({"D4", "D7"}),
        acts=(("with the erasure key", tamper_then_delete),),
        own_server=True,
        needs=_NEEDS,
    ),
)
