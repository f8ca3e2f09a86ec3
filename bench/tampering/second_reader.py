"""A reader that goes on after the first thing that does not hold, and names every layer it is of.

Doors name the first break alone, so which layers would have told an attack without that one cannot
be asked of them. This is written from docs/ledger-format.md (by way of the tests' own verifier) and
shares nothing with the application. It is used for the ablation table and judges no attack.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bench.tampering.forging import FIELD_NAMES, Row, commit, opened
from bench.tampering.log_forging import root_of_hashes
from bench.tampering.run_ref import RunRef
from bench.tampering.scene import Scene
from tests.support.independent_reader import leaf_hash, unwrap_run_key
from tests.support.independent_verifier import (
    batch_message,
    chain_hash,
    genesis,
    merkle_tree_hash,
    parse_header,
    record_hash,
    spans,
    tagged,
)
from tests.support.small_log import NoteKey

Layers = frozenset[str]
_NOT = (ValueError, KeyError, IndexError, TypeError, OverflowError, InvalidSignature, InvalidTag)
_STATEMENTS = """
SELECT r.tenant_id, r.run_id, r.seq, p.field, p.blob, k.kek_id, k.wrapped FROM record r
JOIN runs a USING (tenant_id, run_id) JOIN payload p USING (tenant_id, run_id, seq)
JOIN run_key k USING (tenant_id, run_id)
WHERE r.tenant_id = $1 AND a.kind = 'admin' AND r.kind LIKE 'erasure.%'
"""


@dataclass(slots=True, kw_only=True)
class _Lawful:
    """What statements that hold took away: fields, and whole headers."""

    fields: set[tuple[int, str]] = field(default_factory=set)
    headers: set[int] = field(default_factory=set)


class SecondReader:
    """Reads the rows of one scene, with the deployment's own keys as pins."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._kept: dict[RunRef, dict[int, bytes]] = {}
        self._placed: dict[RunRef, set[int]] = {}

    async def remember(self, run: RunRef) -> None:
        """What clients keep of a run: the chain hash of every record that they were shown."""
        rows = await self._fetch("SELECT seq, chain FROM record", run)
        self._kept[run] = {row["seq"]: row["chain"] for row in rows}
        places = await self._fetch("SELECT seq FROM leaf", run)
        self._placed[run] = {row["seq"] for row in places}

    async def layers(self, run: RunRef) -> Layers:
        """All layers that object to the rows as they are."""
        rows = await self._fetch("SELECT * FROM record", run)
        found = {"D9"} if self._receipts_lost(run, rows) else set()
        try:
            found |= await self._objections(run, rows)
        except asyncpg.PostgresError:
            return frozenset(found)
        return frozenset(found)

    async def _objections(self, run: RunRef, rows: Sequence[Row]) -> set[str]:
        lawful = await self._lawful(run, rows)
        found = set(_chain(run, rows, lawful))
        for layer, look in (
            ("D3", self._contents(run, rows, lawful)),
            ("D7", self._batches(run, rows)),
            ("D4", self._places(run, rows)),
        ):
            try:
                found |= set(await look)
            except _NOT:  # a NULL, say, where the layer needs bytes
                found.add(layer)
        return found

    def _receipts_lost(self, run: RunRef, rows: Sequence[Row]) -> bool:
        now = {row["seq"]: row["chain"] for row in rows}
        return any(now.get(seq) != chain for seq, chain in self._kept.get(run, {}).items())

    async def _fetch(self, select: str, run: RunRef) -> list[Row]:
        where = "WHERE tenant_id = $1 AND run_id = $2 ORDER BY seq"
        return [dict(r) for r in await self._scene.superuser.fetch(f"{select} {where}", *run.ids)]

    def _public(self, name: str) -> Ed25519PublicKey:
        seed = (self._scene.directory / name).read_bytes()[:32]
        return Ed25519PrivateKey.from_private_bytes(seed).public_key()

    def _unwrap(self, row: Mapping[str, Any], run: RunRef) -> bytes:
        kek = (self._scene.directory / "keys" / row["kek_id"]).read_bytes()[:32]
        return unwrap_run_key(kek, row["wrapped"], run.ids[0].bytes, run.ids[1].bytes)

    async def _lawful(self, run: RunRef, rows: Sequence[Row]) -> _Lawful:
        """Section 12: statements of the pinned erasure key that name the hashes as they are."""
        lawful, now = _Lawful(), {row["seq"]: (row["rc"], row["chain"]) for row in rows}
        for row in await self._scene.superuser.fetch(_STATEMENTS, run.ids[0]):
            try:
                admin = RunRef(tenant="", log=run.log, run=row["run_id"].hex)
                note = json.loads(opened(self._unwrap(row, admin), row)[32:])
                text = note["statement"].encode()
                self._public("erasure/key").verify(
                    bytes.fromhex(note["signature"]), tagged("erasure", text)
                )
                said = json.loads(text)
                if said["run"] != run.run:
                    continue
                for item in said["items"]:
                    if now.get(item["seq"]) == tuple(
                        bytes.fromhex(item[name]) for name in ("rc", "chain")
                    ):
                        lawful.fields |= {(item["seq"], name) for name in item["fields"]}
                        if said["action"] == "delete_run":
                            lawful.headers.add(item["seq"])
            except (*_NOT, OSError):
                continue
        return lawful

    async def _contents(self, run: RunRef, rows: Sequence[Row], lawful: _Lawful) -> Iterator[str]:
        payloads = await self._fetch("SELECT * FROM payload", run)
        wrapped = await self._scene.superuser.fetchrow(
            "SELECT * FROM run_key WHERE tenant_id = $1 AND run_id = $2", *run.ids
        )
        return _payloads(run, rows, payloads, lawful, lambda: self._unwrap(wrapped, run))

    async def _batches(self, run: RunRef, rows: Sequence[Row]) -> Iterator[str]:
        sql = self._scene.superuser
        names = list({row["batch_id"] for row in rows})
        batches = {
            row["batch_id"]: row
            for row in await sql.fetch(
                "SELECT * FROM batch WHERE tenant_id = $1 AND batch_id = ANY ($2)",
                run.ids[0],
                names,
            )
        }
        writers = {row["writer_id"]: row for row in await sql.fetch("SELECT * FROM writer_key")}
        enrolment = self._public("keys/signing/enrolment.1")
        return _signatures(run, rows, batches, writers, enrolment)

    async def _places(self, run: RunRef, rows: Sequence[Row]) -> Iterator[str]:
        """Sections 9 and 10: every place that there was, its tile, and the signed root."""
        sql, log = self._scene.superuser, run.ids[0]
        places = {r["seq"]: r["idx"] for r in await self._fetch("SELECT seq, idx FROM leaf", run)}
        tiles = await sql.fetch(
            "SELECT data FROM tile WHERE tenant_id = $1 AND level = 0 ORDER BY n", log
        )
        data = b"".join(row["data"] for row in tiles)
        hashes = [data[at : at + 32] for at in range(0, len(data), 32)]
        newest = await sql.fetchrow(
            "SELECT * FROM checkpoint WHERE tenant_id = $1 ORDER BY size DESC LIMIT 1", log
        )
        found: list[str] = []
        seqs = {row["seq"] for row in rows}
        if self._placed.get(run, set()) - places.keys() or places.keys() - seqs:
            found.append("D4")
        if sorted(places, key=lambda seq: places[seq]) != sorted(places):
            found.append("D4")
        for row in rows:
            index = places.get(row["seq"])
            wanted = leaf_hash(log.bytes, run.ids[1].bytes, row["seq"], row["chain"])
            if index is not None and hashes[index : index + 1] != [wanted]:
                found.append("D4")
        if newest is not None:
            if root_of_hashes(hashes[: newest["size"]]) != newest["root"]:
                found.append("D4")
            found += self._checkpoint(newest)
        return iter(found)

    def _checkpoint(self, row: Mapping[str, Any]) -> list[str]:
        keys = sorted((self._scene.directory / "keys" / "signing").glob("log.*"))
        text, _, line = row["note"].partition("\n\n")
        said = (text + "\n").encode()
        signed = {
            NoteKey(row["origin"], seed=path.read_bytes()[:32]).line(said).decode() for path in keys
        }
        lines = said.split(b"\n")
        is_its = lines[1:3] == [b"%d" % row["size"], base64.b64encode(row["root"])]
        # A log key out of its range is still one of them here: the doors tell that.
        return [] if line in signed and is_its else ["D5"]


