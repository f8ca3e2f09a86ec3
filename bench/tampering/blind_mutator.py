"""Changes cells and rows without knowing what they mean, and compares what readers are told.

The schema comes from `information_schema` alone; nothing of the application is used. After each
change either every run reads as before, or every run whose answer is another one is refused. Looked
at are the runs whose ids the changed rows hold, before or after and inside bytes too, and some
others: of the tenant that the rows name, or of any.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random  # noqa: TID251 - seeded, so that a mutation can be had again
from typing import Any
from uuid import UUID

import asyncpg

from bench.tampering import undo
from bench.tampering.hands import hands
from bench.tampering.judge import Answer, Judge
from bench.tampering.run_ref import RunRef
from bench.tampering.scene import Scene

_COLUMNS = """
SELECT c.table_name, c.column_name, c.data_type FROM information_schema.columns c
JOIN information_schema.tables t USING (table_schema, table_name)
WHERE c.table_schema = 'public' AND t.table_type = 'BASE TABLE' ORDER BY 1, c.ordinal_position
"""
_PARTS = "SELECT inhrelid::regclass::text FROM pg_inherits"
_REAL = "SELECT count(*) FROM attack.change WHERE was IS DISTINCT FROM became"
FULL_MUTATIONS = 10_000
Cell = tuple[str, str]


@dataclass(slots=True, kw_only=True)
class Mutations:
    """What became of them.

    `degraded`: the output that is kept for a while outside the ledger is not there any more, the
    answer says so (`output_state` scrubbed), and what it shows instead is the ledger's own.
    `withheld`: a run is answered 404 by every door, as if it had never been.
    """

    made: int = 0
    refused: int = 0
    harmless: int = 0
    looked_at: int = 0  # runs, all together
    detected: int = 0
    degraded: int = 0
    idle: int = 0  # changed nothing: not counted as made
    withheld: list[str] = field(default_factory=list)
    undetected: list[str] = field(default_factory=list)
    silent: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Mutations") -> None:
        """Another mutator's figures too."""
        for name in ("made", "refused", "harmless", "looked_at", "detected", "degraded", "idle"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.undetected += other.undetected
        self.withheld += other.withheld
        for column, count in other.silent.items():
            self.silent[column] = self.silent.get(column, 0) + count


async def schema(sql: asyncpg.Connection) -> dict[str, list[Cell]]:
    """Columns and types of every table that holds rows of its own."""
    parts = {row[0] for row in await sql.fetch(_PARTS)}
    found: dict[str, list[Cell]] = {}
    for row in await sql.fetch(_COLUMNS):
        if row["table_name"] not in parts:
            found.setdefault(row["table_name"], []).append((row["column_name"], row["data_type"]))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """How many changes; how many runs to look at that a change does not name; when to stop."""

    count: int
    others: int
    until: float | None = None


async def mutate(scene: Scene, judge: Judge, task: Task) -> Mutations:
    """Make the mutations, each on the rows as they were; fewer when the time is over."""
    told = Mutations()
    await undo.set_guards(scene.superuser, on=False)
    tables = await schema(scene.superuser)
    full = [name for name in tables if await scene.superuser.fetchval(f"SELECT 1 FROM {name}")]  # noqa: S608 - names come from the catalogue
    while told.made < task.count and (task.until is None or time.time() < task.until):
        table = scene.rng.choice(full)
        async with hands(scene) as attacker:
            try:
                what = await _Change(scene.rng, attacker.sql, table, tables[table]).make()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OverflowError):
                told.refused += 1
                continue
        if not await scene.superuser.fetchval(_REAL):
            told.idle += 1
            await undo.put_back(scene.superuser)
            continue
        told.made += 1
        await _judge(scene, judge, told, what, task.others)
        await undo.put_back(scene.superuser)
        if table == "tenants":
            await _known_again(scene, judge)
    return told


async def _known_again(scene: Scene, judge: Judge) -> None:
    """Until the server knows the tenants by their names again; it looks every few seconds.

    Nearly always it did not look in between, and has forgotten nothing.
    """
    some = {run.tenant: run for run in scene.runs}.values()
    for _ in range(600):
        if all([await judge.glance(run) for run in some]):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("a tenant is not known again")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One mutation in words, and the ids that its rows named before and after."""

    words: str
    ids: frozenset[UUID]
    raw: tuple[bytes, ...]  # values of bytes, which may hold ids too

    def names(self, run: RunRef) -> bool:
        """Whether the run's id is in any of the values."""
        wanted = UUID(run.run)
        return wanted in self.ids or any(wanted.bytes in value for value in self.raw)


async def _judge(scene: Scene, judge: Judge, told: Mutations, what: Made, others: int) -> None:
    own = [run for run in scene.runs if what.names(run)]
    theirs = [run for run in scene.runs if UUID(run.log) in what.ids] or scene.runs
    more = [run for run in theirs if run not in own]
    changed = missed = hidden = False
    for run in [*own, *scene.rng.sample(more, min(len(more), others))]:
        told.looked_at += 1
        if run not in own and await judge.glance(run):
            continue
        now = await judge.read(run)
        if now.is_honest(run) and now.content == judge.before[run].content:
            continue
        if _says_so(judge, run, now):
            told.degraded += 1
            continue
        if now.is_gone:
            hidden = True
            told.withheld.append(f"{what.words}: {run.public}")
            continue
        changed = True
        if not (now.is_broken or _names_it(judge, run, now)):
            missed = True
            states = (now.run[0], now.entries[0], now.verification[1].get("verdict"))
            told.undetected.append(
                f"{what.words}: {run.public} {states} {_difference(judge, run, now)}"
            )
    if changed and not missed:
        told.detected += 1
    if not changed and not hidden:
        told.harmless += 1
        is_cell = "." in what.words
        column = what.words.partition(" =")[0] if is_cell else what.words
        column += " (a run's)" if own else ""
        told.silent[column] = told.silent.get(column, 0) + 1


