"""Attacks with the application's own rights, stale owners and guesses: what has to be refused."""

import hashlib
import json
from typing import Any
from uuid import UUID

import asyncpg

from bench.tampering.appending import call_append, forged_after
from bench.tampering.attack import AttackClass, Deed
from bench.tampering.forging import OwnWriter, Row, header_of
from bench.tampering.hands import Hands, as_app
from bench.tampering.run_ref import RunRef
from tests.support.independent_verifier import commitment

_TENANT_TABLES = """
SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
  AND has_table_privilege('mf_app', c.oid, 'SELECT') ORDER BY 1
"""
_GUESSES = 10_000


async def _forge(hands: Hands, writer: OwnWriter | None, *, registered: bool) -> Deed:
    """Append through the application's own function, as its role."""
    run = hands.open_run()
    rows = await hands.records(run)
    like = hands.rng.choice([row for row in rows if row["kind"] == "tool.decided"])
    key = await hands.run_key(run)
    if writer is None:
        real = UUID(header_of(rows[-1])["writer"])
        writer = OwnWriter(writer_id=real, private=OwnWriter.fresh().private)
    session = await as_app(hands.scene, run.log)
    try:
        if registered:
            await _register(session, writer)
        text = b'{"arguments":{"path":"a.txt"},"call_id":"offline_99","name":"read_file"}'
        await call_append(
            session, forged_after(run, rows[-1], like, writer=writer, key=key, text=text)
        )
    except asyncpg.PostgresError as error:
        return Deed(refused=f"{type(error).__name__}: {error}")
    finally:
        await session.close()
    return Deed(runs=(run,))


async def _register(session: asyncpg.Connection, writer: OwnWriter) -> None:
    """Make the writer known as a process does, without a certificate worth the name."""
    count = await session.fetchval("SELECT pronargs FROM pg_proc WHERE proname = 'writer_register'")
    arguments: list[object] = [writer.writer_id, writer.public, bytes(64)][:count]
    places = ", ".join(f"${place}" for place in range(1, count + 1))
    await session.execute(f"SELECT writer_register({places})", *arguments)


async def forge_in_anothers_name(hands: Hands) -> Deed:
    """A correctly chained record in the name of the real writer, signed with another key."""
    return await _forge(hands, None, registered=False)


async def forge_with_own_writer(hands: Hands) -> Deed:
    """A correctly chained record, signed with a writer key that the intruder registered."""
    return await _forge(hands, OwnWriter.fresh(), registered=True)


async def forge_unregistered(hands: Hands) -> Deed:
    """A correctly chained record, signed with a key nobody has heard of."""
    return await _forge(hands, OwnWriter.fresh(), registered=False)


async def _append_at(hands: Hands, *, behind: int, epoch_off: int) -> Deed:
    """The application's own function with an old place or an old epoch."""
    run = hands.open_run()
    rows = await hands.records(run)
    last = rows[-1 - behind]
    like = hands.rng.choice([row for row in rows if row["kind"] == "tool.decided"])
    real = UUID(header_of(last)["writer"])
    writer = OwnWriter(writer_id=real, private=OwnWriter.fresh().private)
    session = await as_app(hands.scene, run.log)
    try:
        made = forged_after(
            run,
            {**last, "epoch": last["epoch"] + epoch_off},
            like,
            writer=writer,
            key=None,
            text=b"",
        )
        await call_append(session, made)
    except asyncpg.PostgresError as error:
        return Deed(refused=f"{type(error).__name__}: {error}")
    finally:
        await session.close()
    return Deed(quiet="written")


async def zombie(hands: Hands) -> Deed:
    """A pod whose run was taken over writes on under the epoch that it knew."""
    run = hands.open_run()
    await hands.sql.execute(
        "UPDATE runs SET epoch = epoch + 1 WHERE tenant_id = $1 AND run_id = $2", *run.ids
    )
    held = hands.scene.runs
    hands.scene.runs = [run]
    try:
        return await _append_at(hands, behind=0, epoch_off=0)
    finally:
        hands.scene.runs = held


async def lost_ack(hands: Hands) -> Deed:
    """An append whose answer was lost is sent once more, at a place that is taken now."""
    return await _append_at(hands, behind=hands.rng.randrange(1, 20), epoch_off=0)


