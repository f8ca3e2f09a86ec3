"""Calls `ledger_append` as an intruder does: by the names of its parameters, with forged bytes."""

from typing import Any
from uuid import UUID, uuid4

import asyncpg

from bench.tampering.forging import (
    FIELD_NAMES,
    OwnWriter,
    Row,
    commit,
    encode,
    header_of,
    ranges,
    sealed,
    tip_of,
)
from bench.tampering.run_ref import RunRef
from tests.support.independent_verifier import chain_hash, record_hash

_ARGUMENTS = """
SELECT unnest(p.proargnames) AS name, format_type(unnest(p.proargtypes), NULL) AS type
FROM pg_proc p WHERE p.proname = 'ledger_append'
"""


async def call_append(session: asyncpg.Connection, values: Row) -> None:
    """SELECT ledger_append(...): parameters that nobody names stay empty."""
    wanted = [(row["name"], row["type"]) for row in await session.fetch(_ARGUMENTS)]
    placed = ", ".join(
        f"{name} => ${place}::{kind}" for place, (name, kind) in enumerate(wanted, 1)
    )
    empty: dict[str, Any] = {name: [] if kind.endswith("[]") else None for name, kind in wanted}
    empty["p_companions"] = "[]"
    given = empty | {name: value for name, value in values.items() if name in empty}
    await session.execute(f"SELECT ledger_append({placed})", *(given[name] for name, _ in wanted))


def forged_after(
    run: RunRef, last: Row, like: Row, *, writer: OwnWriter, key: bytes | None, text: bytes
) -> Row:
    """The arguments of an append of one record like `like` after `last`, chained correctly.

    `key` is the run's key: with it the record carries content that opens and is committed to.
    """
    seq, batch = last["seq"] + 1, uuid4()
    members = header_of(like)
    members |= {"seq": seq, "event_id": uuid4().hex, "nonce": uuid4().hex}
    members |= {"writer": writer.writer_id.hex, "ts": header_of(last)["ts"], "intent": None}
    members |= {"commit": {}, "size": {}, "epoch": last["epoch"]}
    fields: list[int] = []
    blobs: list[bytes] = []
    if key is not None:
        number = next(FIELD_NAMES.index(name) for name in header_of(like)["commit"])
        clear = uuid4().bytes + uuid4().bytes + text
        members["commit"] = {FIELD_NAMES[number]: commit(run.log, run.run, seq, number, clear)}
        members["size"] = {FIELD_NAMES[number]: len(text).bit_length()}
        fields, blobs = [number], [sealed(key, run.log, run.run, seq, number, clear)]
    header = encode(members)
    rc = record_hash(header)
    chain = chain_hash(last["chain"], seq, rc)
    tip = tip_of(run.run, [{"seq": seq, "chain": chain}])
    run_id = UUID(run.run)
    return {
        "p_tenant": UUID(run.log),
        "p_batch": batch,
        "p_writer": writer.writer_id,
        "p_ranges": ranges(run.run, seq, seq),
        "p_entries": chain,
        "p_tip": tip,
        "p_sig": writer.sign(run.log, batch, 1, tip),
        "p_runs": [run_id],
        "p_seqs": [seq],
        "p_epochs": [last["epoch"]],
        "p_kinds": [like["kind"]],
        "p_ts": [last["ts"]],
        "p_headers": [header],
        "p_rcs": [rc],
        "p_chains": [chain],
        "p_field_runs": [run_id] * len(fields),
        "p_field_seqs": [seq] * len(fields),
        "p_fields": fields,
        "p_blobs": blobs,
    }
