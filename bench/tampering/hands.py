"""The attacker's hands: a superuser's session whose changes are remembered, and stolen keys.

Whatever a role of the table holds is in here: A2 the session, A3 also a writer's key and the run
keys (out of the key directory), A4 the log key, A5 the erasure key.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random  # noqa: TID251 - seeded positions
from typing import Any
from uuid import UUID

import asyncpg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.tampering.forging import OwnWriter, Row, header_of
from bench.tampering.run_ref import RunRef
from bench.tampering.scene import Scene
from tests.support.databases import connect
from tests.support.independent_reader import unwrap_run_key

MIDDLE = 3  # positions this far from both ends count as the middle


class Hands:
    """One attacker in one scene."""

    def __init__(self, scene: Scene, session: asyncpg.Connection) -> None:
        self.scene = scene
        self.sql = session

    @property
    def rng(self) -> Random:
        """Seeded choice."""
        return self.scene.rng

    def any_run(self) -> RunRef:
        """Some run that has ended."""
        return self.rng.choice(self.scene.closed)

    def open_run(self) -> RunRef:
        """Some run that has not, and whose records stand in the log."""
        return self.rng.choice([run for run in self.scene.opened if not run.fresh])

    def fresh_run(self) -> RunRef:
        """Some run that has not ended and of which no log holds anything."""
        return self.rng.choice([run for run in self.scene.opened if run.fresh])

    def erased_run(self, erased: str) -> RunRef:
        """Some run that was erased so."""
        return self.rng.choice([run for run in self.scene.runs if run.erased == erased])

    def erasure_key(self) -> Ed25519PrivateKey:
        """The erasure key (A5)."""
        seed = (self.scene.directory / "erasure" / "key").read_bytes()[:32]
        return Ed25519PrivateKey.from_private_bytes(seed)

    async def records(self, run: RunRef) -> list[Row]:
        """All rows of `record` of a run, in order, to be changed at will."""
        found = await self.sql.fetch(
            "SELECT * FROM record WHERE tenant_id = $1 AND run_id = $2 ORDER BY seq", *run.ids
        )
        return [dict(row) for row in found]

    async def payloads(self, run: RunRef, seq: int | None = None) -> list[Row]:
        """All rows of `payload` of a run or of one record."""
        found = await self.sql.fetch(
            "SELECT * FROM payload WHERE tenant_id = $1 AND run_id = $2"
            " AND ($3::bigint IS NULL OR seq = $3) ORDER BY seq, field",
            *run.ids,
            seq,
        )
        return [dict(row) for row in found]

    async def some_payload(self, run: RunRef) -> Row:
        """A random payload row."""
        return self.rng.choice(await self.payloads(run))

    async def put_payload(self, row: Row) -> None:
        """Write a changed blob."""
        await self.sql.execute(
            "UPDATE payload SET blob = $5"
            " WHERE tenant_id = $1 AND run_id = $2 AND seq = $3 AND field = $4",
            *(row[name] for name in ("tenant_id", "run_id", "seq", "field", "blob")),
        )

    async def set_record(self, run: RunRef, seq: int, **columns: object) -> None:
        """UPDATE one record's columns."""
        names = list(columns)
        sets = ", ".join(f"{name} = ${place}" for place, name in enumerate(names, 4))
        await self.sql.execute(
            f"UPDATE record SET {sets} WHERE tenant_id = $1 AND run_id = $2 AND seq = $3",  # noqa: S608 - an attacker's own SQL
            *run.ids,
            seq,
            *columns.values(),
        )

    async def put_records(self, run: RunRef, rows: Sequence[Row]) -> None:
        """Write rows of a run over those that are there."""
        await self.sql.executemany(
            "UPDATE record SET epoch = $4, kind = $5, ts = $6, header = $7, rc = $8, chain = $9"
            " WHERE tenant_id = $1 AND run_id = $2 AND seq = $3",
            [
                (
                    *run.ids,
                    *(row[n] for n in ("seq", "epoch", "kind", "ts", "header", "rc", "chain")),
                )
                for row in rows
            ],
        )

    async def insert(self, table: str, row: Row) -> None:
        """INSERT a row as it is."""
        places = ", ".join(f"${place}" for place in range(1, len(row) + 1))
        await self.sql.execute(
            f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})",  # noqa: S608 - as above
            *row.values(),
        )

    async def drop(self, table: str, run: RunRef, seq: int | None = None) -> None:
        """DELETE the rows of a run, or of one record, or from one record on (negative: -seq)."""
        where = "" if seq is None else " AND seq = $3"
        arguments: tuple[object, ...] = () if seq is None else (seq,)
        await self.sql.execute(
            f"DELETE FROM {table} WHERE tenant_id = $1 AND run_id = $2{where}",  # noqa: S608 - as above
            *run.ids,
            *arguments,
        )

    async def batches(self, run: RunRef) -> dict[UUID, Row]:
        """The batches that hold records of a run."""
        found = await self.sql.fetch(
            "SELECT * FROM batch WHERE tenant_id = $1 AND batch_id IN"
            " (SELECT batch_id FROM record WHERE tenant_id = $1 AND run_id = $2)",
            *run.ids,
        )
        return {row["batch_id"]: dict(row) for row in found}

    async def run_key(self, run: RunRef) -> bytes:
        """The key of a run, from the key directory (A3 and above)."""
        row = await self.sql.fetchrow(
            "SELECT kek_id, wrapped FROM run_key WHERE tenant_id = $1 AND run_id = $2", *run.ids
        )
        kek = self.key_file(row["kek_id"])
        return unwrap_run_key(kek, row["wrapped"], bytes.fromhex(run.log), bytes.fromhex(run.run))

    def key_file(self, name: str) -> bytes:
        """32 bytes of key out of a file of the key directory."""
        return Path(self.scene.directory / "keys" / name).read_bytes()[:32]

    async def own_writer(self) -> OwnWriter:
        """A writer key that the attacker has put into the table of writers."""
        return await self._enrolled(lambda _: self.rng.randbytes(64))

    async def honest_writer(self) -> OwnWriter:
        """A writer key as a process of the deployment gets one (section 11)."""
        return await self._enrolled(lambda one: self.signing("enrolment").sign(one.claim))

    async def stolen_writer(self, run: RunRef) -> OwnWriter:
        """A key that signs in the name of the run's writer, with a certificate that holds (A3)."""
        rows = await self.records(run)
        writer = OwnWriter(
            writer_id=UUID(header_of(rows[0])["writer"]), private=OwnWriter.fresh().private
        )
        await self.sql.execute(
            "UPDATE writer_key SET public_key = $2, certificate = $3 WHERE writer_id = $1",
            writer.writer_id,
            writer.public,
            self.signing("enrolment").sign(writer.claim),
        )
        return writer

    def signing(self, role: str) -> Ed25519PrivateKey:
        """A signing key out of the key directory (A3 enrolment, A4 log, A5 erasure)."""
        return Ed25519PrivateKey.from_private_bytes(self.key_file(f"signing/{role}.1"))

    async def _enrolled(self, certify: Callable[[OwnWriter], bytes]) -> OwnWriter:
        writer = OwnWriter.fresh()
        row: Row = {"writer_id": writer.writer_id, "public_key": writer.public}
        if "certificates" in self.scene.has:
            row["certificate"] = certify(writer)
        await self.insert("writer_key", row)
        return writer


@asynccontextmanager
async def hands(scene: Scene) -> AsyncIterator[Hands]:
    """A superuser's session: triggers of the ordinary kind do not fire in it."""
    session = await connect(scene.roles.superuser)
    try:
        await session.execute("SET session_replication_role = replica")
        await session.execute("SET attack.marked = 'on'")
        yield Hands(scene, session)
    finally:
        await session.close()


async def as_app(scene: Scene, log: str) -> Any:
    """A session of the application's role, as an SQL injection has it."""
    session = await connect(scene.roles.app)
    await session.execute("SET attack.marked = 'on'")
    await session.execute("SELECT set_config('app.tenant', $1, false)", str(UUID(log)))
    return session