def _names_it(judge: Judge, run: RunRef, now: Answer) -> bool:
    """Records under a signed checkpoint are shown by that; only `/verification` asks for more."""
    return (
        now.verification[1].get("verdict") == "broken" and now.content == judge.before[run].content
    )


def _says_so(judge: Judge, run: RunRef, now: Answer) -> bool:
    was, got = judge.before[run], now
    if not got.is_valid or got.entries != was.entries:
        return False
    scrubbed = {**was.run[1], "output_state": "scrubbed", "output": got.run[1]["output"]}
    said = [entry.get("output") for entry in got.entries[1]["data"]]
    return got.run[1] == scrubbed and {"text": got.run[1]["output"]} in said


def _difference(judge: Judge, run: RunRef, now: Any) -> str:
    """Which members of the run's answer are others."""
    was, got = judge.before[run].run[1], now.run[1]
    return ",".join(sorted(k for k in {*was, *got} if was.get(k) != got.get(k)))


class _Change:
    """One random change of one table."""

    def __init__(
        self, rng: Random, sql: asyncpg.Connection, table: str, columns: Sequence[Cell]
    ) -> None:
        self._rng = rng
        self._sql = sql
        self._table = table
        self._columns = columns

    async def make(self) -> Made:
        """Do it; PostgresError when the database does not take it."""
        rows = await self._sql.fetch(
            f"SELECT *, tableoid AS part, ctid AS place FROM {self._table}"  # noqa: S608 - from the catalogue
            " ORDER BY random() LIMIT 2"
        )
        kinds = (self._random_cell, self._random_cell, self._others_cell, self._delete)
        kind = self._rng.choice((*kinds, self._duplicate, self._swap))
        return await kind([dict(row) for row in rows])

    async def _random_cell(self, rows: list[dict[str, Any]]) -> Made:
        name, kind = self._rng.choice(self._columns)
        value = None if self._rng.random() < 0.1 else self._other(kind, rows[0][name])
        await self._set(rows[0], {name: value})
        return self._made(f"{self._table}.{name} = a random value", rows[:1], value)

    async def _others_cell(self, rows: list[dict[str, Any]]) -> Made:
        name, _ = self._rng.choice(self._columns)
        value = rows[-1][name]
        await self._set(rows[0], {name: value})
        return self._made(f"{self._table}.{name} = another row's", rows[:1], value)

    async def _delete(self, rows: list[dict[str, Any]]) -> Made:
        await self._sql.execute(
            f"DELETE FROM {self._table} WHERE tableoid = $1 AND ctid = $2::text::tid",  # noqa: S608 - as above
            rows[0]["part"],
            _tid(rows[0]),
        )
        return self._made(f"{self._table} row = deleted", rows[:1])

    async def _duplicate(self, rows: list[dict[str, Any]]) -> Made:
        names = [name for name, _ in self._columns]
        row = dict(rows[0])
        name, kind = self._rng.choice(self._columns)
        row[name] = self._other(kind, row[name])
        places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
        await self._sql.execute(
            f"INSERT INTO {self._table} ({', '.join(names)}) VALUES ({places})",  # noqa: S608 - as above
            *(row[column] for column in names),
        )
        return self._made(f"{self._table} row = again with another {name}", rows[:1], row[name])

    async def _swap(self, rows: list[dict[str, Any]]) -> Made:
        most = len(self._columns)
        chosen = self._rng.sample(self._columns, self._rng.randrange(1, most + 1))
        names = [name for name, _ in chosen]
        await self._set(rows[0], {name: rows[-1][name] for name in names})
        if len(rows) == 2:
            await self._set(rows[1], {name: rows[0][name] for name in names})
        return self._made(f"{self._table} rows = swapped {','.join(names)}", rows)

    async def _set(self, row: dict[str, Any], values: dict[str, Any]) -> None:
        sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(values, 3))
        await self._sql.execute(
            f"UPDATE {self._table} SET {sets} WHERE tableoid = $1 AND ctid = $2::text::tid",  # noqa: S608 - as above
            row["part"],
            _tid(row),
            *values.values(),
        )

    def _made(self, words: str, rows: list[dict[str, Any]], *values: object) -> Made:
        seen = [*values, *(value for row in rows for value in row.values())]
        return Made(
            words=words,
            ids=frozenset(value for value in seen if isinstance(value, UUID)),
            raw=tuple(value for value in seen if isinstance(value, bytes)),
        )

    def _other(self, kind: str, was: Any) -> Any:
        """Another value of the type."""
        rng = self._rng
        match kind:
            case "uuid":
                return UUID(bytes=rng.randbytes(16))
            case "bytea":
                return _other_bytes(rng, was or bytes(32))
            case "bigint" | "integer" | "smallint" | "xid8":
                now = int(was or 0)
                return rng.choice((now + 1, now - 1, 0, -now, rng.randrange(30_000)))
            case "boolean":
                return not was
            case "timestamp with time zone":
                return was and was + timedelta(microseconds=rng.randrange(-(10**12), 10**12))
            case _:
                text = str(was or "")
                return rng.choice((text + " ", text.upper(), text[:-1], "", rng.randbytes(8).hex()))


def _other_bytes(rng: Random, was: bytes) -> bytes:
    flipped = bytearray(was or b"\0")
    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return rng.choice((bytes(flipped), rng.randbytes(len(was)), was[:-1], was + b"\0", b""))


def _tid(row: dict[str, Any]) -> str:
    return "({},{})".format(*row["place"])
