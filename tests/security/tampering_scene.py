"""What a database administrator can do to a ledger, and what the service then says of it."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar
from uuid import UUID

import asyncpg

from app.storage.tables import METADATA
from tests.support.databases import Roles, connect
from tests.support.live_server import LiveServer, live_server

TASK = "What is 17 * 23?"
GUARDED = ("record", "record_default", "payload", "payload_default", "batch", "run_key")
CONTENT = ("391", "17 * 23", "17*23", "calculator", "offline stand-in")

# Ways to write another value of a type, as SQL over the column.
OTHERS: Mapping[str, tuple[str, ...]] = {
    "Uuid": ("gen_random_uuid()", "overlay({c}::text placing '0000' from 1)::uuid"),
    "BigInteger": ("{c} + 1000", "{c} + 4503599627370496"),
    "Integer": ("{c} + 1", "0", "-1"),
    "SmallInteger": ("(CASE {c} WHEN 3 THEN 4 ELSE 3 END)", "8", "99", "-1"),
    "Xid8": ("'7'::xid8",),
    "Text": ("{c} || 'x'", "''", "'run.finished'"),
    "DateTime": (
        "{c} + interval '1 microsecond'",
        "{c} - interval '1 day'",
        "'infinity'",
        "'-infinity'",
        "'0044-03-15 BC'",  # Postgres knows years that Python does not
        "'99999-01-01'",
    ),
    "LargeBinary": (
        "set_byte({c}, 0, get_byte({c}, 0) # 1)",
        "set_byte({c}, octet_length({c}) - 1, get_byte({c}, octet_length({c}) - 1) # 128)",
        "set_byte({c}, octet_length({c}) / 2, get_byte({c}, octet_length({c}) / 2) # 16)",
        "decode(repeat('00', octet_length({c})), 'hex')",
        "substring({c} from 1 for octet_length({c}) - 1)",
        "{c} || '\\x00'::bytea",
        "''::bytea",
    ),
}
# A CHECK refuses other lengths.
FIXED_LENGTH = {"rc", "chain", "tip", "sig", "public_key", "certificate"}

T = TypeVar("T")
Act = Callable[[asyncpg.Connection], Coroutine[object, object, T]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A finished run of nine records: its ids, and what can be seen of it."""

    public: str
    run_id: UUID


