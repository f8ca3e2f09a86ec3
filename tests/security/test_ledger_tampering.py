"""Whoever owns the database can change a ledger, but not unnoticed: each attack is named."""

import random  # noqa: TID251 - which bits are flipped: seeded, not secret
from collections.abc import Iterator, Mapping

import asyncpg
import pytest

from tests.security.tampering_scene import (
    Run,
    as_superuser,
    assert_broken,
    assert_whole,
    attack,
    attacked,
    changes,
    columns_of,
    disarmed_server,
    finished_run,
    verification,
    whole_run,
)
from tests.support.databases import Roles
from tests.support.live_server import LiveServer

TABLES = ("record", "payload", "batch", "run_key", "writer_key")

# Nothing under a hash says these; a change of them changes nothing that the ledger claims.
OUTSIDE: Mapping[str, str] = {
    "batch.xid": "order of discovery for the sequencer; another server gives other numbers",
    "writer_key.created_at": "when a row was made; the ledger's times are in the headers",
    "writer_key.seen_at": "a heartbeat: it changes every second",
    "writer_key.retired_at": "what keeps a writer from appending; the ledger says key.retired",
    "writer_key.retired_xid": "as batch.xid",
    "writer_key.retirement_seq": "where key.retired is; it is found without this",
}

# Where the altered row stands in the run, and what the verifier says of it. The row is that of
# seq 3, the first record of its batch, or what belongs to it.
GAP = (3, "a record is missing or out of order")
NO_BATCH = (3, "the batch of a record is gone")
NO_FIELD = (3, "payload 'reply' is gone without a recorded erasure")
NO_KEY = (0, "the key of the run is gone")
NAMED: Mapping[str, tuple[int, str]] = {
    "record.tenant_id": GAP,
    "record.run_id": GAP,
    "record.seq": GAP,
    "record.epoch": (3, "column 'epoch' differs from the header"),
    "record.kind": (3, "column 'kind' differs from the header"),
    "record.ts": (3, "column 'ts' differs from the header"),
    "record.header": (3, "header"),
    "record.rc": (3, "the record hash does not match the header"),
    "record.chain": (3, "the chain hash does not match"),
    "record.batch_id": NO_BATCH,
    "payload.tenant_id": NO_FIELD,
    "payload.run_id": NO_FIELD,
    "payload.seq": NO_FIELD,
    "payload.field": (3, "a payload field was never committed to"),
    "payload.blob": (3, "payload 'reply' does not open"),
    "batch.tenant_id": NO_BATCH,
    "batch.batch_id": NO_BATCH,
    "batch.writer_id": (3, "the writer of a batch is unknown"),
    "batch.n": (3, "the tip of a batch does not match its records"),
    "batch.ranges": (3, "the ranges of a batch do not cover its records"),
    "batch.entries": (3, "the entries of a batch do not match its records"),
    "batch.tip": (3, "the tip of a batch does not match its records"),
    "batch.sig": (3, "the signature of a batch does not hold"),
    "run_key.tenant_id": NO_KEY,
    "run_key.run_id": NO_KEY,
    "run_key.kek_id": (0, "the key of the run does not open"),
    "run_key.wrapped": (0, "the key of the run does not open"),
    "writer_key.writer_id": (0, "the writer of a batch is unknown"),
    "writer_key.public_key": (0, "the writer of a batch is not certified"),
    "writer_key.certificate": (0, "the writer of a batch is not certified"),
}

# NULL in a batch of one run, as all are here; those of several are attacked in the storage tests.
ENTRIES = "batch.entries"
CHANGES = [c for c in changes(*TABLES) if c[0] not in {ENTRIES, *OUTSIDE}]
CHANGES += [(ENTRIES, "'x'::bytea"), (ENTRIES, "''::bytea"), (ENTRIES, "sha256('')")]


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with disarmed_server(roles) as served:
        yield served


@pytest.fixture
def run(live: LiveServer) -> Run:
    return whole_run(live)


def _where(table: str, seq: int) -> str:
    match table:
        case "record":
            return f"run_id = $1 AND seq = {seq}"
        case "payload":  # what the record says; its facts of the decision stand beside it
            return f"run_id = $1 AND seq = {seq} AND field <> 7"
        case "batch":
            return f"batch_id = (SELECT batch_id FROM record WHERE run_id = $1 AND seq = {seq})"
        case "run_key":
            return "run_id = $1"
        case _:
            inner = "SELECT writer_id FROM batch JOIN record USING (batch_id) WHERE run_id = $1"
            return f"writer_id = ({inner} LIMIT 1)"


def test_every_column_of_the_ledger_is_attacked_or_named_with_its_reason(roles: Roles) -> None:
    columns = columns_of(roles, *TABLES)
    assert columns == set(NAMED) | set(OUTSIDE)
    assert {place for place, _ in CHANGES} == set(NAMED)
    assert not set(NAMED) & set(OUTSIDE)


