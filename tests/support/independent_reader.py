"""Reads what the independent verifier checks, by plain SQL and with a key file's key.

Also from docs/ledger-format.md alone: what checking one run does not need. Nothing of the
application is used.

Threat: Ledger tampering
"""

import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support.independent_verifier import Row, lp, spans, tagged


class Connection(Protocol):
    async def fetch(self, query: str, *args: object) -> list[Any]: ...


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    return value.hex if isinstance(value, UUID) else value


def entries_of(batch: Mapping[str, Any]) -> list[tuple[str, int, bytes]]:
    """What a batch keeps of its records, in the order of its ranges."""
    places = [
        (r, seq) for r, a, b in spans(batch["ranges"]) for seq in range(a, min(b, a + 512) + 1)
    ]
    chains = [batch["entries"][at : at + 32] for at in range(0, len(batch["entries"]), 32)]
    same = len(places) == len(chains)
    return [(*place, chain) for place, chain in zip(places, chains, strict=True)] if same else []


async def read_run(
    connection: Connection, tenant_id: str, run_id: str
) -> tuple[Sequence[Row], Sequence[Row], Mapping[str, Row], dict[str, bytes]]:
    """What `verify_run` takes, by plain SQL on an asyncpg connection; ids in hex.

    Rows are dicts of the columns: ids in hex, `ts` as in the header, `entries` of a batch are
    (run hex, seq, chain) of every record of the batch, those of other runs too: section 7.
    For a run still being written the caller opens a repeatable-read transaction around this; the
    caller also sets what row level security asks for. `writers` come from the same database: who
    distrusts it passes pinned keys to `verify_run` instead.
    """

    async def fetch(table: str, where: str, *args: object) -> list[dict[str, Any]]:
        found = await connection.fetch(f"SELECT * FROM {table} {where}", *args)
        return [{name: _plain(value) for name, value in row.items()} for row in found]

    mine = "WHERE tenant_id = $1 AND run_id = $2 ORDER BY seq"
    rows = await fetch("record", mine, tenant_id, run_id)
    payloads = await fetch("payload", mine, tenant_id, run_id)
    names = sorted({row["batch_id"] for row in rows})
    theirs = "WHERE tenant_id = $1 AND batch_id = ANY($2)"
    batches = {b["batch_id"]: b for b in await fetch("batch", theirs, tenant_id, names)}
    for name, batch in batches.items():
        own = [(run_id, row["seq"], row["chain"]) for row in rows if row["batch_id"] == name]
        batch["entries"] = own if batch["entries"] is None else entries_of(batch)
    writers = {w["writer_id"]: w["public_key"] for w in await fetch("writer_key", "")}
    return rows, payloads, batches, writers


def unwrap_run_key(kek: bytes, wrapped: bytes, log: bytes, run: bytes) -> bytes:
    """Section 7: the run key of `run_key.wrapped`; raises InvalidTag for another key or place."""
    return AESGCM(kek).decrypt(wrapped[:12], wrapped[12:], log + run)


def leaf_hash(log: bytes, run: bytes, seq: int, chain: bytes) -> bytes:
    """Section 5: the record's leaf in the tenant's log."""
    return sha256(b"\0" + tagged("leaf", lp(log, run), seq.to_bytes(8), chain)).digest()


def keyed_digest(run_key: bytes, purpose: str, data: bytes) -> bytes:
    """Section 6, with HKDF written out."""
    key = hmac.digest(hmac.digest(b"", run_key, "sha256"), b"meshflow/digest/v1\1", "sha256")
    return hmac.digest(key, lp(purpose.encode(), data), "sha256")