_STATEMENTS = (
    "UPDATE record SET kind = 'x'",
    "UPDATE payload SET blob = ''",
    "UPDATE batch SET n = 0",
    "UPDATE runs SET status = 'failed'",
    "UPDATE run_key SET wrapped = ''",
    "DELETE FROM record",
    "DELETE FROM payload",
    "DELETE FROM batch",
    "DELETE FROM runs",
    "DELETE FROM run_key",
    "DELETE FROM writer_key",
    "TRUNCATE record",
    "TRUNCATE payload CASCADE",
    "INSERT INTO record SELECT * FROM record LIMIT 1 ON CONFLICT DO NOTHING",
    (
        "INSERT INTO record SELECT * FROM record LIMIT 1"
        " ON CONFLICT (tenant_id, run_id, seq) DO UPDATE SET kind = 'x'"
    ),
    (
        "INSERT INTO payload SELECT * FROM payload LIMIT 1"
        " ON CONFLICT (tenant_id, run_id, seq, field) DO UPDATE SET blob = ''"
    ),
    "UPDATE writer_key SET public_key = ''",
    "ALTER TABLE record DISABLE TRIGGER ALL",
    "DROP TRIGGER record_no_change ON record",
    "SET session_replication_role = replica",
    "SET ROLE mf_owner",
    "SET ROLE mf_writer",
    "SET ROLE mf_erase_owner",
    "CREATE FUNCTION public.unnest(uuid[]) RETURNS SETOF uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
    "CREATE OR REPLACE FUNCTION ledger_append() RETURNS void LANGUAGE sql AS 'SELECT'",
    "ALTER FUNCTION tenant_ensure(text) SET search_path = pg_temp",
    "ALTER TABLE record NO FORCE ROW LEVEL SECURITY",
    # By itself it is answered with a warning that nothing was granted, and not with an error.
    "GRANT UPDATE ON record TO mf_app; UPDATE record SET kind = 'x' WHERE false",
    "COPY record FROM PROGRAM 'true'",
)


async def forbidden_statement(hands: Hands) -> Deed:
    """One statement that the application's role must not be able to make."""
    statement = hands.rng.choice(_STATEMENTS)
    session = await as_app(hands.scene, hands.any_run().log)
    try:
        await session.execute(statement)
    except asyncpg.PostgresError as error:
        return Deed(refused=f"{statement}: {type(error).__name__}")
    finally:
        await session.close()
    return Deed(quiet=f"allowed: {statement}")


async def search_path_hijack(hands: Hands) -> Deed:
    """Tables and functions of the intruder's own, in front of the real ones."""
    session = await as_app(hands.scene, hands.any_run().log)
    name = f"hijack-{hands.rng.randrange(10**9)}"
    try:
        try:
            await session.execute("CREATE TEMP TABLE tenants (tenant_id uuid, name text UNIQUE)")
            await session.execute("SET search_path = pg_temp, public")
        except asyncpg.PostgresError as error:
            return Deed(refused=f"no temporary tables: {type(error).__name__}")
        await session.fetchval("SELECT public.tenant_ensure($1)", name)
        taken = await session.fetchval("SELECT count(*) FROM pg_temp.tenants")
    finally:
        await session.close()
    real = await hands.sql.fetchval("SELECT count(*) FROM public.tenants WHERE name = $1", name)
    if taken or real != 1:
        return Deed(quiet="the function used the intruder's table")
    return Deed(refused="the function used its own search path")