@pytest.mark.parametrize(("place", "value"), [c for c in CHANGES if "writer_key" not in c[0]])
def test_a_changed_column_is_named(live: LiveServer, run: Run, place: str, value: str) -> None:
    table, _, column = place.partition(".")
    statement = f"UPDATE {table} SET {column} = {value} WHERE {_where(table, 3)}"
    attack(live.roles, statement, run.run_id)
    assert_broken(live, run, *NAMED[place])


@pytest.mark.parametrize(("place", "value"), [c for c in CHANGES if "writer_key" in c[0]])
def test_a_changed_writer_key_breaks_what_it_signed(
    live: LiveServer, run: Run, place: str, value: str
) -> None:
    table, _, column = place.partition(".")
    inner = _where(table, 3)
    keep = f"CREATE TABLE kept AS SELECT * FROM writer_key WHERE {inner}"

    async def change(raw: asyncpg.Connection) -> None:
        await raw.execute(keep.replace("$1", f"'{run.run_id}'"))
        await raw.execute(f"UPDATE {table} SET {column} = {value} WHERE {inner}", run.run_id)

    async def restore(raw: asyncpg.Connection) -> None:
        await raw.execute(
            "UPDATE writer_key w SET writer_id = k.writer_id, public_key = k.public_key,"
            " certificate = k.certificate"
            " FROM kept k WHERE w.writer_id = k.writer_id OR w.public_key = k.public_key"
        )
        await raw.execute("DROP TABLE kept")

    as_superuser(live.roles, change)
    try:
        assert_broken(live, run, *NAMED[place])
    finally:
        as_superuser(live.roles, restore)
    assert_whole(live, run)


@pytest.mark.parametrize("place", sorted(OUTSIDE))
def test_a_column_outside_the_ledger_raises_no_alarm(
    live: LiveServer, run: Run, place: str
) -> None:
    table, _, column = place.partition(".")
    others = {"xid": "'7'::xid8", "retired_xid": "'7'::xid8", "retirement_seq": "7"}
    value = others.get(column, f"{column} - interval '1 second'")
    attack(
        live.roles, f"UPDATE {table} SET {column} = {value} WHERE {_where(table, 3)}", run.run_id
    )
    assert_whole(live, run)


@pytest.mark.parametrize("table", ["record", "payload"])
def test_a_flipped_bit_anywhere_is_named_at_its_record(
    live: LiveServer, run: Run, table: str
) -> None:
    """Thirty places in the headers, thirty in the sealed payloads; each is put back."""
    column, field = ("header", "0") if table == "record" else ("blob", "field")
    dice = random.Random(f"flip {table}")

    async def sizes(raw: asyncpg.Connection) -> dict[tuple[int, int], int]:
        rows = await raw.fetch(
            f"SELECT seq, {field} AS field, octet_length({column}) AS n FROM {table}"
            " WHERE run_id = $1",
            run.run_id,
        )
        return {(row["seq"], row["field"]): row["n"] for row in rows}

    rooms = as_superuser(live.roles, sizes)
    for _ in range(30):
        seq, number = dice.choice(sorted(rooms))
        bit = dice.randrange(rooms[seq, number] * 8)
        flip = (
            f"UPDATE {table} SET {column} = set_bit({column}, {bit}, 1 - get_bit({column}, {bit}))"
            f" WHERE run_id = $1 AND seq = {seq} AND {field} = {number}"
        )
        with attacked(live.roles, flip, flip, run.run_id):
            found = verification(live, run)
            assert (found.verdict, found.seq) == ("broken", seq), (bit, found)
    assert_whole(live, run)


@pytest.mark.parametrize("seq", range(9))
def test_a_deleted_record_is_missed(live: LiveServer, run: Run, seq: int) -> None:
    """First, middle and last."""
    attack(live.roles, f"DELETE FROM record WHERE run_id = $1 AND seq = {seq}", run.run_id)
    reason = "a finished run of 9 records was cut" if seq == 8 else GAP[1]
    assert_broken(live, run, seq, reason)


def test_a_tail_cut_with_everything_that_belongs_to_it_is_missed(
    live: LiveServer, run: Run
) -> None:
    attack(
        live.roles,
        "DELETE FROM batch WHERE batch_id = (SELECT batch_id FROM record WHERE run_id = $1"
        " AND seq = 8)",
        run.run_id,
    )
    attack(live.roles, "DELETE FROM payload WHERE run_id = $1 AND seq > 6", run.run_id, rows=5)
    attack(live.roles, "DELETE FROM record WHERE run_id = $1 AND seq > 6", run.run_id, rows=2)
    assert_broken(live, run, 7, "a finished run of 9 records was cut")