def finished_run(live: LiveServer, who: str = "acme") -> Run:
    """A run that calls a tool: nine records in five batches, nine payloads."""
    with live.client(who) as client:
        answer = client.post("/v1/runs", json={"task": TASK}, headers={"Prefer": "wait=20"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["status"], told["entries"]) == ("succeeded", 9), told
    return Run(public=told["id"], run_id=UUID(told["id"].removeprefix("run_")))


def whole_run(live: LiveServer) -> Run:
    """A finished run that nobody has touched yet."""
    made = finished_run(live)
    assert_whole(live, made)
    return made


@contextmanager
def disarmed_server(roles: Roles) -> Iterator[LiveServer]:
    """A server on a database whose ledger nothing but mathematics guards any more."""
    with live_server(roles) as served:
        disarm(roles)
        yield served


def changes(*tables: str) -> Iterator[tuple[str, str]]:
    """Every column of these tables with every other value of its type, as SQL."""
    for table in tables:
        for column in METADATA.tables[table].columns:
            kind = type(column.type).__name__
            ways = OTHERS[kind][:4] if column.name in FIXED_LENGTH else OTHERS[kind]
            for way in (*ways, "NULL") if column.nullable else ways:
                yield f"{table}.{column.name}", way.format(c=column.name)


def columns_of(roles: Roles, *tables: str) -> set[str]:
    """The columns that the database itself says these tables have."""

    async def act(raw: asyncpg.Connection) -> set[str]:
        rows = await raw.fetch(
            "SELECT table_name || '.' || column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name = ANY ($1)",
            list(tables),
        )
        return {row[0] for row in rows}

    return as_superuser(roles, act)


def disarm(roles: Roles) -> None:
    """Switch off every trigger that guards the ledger, as its owner's superuser can."""

    async def act(raw: asyncpg.Connection) -> None:
        for table in GUARDED:
            await raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")

    as_superuser(roles, act)


def as_superuser(roles: Roles, act: Act[T]) -> T:
    """Do something with every right there is: triggers, foreign keys and rules are off."""

    async def session() -> T:
        connection = await connect(roles.superuser)
        try:
            async with connection.transaction():
                await connection.execute("SET LOCAL session_replication_role = replica")
                return await act(connection)
        finally:
            await connection.close()

    return asyncio.run(session())


def unguarded(roles: Roles, *tables: str) -> None:
    """Take the triggers of these tables away, as the database's superuser can."""

    async def act(raw: asyncpg.Connection) -> None:
        for table in tables:
            await raw.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")

    as_superuser(roles, act)


def tenant_of(roles: Roles, run: Run) -> UUID:
    """The id of the run's tenant."""

    async def act(raw: asyncpg.Connection) -> UUID:
        found = await raw.fetchval("SELECT tenant_id FROM runs WHERE run_id = $1", run.run_id)
        return UUID(bytes=found.bytes)

    return as_superuser(roles, act)


def attack(roles: Roles, statement: str, *arguments: object, rows: int = 1) -> None:
    """One statement of a superuser, which must change exactly `rows` rows."""

    async def act(raw: asyncpg.Connection) -> None:
        done = await raw.execute(statement, *arguments)
        assert int(done.rpartition(" ")[2]) == rows, f"the attack missed: {done}"

    as_superuser(roles, act)


@contextmanager
def attacked(roles: Roles, do: str, undo: str, *arguments: object) -> Iterator[None]:
    """An attack on what all runs share, taken back afterwards."""
    attack(roles, do, *arguments)
    try:
        yield
    finally:
        attack(roles, undo, *arguments)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the verification of a run says."""

    verdict: str
    seq: int | None
    reason: str | None


def verification(live: LiveServer, run: Run, who: str = "acme") -> Verdict:
    """The verdict now."""
    with live.client(who) as client:
        answer = client.get(f"/v1/runs/{run.public}/verification")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    place = told["break"] or {"seq": None, "reason": None}
    assert (told["verdict"] == "broken") == (told["integrity"]["state"] == "broken")
    assert (told["verdict"] == "broken") == (told["proves"] == [])
    return Verdict(verdict=told["verdict"], seq=place["seq"], reason=place["reason"])


def assert_nothing_is_shown(live: LiveServer, run: Run, who: str = "acme") -> None:
    """Every way to read the run answers 409, and none lets a word of its content out."""
    with live.client(who) as client:
        answers = [
            client.get(f"/v1/runs/{run.public}"),
            client.get(f"/v1/runs/{run.public}/entries"),
            client.get(f"/v1/runs/{run.public}/entries?after_seq=7"),
            client.get(f"/v1/runs/{run.public}/events"),
            client.get(f"/v1/runs/{run.public}/events", headers={"Last-Event-ID": "0"}),
            client.post(f"/v1/runs/{run.public}/cancel"),
        ]
    for answer in answers:
        assert answer.status_code == 409, (str(answer.url), answer.text)
        assert answer.json()["type"].endswith("ledger-broken"), answer.text
        told = {**answer.json(), "request_id": None}  # random hex may spell the answer
        assert not [word for word in CONTENT if word in str(told)], told


def assert_broken(live: LiveServer, run: Run, seq: int, reason: str, who: str = "acme") -> None:
    """The attack is named at its place, with its reason, and the run is not shown."""
    found = verification(live, run, who)
    assert found.verdict == "broken"
    assert found.seq == seq, found
    assert found.reason is not None
    assert reason in found.reason, found
    assert_nothing_is_shown(live, run, who)


def assert_whole(live: LiveServer, run: Run, who: str = "acme") -> None:
    """No alarm: the run verifies and is shown."""
    assert verification(live, run, who) == Verdict(verdict="valid", seq=None, reason=None)
    with live.client(who) as client:
        shown = client.get(f"/v1/runs/{run.public}")
        entries = client.get(f"/v1/runs/{run.public}/entries")
    assert (shown.status_code, entries.status_code) == (200, 200)
    assert "391" in shown.json()["output"]
    assert len(entries.json()["data"]) == 9