async def read_across(hands: Hands) -> Deed:
    """Every table with tenants' rows, as one tenant, for the rows of another; then by HTTP."""
    run = hands.any_run()
    other = hands.rng.choice([r for r in hands.scene.closed if r.tenant != run.tenant])
    seen: dict[str, int] = {}
    session = await as_app(hands.scene, run.log)
    try:
        for row in await session.fetch(_TENANT_TABLES):
            count = await session.fetchval(
                f"SELECT count(*) FROM {row[0]} WHERE tenant_id = $1",  # noqa: S608 - as above
                other.ids[0],
            )
            if count and row[0] != "tenants":
                seen[row[0]] = count
        await session.execute("SELECT set_config('app.tenant', '', false)")
        for name in ("record", "payload", "batch", "runs", "run_key", "run_result"):
            if count := await session.fetchval(f"SELECT count(*) FROM {name}"):  # noqa: S608 - as above
                seen[f"{name} without a tenant"] = count
    finally:
        await session.close()
    async with hands.scene.client(run.tenant) as http:
        for place in ("", "/entries", "/verification", "/events"):
            answer = await http.get(f"/v1/runs/{other.public}{place}")
            if answer.status_code != 404:
                seen[f"HTTP {place}"] = answer.status_code
    return Deed(quiet=json.dumps(seen)) if seen else Deed(refused="no row, and 404")


async def guess_erased(hands: Hands) -> Deed:
    """A value of four digits, its blob and key gone: guessed from what the tables still hold."""
    run = hands.any_run()
    rows = await hands.records(run)
    row = hands.rng.choice([r for r in rows if header_of(r)["commit"]])
    payloads = await hands.payloads(run, row["seq"])
    await hands.drop("payload", run, row["seq"])
    await hands.drop("run_key", run)
    hits = sum(_hits(run, row, name, salts(row, ())) for name in header_of(row)["commit"])
    hits += sum(_hits(run, row, name, salts(row, payloads)) for name in header_of(row)["commit"])
    assert _unsalted_hit(hands.rng.randrange(_GUESSES)) == 1, (
        "the search itself must be able to hit"
    )
    return Deed(quiet=f"{hits} hits") if hits else Deed(refused=f"0 hits of {_GUESSES}")


def salts(row: Row, stolen: Any) -> list[bytes]:
    """What might have been the salt, if the salt came from anything that is still there."""
    members = header_of(row)
    found = [bytes(32), row["rc"], row["chain"], bytes.fromhex(members["nonce"]) * 2]
    found += [bytes.fromhex(members["event_id"]) * 2]
    return found + [blob["blob"][at : at + 32] for blob in stolen for at in (0, 12)]


def _hits(run: RunRef, row: Row, name: str, tried: list[bytes]) -> int:
    target = bytes.fromhex(header_of(row)["commit"][name])
    log, own = bytes.fromhex(run.log), bytes.fromhex(run.run)
    guesses = [f'{{"content":"{n:04}","is_error":false}}'.encode() for n in range(_GUESSES)]
    share = max(1, _GUESSES // len(tried))
    return sum(
        commitment(log, own, row["seq"], name, salt, guess) == target
        for salt in tried
        for guess in guesses[:share]
    )


def _unsalted_hit(secret: int) -> int:
    target = hashlib.sha256(f"{secret:04}".encode()).digest()
    return sum(hashlib.sha256(f"{n:04}".encode()).digest() == target for n in range(_GUESSES))


CLASSES = (
    AttackClass(
        number=15,
        title="append a correctly chained forged record",
        who="A1",
        named=frozenset({"D7", "D11"}),
        acts=(
            ("in another's name", forge_in_anothers_name),
            ("unknown key", forge_unregistered),
            ("key registered by the intruder", forge_with_own_writer),
        ),
        waits={"key registered by the intruder": frozenset({"certificates"})},
        guarded=True,
    ),
    AttackClass(
        number=39,
        title="a zombie writes with a stale epoch; a lost answer is retried",
        who="bug",
        named=frozenset({"D11"}),
        acts=(("stale epoch", zombie), ("lost answer", lost_ack)),
        guarded=True,
    ),
    AttackClass(
        number=45,
        title="guess an erased low-entropy value",
        who="A2",
        named=frozenset({"D11"}),
        acts=(("from the tables", guess_erased),),
    ),
    AttackClass(
        number=46,
        title="UPDATE or ON CONFLICT through the app role; search_path hijack",
        who="A1",
        named=frozenset({"D11"}),
        acts=(("statements", forbidden_statement), ("search path", search_path_hijack)),
        guarded=True,
    ),
    AttackClass(
        number=48,
        title="read across tenants through a gap in row-level security",
        who="A1",
        named=frozenset({"D11"}),
        acts=(("read", read_across),),
        guarded=True,
    ),
)