@pytest.mark.parametrize("length", [7, 8])
def test_a_tail_cut_with_the_length_adjusted_is_missed(
    live: LiveServer, run: Run, length: int
) -> None:
    cut = f"DELETE FROM record WHERE run_id = $1 AND seq >= {length}"
    attack(live.roles, cut, run.run_id, rows=9 - length)
    cut = f"DELETE FROM payload WHERE run_id = $1 AND seq >= {length}"
    attack(live.roles, cut, run.run_id, rows={7: 5, 8: 3}[length])
    attack(live.roles, f"UPDATE runs SET entries = {length} WHERE run_id = $1", run.run_id)
    assert_broken(live, run, length - 1, "a finished run does not end with its final record")


def test_all_records_gone_is_not_an_empty_ledger(live: LiveServer, run: Run) -> None:
    attack(live.roles, "DELETE FROM record WHERE run_id = $1", run.run_id, rows=9)
    attack(live.roles, "DELETE FROM payload WHERE run_id = $1", run.run_id, rows=17)
    assert_broken(live, run, 0, "a run without records")


@pytest.mark.parametrize(
    ("seq", "which"),
    [
        *((seq, "field NOT IN (7, 8)") for seq in (0, *range(2, 9))),
        *((seq, "field = 7") for seq in (0, 2, 5, 8)),
        (8, "field = 8"),
    ],
)
def test_a_deleted_payload_is_missed(live: LiveServer, run: Run, seq: int, which: str) -> None:
    cut = f"DELETE FROM payload WHERE run_id = $1 AND seq = {seq} AND {which}"
    attack(live.roles, cut, run.run_id)
    assert_broken(live, run, seq, "is gone without a recorded erasure")


@pytest.mark.parametrize("seq", [0, 3, 5, 7])  # each the first of its batch
def test_a_deleted_batch_is_missed(live: LiveServer, run: Run, seq: int) -> None:
    attack(live.roles, f"DELETE FROM batch WHERE {_where('batch', seq)}", run.run_id)
    assert_broken(live, run, seq, "the batch of a record is gone")


def test_a_deleted_run_key_is_missed(live: LiveServer, run: Run) -> None:
    attack(live.roles, "DELETE FROM run_key WHERE run_id = $1", run.run_id)
    assert_broken(live, run, *NO_KEY)


@pytest.mark.parametrize(("one", "two"), [(2, 6), (3, 7), (3, 5), (0, 8)])
def test_two_swapped_payloads_are_named(live: LiveServer, run: Run, one: int, two: int) -> None:
    """Of one field, and an input with an output."""
    swap = (
        "UPDATE payload p SET blob = q.blob FROM payload q WHERE p.run_id = $1 AND q.run_id = $1"
        f" AND (p.seq, q.seq) IN (({one}, {two}), ({two}, {one})) AND p.field NOT IN (7, 8)"
        " AND q.field NOT IN (7, 8)"
    )
    attack(live.roles, swap, run.run_id, rows=2)
    assert_broken(live, run, one, "does not open")


def test_a_payload_of_another_run_is_named(live: LiveServer, run: Run) -> None:
    other = finished_run(live)
    graft = (
        "UPDATE payload p SET blob = q.blob FROM payload q WHERE p.run_id = $1 AND q.run_id = $2"
        " AND p.seq = 8 AND q.seq = 8 AND p.field = 6 AND q.field = 6"
    )
    attack(live.roles, graft, run.run_id, other.run_id)
    assert_broken(live, run, 8, "payload 'output' does not open")
    assert_whole(live, other)


def test_a_payload_that_nobody_committed_to_is_named(live: LiveServer, run: Run) -> None:
    added = (
        "INSERT INTO payload SELECT tenant_id, run_id, 3, 8, blob FROM payload"
        " WHERE run_id = $1 AND seq = 3 AND field <> 7"
    )
    attack(live.roles, added, run.run_id)
    assert_broken(live, run, 3, "a payload field was never committed to")


def test_a_payload_without_a_record_is_named(live: LiveServer, run: Run) -> None:
    added = (
        "INSERT INTO payload SELECT tenant_id, run_id, 9, field, blob FROM payload"
        " WHERE run_id = $1 AND seq = 8 AND field = 6"
    )
    attack(live.roles, added, run.run_id)
    assert_broken(live, run, 9, "a payload belongs to no record")


def test_two_reordered_records_are_named(live: LiveServer, run: Run) -> None:
    async def swap(raw: asyncpg.Connection) -> None:
        for table in ("record", "payload"):
            for old, new in ((4, 100), (5, 4), (100, 5)):
                await raw.execute(
                    f"UPDATE {table} SET seq = {new} WHERE run_id = $1 AND seq = {old}", run.run_id
                )

    as_superuser(live.roles, swap)
    assert_broken(live, run, 4, "column 'seq' differs from the header")


