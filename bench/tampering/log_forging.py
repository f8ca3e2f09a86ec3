"""Makes a whole log anew, as somebody with the log key can: leaves, tiles, roots and notes.

Everything from docs/ledger-format.md sections 5, 9 and 10 and RFC 6962, nothing of the application.
"""

import base64
import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

import asyncpg

from bench.tampering.forging import Row, commit, encode, header_of, opened, rehash, sealed
from bench.tampering.hands import Hands
from bench.tampering.run_ref import RunRef
from tests.support.independent_reader import leaf_hash
from tests.support.independent_verifier import canonical
from tests.support.small_log import NoteKey

_WIDTH = 256
_LEAVES = """
SELECT l.run_id, l.seq, r.chain FROM leaf l
JOIN record r USING (tenant_id, run_id, seq) WHERE l.tenant_id = $1 ORDER BY l.idx
"""
NOTE_FIELD = 8


def root_of_hashes(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 6962 over leaf hashes."""
    if not hashes:
        return sha256(b"").digest()
    level = list(hashes)
    while len(level) > 1:
        paired = [
            sha256(b"\1" + level[at] + level[at + 1]).digest() for at in range(0, len(level) - 1, 2)
        ]
        level = paired + level[len(level) - len(level) % 2 :]
    return level[0]


def tiles_of(hashes: Sequence[bytes]) -> dict[tuple[int, int], bytes]:
    """All tiles of a log, by level and number."""
    found: dict[tuple[int, int], bytes] = {}
    level, number = list(hashes), 0
    while level:
        for at in range(0, len(level), _WIDTH):
            found[number, at // _WIDTH] = b"".join(level[at : at + _WIDTH])
        level = [
            root_of_hashes(level[at : at + _WIDTH])
            for at in range(0, len(level) - len(level) % _WIDTH, _WIDTH)
        ]
        number += 1
    return found


def note_of(origin: str, size: int, root: bytes, seed: bytes) -> str:
    """A checkpoint signed with the log key."""
    text = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n".encode()
    return (text + b"\n" + NoteKey(origin, seed=seed).line(text)).decode()


async def leaf_hashes(sql: asyncpg.Connection, log: UUID) -> list[bytes]:
    """The leaf hashes of a log as its rows have them now."""
    return [
        leaf_hash(log.bytes, row["run_id"].bytes, row["seq"], row["chain"])
        for row in await sql.fetch(_LEAVES, log)
    ]


async def close_up(sql: asyncpg.Connection, log: UUID) -> None:
    """Take leaves without a record out, and number the rest anew."""
    await sql.execute(
        "DELETE FROM leaf l WHERE l.tenant_id = $1 AND NOT EXISTS (SELECT 1 FROM record r WHERE"
        " (r.tenant_id, r.run_id, r.seq) = (l.tenant_id, l.run_id, l.seq))",
        log,
    )
    rows = await sql.fetch("SELECT run_id, seq FROM leaf WHERE tenant_id = $1 ORDER BY idx", log)
    await sql.execute("DELETE FROM leaf WHERE tenant_id = $1", log)
    await sql.executemany(
        "INSERT INTO leaf (tenant_id, idx, run_id, seq) VALUES ($1, $2, $3, $4)",
        [(log, place, row["run_id"], row["seq"]) for place, row in enumerate(rows)],
    )


async def make_log_anew(sql: asyncpg.Connection, log: UUID, seed: bytes | None) -> dict[str, str]:
    """Tiles, head and every checkpoint to fit the records; old notes and what became of them.

    Without the log key checkpoints that do not fit any more are deleted.
    """
    hashes = await leaf_hashes(sql, log)
    await sql.execute("DELETE FROM tile WHERE tenant_id = $1", log)
    await sql.executemany(
        "INSERT INTO tile (tenant_id, level, n, data) VALUES ($1, $2, $3, $4)",
        [(log, level, n, data) for (level, n), data in tiles_of(hashes).items()],
    )
    await sql.execute(
        "UPDATE log_head SET size = $2, root = $3 WHERE tenant_id = $1",
        log,
        len(hashes),
        root_of_hashes(hashes),
    )
    changed: dict[str, str] = {}
    whole = root_of_hashes(hashes)
    for row in await sql.fetch(
        "DELETE FROM checkpoint WHERE tenant_id = $1 AND size > $2 RETURNING *", log, len(hashes)
    ):
        if seed is not None:
            changed[row["note"]] = note_of(row["origin"], len(hashes), whole, seed)
    await sql.execute(
        "DELETE FROM cosignature WHERE tenant_id = $1 AND size > $2", log, len(hashes)
    )
    for row in await sql.fetch("SELECT * FROM checkpoint WHERE tenant_id = $1", log):
        root = root_of_hashes(hashes[: row["size"]])
        if seed is None:
            if root != row["root"]:
                await sql.execute(
                    "DELETE FROM checkpoint WHERE tenant_id = $1 AND size = $2", log, row["size"]
                )
            continue
        note = note_of(row["origin"], row["size"], root, seed)
        changed[row["note"]] = note
        await sql.execute(
            "UPDATE checkpoint SET root = $4, note = $5"
            " WHERE tenant_id = $1 AND size = $2 AND origin = $3",
            log,
            row["size"],
            row["origin"],
            root,
            note,
        )
    return changed


async def admin_run(sql: asyncpg.Connection, log: UUID) -> RunRef:
    """The administration run of a log."""
    run: UUID = await sql.fetchval(
        "SELECT run_id FROM runs WHERE tenant_id = $1 AND kind = 'admin'", log
    )
    return RunRef(tenant="", log=log.hex, run=run.hex)


async def replace_notes(hands: Hands, run: RunRef, changed: dict[str, str]) -> None:
    """Put other checkpoints into the `checkpoint.tenant` records that hold them; hashes fit."""
    key = await hands.run_key(run)
    rows = await hands.records(run)
    for payload in await hands.payloads(run):
        clear = opened(key, payload)
        note = _note_in(clear)
        if note not in changed:
            continue
        seq = payload["seq"]
        value = canonical({"checkpoint": changed[note]})
        again = clear[:32] + value
        blob = sealed(key, run.log, run.run, seq, NOTE_FIELD, again)
        await hands.put_payload({**payload, "blob": blob})
        members = header_of(rows[seq])
        members["commit"] = {"note": commit(run.log, run.run, seq, NOTE_FIELD, again)}
        members["size"] = {"note": len(value).bit_length()}
        rows[seq]["header"] = encode(members)
    rehash(run.log, run.run, rows)
    await hands.put_records(run, rows)


def _note_in(clear: bytes) -> Any:

    held: Row = json.loads(clear[32:])
    return held.get("checkpoint")
