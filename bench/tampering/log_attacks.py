"""Attacks on the log of a tenant: its places, tiles, head and checkpoints, with and without keys.

The rows are those of docs/ledger-format.md sections 9 and 10. A sequencer that is wrong, or lies,
holds the log key: what it makes of the log is signed as an honest one signs.
"""

import asyncpg

from bench.tampering.attack import AttackClass, Deed
from bench.tampering.chain_attacks import edited, sign_again
from bench.tampering.hands import MIDDLE, Hands
from bench.tampering.log_forging import make_log_anew, note_of
from bench.tampering.run_ref import RunRef

_TILE = 256 * 32
_NOWHERE = 10**9
_PLACES = "SELECT idx, seq FROM leaf WHERE tenant_id = $1 AND run_id = $2 ORDER BY idx"


async def _rewritten(hands: Hands, *, seed: bytes | None, stolen: bool) -> RunRef:
    """A run changed and re-hashed, and every leaf, tile, head and root made to fit it."""
    run = hands.any_run()
    await hands.put_records(run, await edited(hands, run))
    await sign_again(hands, run, await hands.stolen_writer(run) if stolen else None)
    notes = await hands.sql.fetch(
        "SELECT size, note FROM checkpoint WHERE tenant_id = $1", run.ids[0]
    )
    await make_log_anew(hands.sql, run.ids[0], seed or hands.rng.randbytes(32))
    if seed is None:
        await hands.sql.executemany(
            "UPDATE checkpoint SET note = $3 WHERE tenant_id = $1 AND size = $2",
            [(run.ids[0], row["size"], row["note"]) for row in notes],
        )
    return run


async def rewrite_under_old_notes(hands: Hands) -> Deed:
    """Run, leaves, tiles and roots fit; the notes are those that were signed."""
    return Deed(runs=(await _rewritten(hands, seed=None, stolen=False),))


async def rewrite_in_old_notes(hands: Hands) -> Deed:
    """The same, and the notes hold the new roots over the old signatures."""
    run = await _rewritten(hands, seed=None, stolen=hands.rng.random() < 0.5)
    for row in await hands.sql.fetch("SELECT * FROM checkpoint WHERE tenant_id = $1", run.ids[0]):
        other = note_of(row["origin"], row["size"], row["root"], bytes(32))
        text, _, _ = other.partition("\n\n")
        _, _, line = row["note"].partition("\n\n")
        await hands.sql.execute(
            "UPDATE checkpoint SET note = $3 WHERE tenant_id = $1 AND size = $2",
            run.ids[0],
            row["size"],
            f"{text}\n\n{line}",
        )
    return Deed(runs=(run,))


async def rewrite_under_own_key(hands: Hands) -> Deed:
    """The same, signed with a log key of the attacker's own; batches stay as they were signed."""
    return Deed(runs=(await _rewritten(hands, seed=hands.rng.randbytes(32), stolen=False),))


async def rewrite_with_writer_under_own_key(hands: Hands) -> Deed:
    """The same with a stolen enrolment key, so that every batch is well signed (A3)."""
    return Deed(runs=(await _rewritten(hands, seed=hands.rng.randbytes(32), stolen=True),))


async def _log_of(hands: Hands, run: RunRef) -> list[asyncpg.Record]:
    found: list[asyncpg.Record] = await hands.sql.fetch(
        "SELECT run_id, seq FROM leaf WHERE tenant_id = $1 ORDER BY idx", run.ids[0]
    )
    return found


async def _put_log(hands: Hands, run: RunRef, places: list[asyncpg.Record]) -> None:
    """The log with these places in this order, signed with the log key."""
    await hands.sql.execute("DELETE FROM leaf WHERE tenant_id = $1", run.ids[0])
    await hands.sql.executemany(
        "INSERT INTO leaf (tenant_id, idx, run_id, seq) VALUES ($1, $2, $3, $4)",
        [(run.ids[0], at, row["run_id"], row["seq"]) for at, row in enumerate(places)],
    )
    await make_log_anew(hands.sql, run.ids[0], hands.key_file("signing/log.1"))


async def skip_a_row(hands: Hands) -> Deed:
    """A sequencer that leaves a record in the middle of a run out, and signs."""
    run = hands.any_run()
    rows = await hands.records(run)
    gone = hands.rng.randrange(MIDDLE, len(rows) - MIDDLE)
    places = [row for row in await _log_of(hands, run) if not _is(row, run, gone)]
    await _put_log(hands, run, places)
    return Deed(runs=(run,))