def test_a_run_under_another_id_is_named(live: LiveServer, run: Run) -> None:
    """The whole ledger of one run is put under the row of another."""
    other = finished_run(live)

    async def replay(raw: asyncpg.Connection) -> None:
        for table in ("record", "payload", "run_key"):
            await raw.execute(f"DELETE FROM {table} WHERE run_id = $1", run.run_id)
            await raw.execute(
                f"UPDATE {table} SET run_id = $1 WHERE run_id = $2", run.run_id, other.run_id
            )

    as_superuser(live.roles, replay)
    assert_broken(live, run, 0, "the key of the run does not open")


def test_a_ledger_under_another_run_with_its_own_key_is_named(live: LiveServer, run: Run) -> None:
    other = finished_run(live)

    async def replay(raw: asyncpg.Connection) -> None:
        for table in ("record", "payload"):
            await raw.execute(f"DELETE FROM {table} WHERE run_id = $1", run.run_id)
            await raw.execute(
                f"UPDATE {table} SET run_id = $1 WHERE run_id = $2", run.run_id, other.run_id
            )

    as_superuser(live.roles, replay)
    assert_broken(live, run, 0, "column 'run' differs from the header")


@pytest.mark.parametrize("with_key", [True, False])
def test_a_run_moved_to_another_tenant_is_named(
    live: LiveServer, run: Run, *, with_key: bool
) -> None:
    theirs = finished_run(live, "other")

    async def move(raw: asyncpg.Connection) -> None:
        target = await raw.fetchval("SELECT tenant_id FROM runs WHERE run_id = $1", theirs.run_id)
        await raw.execute(
            "UPDATE batch SET tenant_id = $2 WHERE batch_id IN"
            " (SELECT batch_id FROM record WHERE run_id = $1)",
            run.run_id,
            target,
        )
        moved = ["runs", "record", "payload", "run_result", *(["run_key"] if with_key else [])]
        for table in moved:
            statement = f"UPDATE {table} SET tenant_id = $2 WHERE run_id = $1"
            await raw.execute(statement, run.run_id, target)

    as_superuser(live.roles, move)
    reason = "the key of the run does not open" if with_key else NO_KEY[1]
    assert_broken(live, run, 0, reason, who="other")
    with live.client("acme") as client:
        for path in ("", "/verification", "/entries", "/events"):
            assert client.get(f"/v1/runs/{run.public}{path}").status_code == 404
    assert_whole(live, theirs, who="other")


RESPELLED: Mapping[str, tuple[str, str]] = {
    "spacing": ("convert_to(replace(h, ',', ', '), 'UTF8')", "malformed"),
    "trailing newline": ("header || '\\x0a'::bytea", "malformed"),
    "byte order mark": ("'\\xefbbbf'::bytea || header", "malformed"),
    "an escape": ("convert_to(replace(h, 'model', '\\u006dodel'), 'UTF8')", "malformed"),
    "a float": ("convert_to(replace(h, '\"v\":1', '\"v\":1.0'), 'UTF8')", "malformed"),
    "a key twice": ("convert_to(replace(h, '\"v\":1', '\"v\":1,\"v\":1'), 'UTF8')", "malformed"),
    "key order": (
        "convert_to('{\"v\":1,' || replace(substr(h, 2), ',\"v\":1', ''), 'UTF8')",
        "malf",
    ),
    "a new member": ("convert_to('{\"a\":1,' || substr(h, 2), 'UTF8')", "malformed"),
    "free text": (
        'convert_to(replace(h, \'"actor":"model"\', \'"actor":"me"\'), \'UTF8\')',
        "malf",
    ),
    "another actor": (
        'convert_to(replace(h, \'"actor":"model"\', \'"actor":"tool"\'), \'UTF8\')',
        "the record hash does not match",
    ),
}


@pytest.mark.parametrize("how", sorted(RESPELLED))
def test_a_respelled_header_is_named(live: LiveServer, run: Run, how: str) -> None:
    value, reason = RESPELLED[how]
    respell = value.replace("(h,", "(convert_from(header, 'UTF8'),")
    change = f"UPDATE record SET header = {respell}"
    statement = f"{change} WHERE run_id = $1 AND seq = 3 AND header <> {respell}"
    attack(live.roles, statement, run.run_id)
    assert_broken(live, run, 3, reason)


def test_thirty_untouched_runs_raise_no_alarm_beside_an_attacked_one(
    live: LiveServer, run: Run
) -> None:
    others = [finished_run(live) for _ in range(30)]
    attack(live.roles, "DELETE FROM record WHERE run_id = $1 AND seq = 4", run.run_id)
    for other in others:
        assert_whole(live, other)
    assert_broken(live, run, 4, GAP[1])