def _chain(run: RunRef, rows: Sequence[Row], lawful: _Lawful) -> Iterator[str]:
    """Sections 3 and 5."""
    head = genesis(*(one.bytes for one in run.ids))
    for place, row in enumerate(rows):
        if row["seq"] != place:
            yield "D1"
        if row["header"] is None:
            if row["seq"] not in lawful.headers:
                yield "D8"
        elif row["seq"] in lawful.headers:
            yield "D8"
        else:
            yield from _header(row)
        try:
            same = row["chain"] == chain_hash(head, row["seq"], row["rc"])
        except _NOT:
            same = False
        if not same:
            yield "D1"
        head = row["chain"]


def _header(row: Row) -> Iterator[str]:
    if row["rc"] != record_hash(row["header"]):
        yield "D1"
    try:
        members = parse_header(row["header"])
    except (ValueError, UnicodeDecodeError):
        yield "D1"
        return
    shown = {
        "log": row["tenant_id"].hex,
        "run": row["run_id"].hex,
        "ts": row["ts"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        **{name: row[name] for name in ("seq", "epoch", "kind")},
    }
    if any(members[name] != value for name, value in shown.items()):
        yield "D2"


def _payloads(
    run: RunRef, rows: Sequence[Row], payloads: Sequence[Row], lawful: _Lawful, key: Any
) -> Iterator[str]:
    """Section 4: what is there was committed to, and what was committed to is there."""
    owed: dict[tuple[int, str], str] = {}
    for row in rows:
        try:
            members = {} if row["header"] is None else json.loads(row["header"])
            owed |= {(row["seq"], name): said for name, said in members["commit"].items()}
        except _NOT:
            continue
    for payload in payloads:
        try:
            place = (payload["seq"], FIELD_NAMES[payload["field"]])
            if place in lawful.fields:
                yield "D8"
            made = commit(run.log, run.run, *_numbers(payload), opened(key(), payload))
            if owed.pop(place) != made:
                yield "D3"
        except (*_NOT, OSError):
            yield "D3"
    if owed.keys() - lawful.fields:
        yield "D8"


def _numbers(payload: Row) -> tuple[int, int]:
    return payload["seq"], payload["field"]


def _signatures(
    run: RunRef,
    rows: Sequence[Row],
    batches: Mapping[UUID, Row],
    writers: Mapping[UUID, Row],
    enrolment: Ed25519PublicKey,
) -> Iterator[str]:
    """Section 5 and 11: each record in its batch, well signed by a certified writer."""
    for batch_id in {row["batch_id"] for row in rows}:
        try:
            batch = batches[batch_id]
            writer = writers[batch["writer_id"]]
            entries = _entries(run, rows, batch)
            tip = merkle_tree_hash(entries)
            claim = tagged("writer", writer["writer_id"].bytes, writer["public_key"])
            enrolment.verify(writer["certificate"], claim)
            message = batch_message(run.ids[0].bytes, batch_id.bytes, batch["n"], tip)
            Ed25519PublicKey.from_public_bytes(writer["public_key"]).verify(batch["sig"], message)
            held = {
                run.ids[1].bytes + r["seq"].to_bytes(8) + r["chain"]
                for r in rows
                if r["batch_id"] == batch_id
            }
            if tip != batch["tip"] or len(entries) != batch["n"] or not held <= set(entries):
                yield "D7"
        except _NOT:
            yield "D7"


def _entries(run: RunRef, rows: Sequence[Row], batch: Row) -> list[bytes]:
    """What a batch holds, in order: from its own column, or from the run's rows."""
    chains = {row["seq"]: row["chain"] for row in rows}
    column = batch["entries"]
    found: list[bytes] = []
    for other, first, last in spans(batch["ranges"]):
        for seq in range(first, last + 1):
            chain = chains[seq] if column is None else column[32 * len(found) :][:32]
            found.append(bytes.fromhex(other) + seq.to_bytes(8) + chain)
    if column is None and any(other != run.run for other, _, _ in spans(batch["ranges"])):
        raise ValueError("another run's records without entries")
    return found
