"""What changed rows of batches and writers can do to a read of a run whose records are signed.

A read of a run that a checkpoint covers does not look at them: the log key signed the tree after
the sequencer had checked every batch. So whatever is written there must not move a byte of what is
shown, and the verification, which looks at everything anew, must name it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import asyncpg
import pytest

from tests.security.tampering_scene import (
    Run,
    as_superuser,
    changes,
    columns_of,
    disarm,
    finished_run,
    tenant_of,
    unguarded,
    verification,
)
from tests.security.test_log_tampering import tampered
from tests.support.databases import DatabaseServer, Roles
from tests.support.witnessed_server import WitnessedServer, witnessed_server

# Which rows are changed. $1 is the tenant, $2 its run.
BATCH = "tenant_id = $1 AND batch_id IN (SELECT batch_id FROM record WHERE run_id = $2 AND seq = 4)"
WRITER = f"writer_id IN (SELECT writer_id FROM batch WHERE {BATCH})"
# Nothing that was signed rests on these: when a process was seen, and what the sequencer has done.
UNSIGNED = {
    "batch.xid",
    "writer_key.created_at",
    "writer_key.seen_at",
    "writer_key.retired_at",
    "writer_key.retired_xid",
    "writer_key.retirement_seq",
}
OF_BATCHES = [*changes("batch"), ("batch.tip", None)]
OF_WRITERS = [*changes("writer_key"), ("writer_key.public_key", None)]


@pytest.fixture(scope="module")
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


@pytest.fixture(scope="module")
def served(roles: Roles) -> Iterator[WitnessedServer]:
    with witnessed_server(roles) as server:
        disarm(roles)
        unguarded(roles, "writer_key")
        yield server


@pytest.fixture(scope="module")
def run(served: WitnessedServer) -> Run:
    made = finished_run(served.live)
    served.when(made.public, lambda found: found["state"] == "anchored")
    return made


@pytest.fixture(scope="module")
def tenant(roles: Roles, run: Run) -> UUID:
    return tenant_of(roles, run)


def shown(served: WitnessedServer, run: Run) -> list[tuple[int, object]]:
    """Every way to read the run."""
    paths = ("", "/entries", "/entries?after_seq=3", "/diff?other=" + run.public)
    with served.live.client() as client:
        answers = [client.get(f"/v1/runs/{run.public}{path}") for path in paths]
    return [(answer.status_code, answer.json()) for answer in answers]


@contextmanager
def other_writer(roles: Roles, ids: tuple[UUID, UUID], change: str | None) -> Iterator[None]:
    """The row of a writer changed or gone, and put back although its process beats meanwhile."""
    kept: list[asyncpg.Record] = []

    async def act(raw: asyncpg.Connection) -> None:
        kept.extend(await raw.fetch("SELECT * FROM writer_key"))
        do = "DELETE FROM writer_key" if change is None else f"UPDATE writer_key SET {change}"
        assert await raw.execute(f"{do} WHERE {WRITER}", *ids) in ("DELETE 1", "UPDATE 1")

    async def undo(raw: asyncpg.Connection) -> None:
        await raw.execute("DELETE FROM writer_key")
        for row in kept:
            places = ", ".join(f"${n + 1}" for n in range(len(row)))
            await raw.execute(f"INSERT INTO writer_key VALUES ({places})", *row.values())

    as_superuser(roles, act)
    try:
        yield
    finally:
        as_superuser(roles, undo)


def test_every_column_is_attacked(roles: Roles) -> None:
    attacked = {place for place, _ in (*OF_BATCHES, *OF_WRITERS)}
    assert attacked == columns_of(roles, "batch", "writer_key")


@pytest.mark.parametrize(
    ("place", "change"), [*OF_BATCHES, ("batch.sig", "entries = decode(repeat('00', 32), 'hex')")]
)
def test_a_batch_moves_nothing_that_is_shown_and_the_verification_names_it(
    served: WitnessedServer,
    roles: Roles,
    run: Run,
    tenant: UUID,
    place: str,
    change: str | None,
) -> None:
    column, before = place.partition(".")[2], shown(served, run)
    assert [status for status, _ in before] == [200] * 4
    do = change if change is None or " = " in change else f"{column} = {change}"
    with tampered(roles, "batch", BATCH, (tenant, run.run_id), do) as is_done:
        assert shown(served, run) == before
        found = verification(served.live, run)
    # The column is empty where a batch holds records of one run, and stays so.
    is_same = place in UNSIGNED or (place == "batch.entries" and change != "''::bytea")
    assert found.verdict == ("broken" if is_done and not is_same else "valid"), found
    assert verification(served.live, run).verdict == "valid"


@pytest.mark.parametrize(("place", "change"), OF_WRITERS)
def test_a_writer_moves_nothing_that_is_shown_and_the_verification_names_it(
    served: WitnessedServer,
    roles: Roles,
    run: Run,
    tenant: UUID,
    place: str,
    change: str | None,
) -> None:
    column, before = place.partition(".")[2], shown(served, run)
    do = None if change is None else f"{column} = {change}"
    try:
        with other_writer(roles, (tenant, run.run_id), do):
            assert shown(served, run) == before
            found = verification(served.live, run)
    except (asyncpg.CheckViolationError, asyncpg.NotNullViolationError):
        return  # the table refuses it
    assert found.verdict == ("valid" if place in UNSIGNED else "broken"), found
    assert verification(served.live, run).verdict == "valid"