async def skip_the_last(hands: Hands) -> Deed:
    """A sequencer that leaves the end of a run out, and signs: it is never witnessed."""
    run = hands.any_run()
    rows = await hands.records(run)
    first = len(rows) - hands.rng.randrange(1, 6)
    skipped = set(range(first, len(rows)))
    places = [
        row
        for row in await _log_of(hands, run)
        if row["run_id"] != run.ids[1] or row["seq"] not in skipped
    ]
    await _put_log(hands, run, places)
    async with hands.scene.client(run.tenant) as http:
        told = (await http.get(f"/v1/runs/{run.public}/verification")).json()
    said = told["integrity"] or {}
    if told["verdict"] == "valid" and said.get("state") == "pending" and said["unwitnessed"]:
        return Deed(signs=("D10",))
    return Deed(runs=(run,))


async def take_twice(hands: Hands) -> Deed:
    """A sequencer that takes a record twice: the table's own rule against it is there."""
    run = hands.any_run()
    places = await _log_of(hands, run)
    twice = hands.rng.choice([row for row in places if row["run_id"] == run.ids[1]])
    try:
        await hands.insert(
            "leaf",
            {
                "tenant_id": run.ids[0],
                "idx": len(places),
                "run_id": twice["run_id"],
                "seq": twice["seq"],
            },
        )
    except asyncpg.UniqueViolationError as error:
        return Deed(refused=type(error).__name__)
    return Deed(quiet="taken twice")


async def take_in_the_place_of_another(hands: Hands) -> Deed:
    """A sequencer that hashes one record into two places; the row of the second names another."""
    run = hands.any_run()
    rows = await hands.records(run)
    one, other = hands.rng.sample(rows[MIDDLE:-MIDDLE], 2)
    # Only for the moment in which the log is made: then the row is what it was.
    await hands.set_record(run, other["seq"], chain=one["chain"])
    await make_log_anew(hands.sql, run.ids[0], hands.key_file("signing/log.1"))
    await hands.set_record(run, other["seq"], chain=other["chain"])
    return Deed(runs=(run,))


async def take_out_of_order(hands: Hands) -> Deed:
    """A sequencer that takes a later record of a run first, and signs."""
    run = hands.any_run()
    places = await _log_of(hands, run)
    own = [at for at, row in enumerate(places) if row["run_id"] == run.ids[1]]
    one, other = hands.rng.sample(own, 2)
    places[one], places[other] = places[other], places[one]
    await _put_log(hands, run, places)
    return Deed(runs=(run,))


def _is(row: asyncpg.Record, run: RunRef, seq: int) -> bool:
    return bool(row["run_id"] == run.ids[1] and row["seq"] == seq)


async def drop_a_place(hands: Hands) -> Deed:
    """The row that says where in the log a record stands."""
    run = hands.any_run()
    rows = await hands.records(run)
    await hands.drop("leaf", run, hands.rng.choice(rows)["seq"])
    return Deed(runs=(run,))


async def drop_all_places(hands: Hands) -> Deed:
    """All places of a run."""
    run = hands.any_run()
    await hands.drop("leaf", run)
    return Deed(runs=(run,))


async def swap_places(hands: Hands) -> Deed:
    """The places of two records of two runs change hands."""
    one = hands.any_run()
    other = hands.rng.choice(
        [run for run in hands.scene.closed if run != one and run.tenant == one.tenant]
    )
    first = hands.rng.choice(await hands.sql.fetch(_PLACES, *one.ids))
    second = hands.rng.choice(await hands.sql.fetch(_PLACES, *other.ids))
    for run, place, to in ((one, first, _NOWHERE), (other, second, first["idx"])):
        await hands.sql.execute(
            "UPDATE leaf SET idx = $4 WHERE tenant_id = $1 AND run_id = $2 AND seq = $3",
            *run.ids,
            place["seq"],
            to,
        )
    await hands.sql.execute(
        "UPDATE leaf SET idx = $4 WHERE tenant_id = $1 AND run_id = $2 AND seq = $3",
        *one.ids,
        first["seq"],
        second["idx"],
    )
    return Deed(runs=(one, other))


async def _tile(hands: Hands, run: RunRef, *, partial: bool) -> tuple[asyncpg.Record, int, RunRef]:
    """A tile of the leaves of the tenant, a leaf in it, and the run whose record it is."""
    tiles = await hands.sql.fetch(
        "SELECT * FROM tile WHERE tenant_id = $1 AND level = 0 ORDER BY n", run.ids[0]
    )
    whole = [tile for tile in tiles if len(tile["data"]) == _TILE]
    tile = tiles[-1] if partial or not whole else hands.rng.choice(whole)
    first = tile["n"] * 256
    leaf = await hands.sql.fetchrow(
        "SELECT l.idx, l.run_id FROM leaf l JOIN runs r USING (tenant_id, run_id)"
        " WHERE l.tenant_id = $1 AND l.idx >= $2 AND l.idx < $3 AND r.kind <> 'admin'"
        " AND r.status = 'succeeded' ORDER BY random() LIMIT 1",
        run.ids[0],
        first,
        first + len(tile["data"]) // 32,
    )
    known = {one.ids[1]: one for one in hands.scene.runs}
    return tile, leaf["idx"] - first, known[leaf["run_id"]]


async def _corrupt(hands: Hands, *, partial: bool) -> Deed:
    tile, place, run = await _tile(hands, hands.any_run(), partial=partial)
    data = bytearray(tile["data"])
    data[place * 32 + hands.rng.randrange(32)] ^= 1 << hands.rng.randrange(8)
    await _put_tile(hands, tile, bytes(data))
    return Deed(runs=(run,))


async def _put_tile(hands: Hands, tile: asyncpg.Record, data: bytes) -> None:
    await hands.sql.execute(
        "UPDATE tile SET data = $4 WHERE tenant_id = $1 AND level = $2 AND n = $3",
        tile["tenant_id"],
        tile["level"],
        tile["n"],
        data,
    )


async def corrupt_partial_tile(hands: Hands) -> Deed:
    """One bit of a leaf hash in the tile that is not full yet."""
    return await _corrupt(hands, partial=True)


async def corrupt_full_tile(hands: Hands) -> Deed:
    """One bit of a leaf hash in a full tile."""
    return await _corrupt(hands, partial=False)


async def shorten_partial_tile(hands: Hands) -> Deed:
    """The end of the tile that is not full yet, from a record's hash on."""
    tile, place, run = await _tile(hands, hands.any_run(), partial=True)
    await _put_tile(hands, tile, tile["data"][: place * 32])
    return Deed(runs=(run,))


async def drop_tile(hands: Hands) -> Deed:
    """A tile of leaves."""
    tile, _, run = await _tile(hands, hands.any_run(), partial=hands.rng.random() < 0.5)
    await hands.sql.execute(
        "DELETE FROM tile WHERE tenant_id = $1 AND level = 0 AND n = $2",
        tile["tenant_id"],
        tile["n"],
    )
    return Deed(runs=(run,))


_LOG = frozenset({"log"})
CLASSES = (
    AttackClass(
        number=7,
        title="re-hash leaves and root as well, without the log key",
        who="A2",
        named=frozenset({"D5", "D7"}),
        acts=(
            ("notes stay", rewrite_under_old_notes),
            ("roots put into the notes", rewrite_in_old_notes),
            ("own log key", rewrite_under_own_key),
            ("own log key, writers stolen", rewrite_with_writer_under_own_key),
        ),
        needs=_LOG,
    ),
    AttackClass(
        number=30,
        title="the sequencer skips a row, or takes one twice",
        who="bug/A3",
        named=frozenset({"D4", "D10"}),
        acts=(
            ("middle skipped", skip_a_row),
            ("end skipped", skip_the_last),
            ("taken twice", take_twice),
            ("hashed twice", take_in_the_place_of_another),
            ("out of order", take_out_of_order),
        ),
        also={"taken twice": frozenset({"D11"})},
        needs=_LOG,
    ),
    AttackClass(
        number=41,
        title="drop a leaf's place or a tile; corrupt a partial tile",
        who="A2",
        named=frozenset({"D4"}),
        acts=(
            ("place", drop_a_place),
            ("all places", drop_all_places),
            ("places swapped", swap_places),
            ("partial tile", corrupt_partial_tile),
            ("full tile", corrupt_full_tile),
            ("partial tile cut", shorten_partial_tile),
            ("tile", drop_tile),
        ),
        needs=_LOG,
    ),
)
