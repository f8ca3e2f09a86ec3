"""A second ledger/v1 verifier, written from docs/ledger-format.md alone: it shares no code.

The functions of the format take ids (`log`, `run`, `batch_id`) as 16 raw bytes; the rows that
`verify_run` takes hold them as 32 hex digits.

Threat: Ledger tampering
"""

import hmac
import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Row = Mapping[str, Any]
Chains = dict[tuple[str, int], bytes]
FIELDS = {1: "task", 2: "request", 3: "reply", 4: "call", 5: "result", 6: "output"}
FIELDS |= {7: "features", 8: "note"}
SEALED = 12 + 32 + 16  # nonce, salt and tag: what a blob has beside its value
COLUMNS = {"tenant_id": "log", "run_id": "run"} | {c: c for c in ("seq", "epoch", "kind", "ts")}
# Section 3 as patterns of each member's canonical bytes; ANY is what the page leaves open.
KEY, WHOLE, TEXT, ANY = "[a-z0-9_.]{1,64}", "(0|[1-9][0-9]*)", r'"([^"\\]|\\.)*"', ".*"
ID, HASH, CODE = '"[0-9a-f]{32}"', '"[0-9a-f]{64}"', '"[a-z0-9_.:-]{1,128}"'
NAMES = f'"({"|".join(FIELDS.values())})"'
POLICY = rf'"digest":{HASH},"id":"[a-z0-9_.-]{{1,64}}","rules":\[({TEXT},?)*\],"ver":-?{WHOLE}'
MEMBERS = dict.fromkeys(("log", "run", "event_id", "nonce", "writer"), ID)
MEMBERS |= dict.fromkeys(("parent", "approval"), f"null|{ID}")
MEMBERS |= dict.fromkeys(("model", "engine"), 'null|"[a-zA-Z0-9_.:-]{1,128}"')
MEMBERS |= dict.fromkeys(("outcome", "sandbox"), f"null|{CODE}")
MEMBERS |= {"v": "1", "seq": WHOLE, "epoch": WHOLE, "intent": f"null|{WHOLE}", "kind": f'"{KEY}"'}
MEMBERS |= {
    "ts": '"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}[.][0-9]{6}Z"',
    "actor": '"(key:[0-9a-f]{16}|system|model|tool|operator)"',
    "policy": f'null|{{{POLICY},"verdict":{TEXT}}}',
    "tool": f"null|{HASH}",
    "usage": f'null|{{"cost_micros":{WHOLE},"input_tokens":{WHOLE},"output_tokens":{WHOLE}}}',
    "scrub": f"null|{{{ANY}}}",
    "size": f"{{({NAMES}:{WHOLE},?)*}}",
    "commit": f"{{({NAMES}:{HASH},?)*}}",
}
SCRUB = dict.fromkeys(("engine", "hmac_key", "mode", "ms", "ner", "policy", "rules"), ANY)
SCRUB |= {"status": ANY, "unscanned": ANY, "counts": f'{{("{KEY}":-?{WHOLE},?)*}}'}


class BreakError(ValueError):
    """These bytes are not what the format says; the text is the reason."""


def _require(holds: object, reason: str) -> None:
    if not holds:
        raise BreakError(reason)


def canonical(value: object, depth: int = 6) -> bytes:
    """Section 2, for headers; raises ValueError for what the profile refuses."""
    match value:
        case list():
            _require(depth, "nested too deeply")
            return b"[" + b",".join(canonical(item, depth - 1) for item in value) + b"]"
        case dict():
            _require(depth and all(re.fullmatch(KEY, key) for key in value), "depth or key")
            pairs = (canonical(k) + b":" + canonical(value[k], depth - 1) for k in sorted(value))
            return b"{" + b",".join(pairs) + b"}"
        case int():
            _require(abs(value) < 2**53, "integer too large")
        case _:
            _require(value is None or isinstance(value, str), "value outside the profile")
    return json.dumps(value, ensure_ascii=False).encode()


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    _require(len(dict(pairs)) == len(pairs), "key twice")
    return dict(pairs)


def _members(found: dict[str, Any], table: dict[str, str]) -> None:
    _require(found.keys() == table.keys(), f"members: {sorted(found.keys() ^ table.keys())}")
    for name, value in found.items():
        _require(re.fullmatch(table[name], canonical(value).decode()), f"member {name}")


def parse_header(raw: object) -> dict[str, Any]:
    """The header of these exact bytes, sections 2 and 3 held; otherwise BreakError."""
    if not isinstance(raw, bytes) or len(raw) > 8192:
        raise BreakError("header: absent or too long")
    try:
        header: dict[str, Any] = json.loads(raw.decode(), object_pairs_hook=_unique)
        _require(raw[:1] == b"{" and canonical(header) == raw, "not canonical")
        _members(header, MEMBERS)
        if header["scrub"] is not None:
            _members(header["scrub"], SCRUB)
        datetime.fromisoformat(header["ts"])
    except (ValueError, RecursionError) as error:
        raise BreakError(f"header: {error}") from error
    _require(header["intent"] is None or header["intent"] < header["seq"], "header: intent")
    _require(header["size"].keys() == header["commit"].keys(), "header: size and commit")
    return header


def _lp(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def _tagged(tag: str, *parts: bytes) -> bytes:
    return b"meshflow-ledger/v1/" + tag.encode() + b"\0" + b"".join(parts)


def genesis(log: bytes, run: bytes) -> bytes:
    return sha256(_tagged("genesis", _lp(log, run))).digest()


def record_hash(header: bytes) -> bytes:
    return sha256(_tagged("record", _lp(header))).digest()


def chain_hash(previous: bytes, seq: int, record: bytes) -> bytes:
    return sha256(_tagged("chain", previous, seq.to_bytes(8), record)).digest()


def commitment(log: bytes, run: bytes, seq: int, name: str, salt: bytes, value: bytes) -> bytes:
    place = _lp(log, run) + seq.to_bytes(8)
    return sha256(_tagged("field", place, _lp(name.encode(), salt, value))).digest()


def leaf_hash(log: bytes, run: bytes, seq: int, chain: bytes) -> bytes:
    return sha256(b"\0" + _tagged("leaf", _lp(log, run), seq.to_bytes(8), chain)).digest()


def merkle_tree_hash(entries: Sequence[bytes]) -> bytes:
    if len(entries) < 2:
        return sha256(b"".join(b"\0" + entry for entry in entries)).digest()
    split = 1 << (len(entries) - 1).bit_length() - 1
    halves = merkle_tree_hash(entries[:split]) + merkle_tree_hash(entries[split:])
    return sha256(b"\1" + halves).digest()


def batch_message(log: bytes, batch_id: bytes, n: int, tip: bytes) -> bytes:
    return _tagged("batch", log, batch_id, n.to_bytes(4), tip)


def verify_batch_signature(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def keyed_digest(run_key: bytes, purpose: str, data: bytes) -> bytes:
    key = hmac.digest(hmac.digest(b"", run_key, "sha256"), b"meshflow/digest/v1\1", "sha256")
    return hmac.digest(key, _lp(purpose.encode(), data), "sha256")


def open_blob(
    run_key: bytes, blob: bytes, log: bytes, run: bytes, seq: int, field_number: int
) -> tuple[bytes, bytes]:
    """Salt and value; raises InvalidTag for any other place, key or byte."""
    place = log + run + seq.to_bytes(8) + field_number.to_bytes(2)
    plain = AESGCM(run_key).decrypt(blob[:12], blob[12:], place)
    return plain[:32], plain[32:]


def unwrap_run_key(kek: bytes, wrapped: bytes, log: bytes, run: bytes) -> bytes:
    return AESGCM(kek).decrypt(wrapped[:12], wrapped[12:], log + run)


def _check_payloads(header: Row, mine: list[Row], key: bytes | None, gone: Collection[int]) -> None:
    """Each payload row under its commitment, each commitment with its row or its erasure."""
    log, run, seq = bytes.fromhex(header["log"]), bytes.fromhex(header["run"]), header["seq"]
    owed = dict(header["commit"])
    for number, blob in ((payload["field"], payload["blob"]) for payload in mine):
        name = FIELDS.get(number, "")
        committed, size = owed.pop(name, None), len(blob) - SEALED
        _require(committed and size >= 0, "payload: no commitment, twice, or short")
        _require(size.bit_length() == header["size"][name], "payload: size")
        if key is not None:
            try:
                made = commitment(log, run, seq, name, *open_blob(key, blob, log, run, seq, number))
            except InvalidTag:
                made = b""
            _require(made.hex() == committed, "payload: commitment")
    _require({FIELDS.get(number) for number in gone} >= owed.keys(), "payload: missing")


def _spans(ranges: bytes) -> list[tuple[str, int, int]]:
    whole = [ranges[at : at + 32] for at in range(0, len(ranges), 32)]
    return [(w[:16].hex(), int.from_bytes(w[16:24]), int.from_bytes(w[24:])) for w in whole]


def _check_batch(log: bytes, batch_id: str, batch: Row, key: bytes, own: Chains) -> None:
    """Ranges, count, tree and signature of a batch, this run's chain values as recomputed."""
    chains = {(run, seq): chain for run, seq, chain in batch["entries"]} | own
    spans = _spans(batch["ranges"])
    counted = sum(last - first + 1 for _, first, last in spans)
    _require(all(first <= last for _, first, last in spans), "batch: ranges")
    _require(counted == batch["n"] == len(chains), "batch: count")
    places = [(run, seq) for run, first, last in spans for seq in range(first, last + 1)]
    _require(chains.keys() == set(places), "batch: records")
    tip = merkle_tree_hash([bytes.fromhex(r) + s.to_bytes(8) + chains[r, s] for r, s in places])
    _require(tip == batch["tip"], "batch: tip")
    message = batch_message(log, bytes.fromhex(batch_id), batch["n"], tip)
    _require(verify_batch_signature(key, batch["sig"], message), "batch: signature")


def _check_record(row: Row, first: Row, seq: int, epoch: int, head: bytes) -> dict[str, Any]:
    _require(row["seq"] == seq, "gap in seq")
    header = parse_header(row["header"])
    wrong = [column for column, member in COLUMNS.items() if row[column] != header[member]]
    _require(not wrong, f"columns: {wrong}")
    _require((row["tenant_id"], row["run_id"]) == (first["tenant_id"], first["run_id"]), "run")
    _require(header["epoch"] >= epoch, "epoch fell")
    _require(row["rc"] == record_hash(row["header"]), "record hash")
    _require(row["chain"] == chain_hash(head, seq, row["rc"]), "chain")
    return header


def verify_run(
    rows: Sequence[Row],
    payloads: Sequence[Row],
    batches: Mapping[str, Row],
    writers: Mapping[str, bytes],
    run_key: bytes | None = None,
    *,
    erased: Collection[tuple[int, int]] = (),
) -> tuple[int, str] | None:
    """The first break of a run as (seq, reason), or None; bad rows are a break, never an error.

    `rows`: dicts of the columns of `record` in seq order (ids hex, `ts` as in the header, bytes).
    `payloads`: dicts of `seq`, `field`, `blob`. `batches`: batch id as hex to a dict of `writer_id`
    (hex), `n`, `ranges`, `tip`, `sig` and `entries`: (run hex, seq, chain) of every record of the
    batch, other runs too. `writers`: writer id as hex to its raw public key. `erased`: (seq, field)
    whose payload may be absent. Without `run_key` commitments are matched by name and size only. A
    failing batch is named at its first record in this run, after the records it covers.
    """
    at = begun = epoch = 0
    try:
        _require(rows, "unknown run")
        log, run = bytes.fromhex(rows[0]["tenant_id"]), rows[0]["run_id"]
        head, own = genesis(log, bytes.fromhex(run)), Chains()
        for seq, row in enumerate(rows):
            at = seq
            header = _check_record(row, rows[0], seq, epoch, head)
            mine = [payload for payload in payloads if payload["seq"] == seq]
            _check_payloads(header, mine, run_key, {number for s, number in erased if s == seq})
            head, epoch = row["chain"], header["epoch"]
            own[run, seq] = head
            name, batch = row["batch_id"], batches.get(row["batch_id"], {"writer_id": None})
            _require(header["writer"] == batch["writer_id"] in writers, "batch: writer")
            lasts = [b for r, a, b in _spans(batch["ranges"]) if r == run and a <= seq <= b]
            _require(len(lasts) == 1, "batch: does not cover the record")
            following = rows[seq + 1] if seq + 1 < len(rows) else {"seq": None, "batch_id": None}
            if following["batch_id"] != name:
                at = seq + 1
                _require(lasts == [seq] or following["seq"] == at, "gap in seq")
                at = begun
                _check_batch(log, name, batch, writers[header["writer"]], own)
                own, begun = Chains(), seq + 1
        at = min((p["seq"] for p in payloads if not 0 <= p["seq"] < len(rows)), default=-1)
        _require(at == -1, "payload without a record")
    except ValueError as error:
        return at, str(error)
    return None


class Connection(Protocol):
    async def fetch(self, query: str, *args: object) -> list[Any]: ...


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    return value.hex if isinstance(value, UUID) else value


async def read_run(
    connection: Connection, tenant_id: str, run_id: str
) -> tuple[Sequence[Row], Sequence[Row], Mapping[str, Row], dict[str, bytes]]:
    """What `verify_run` takes, by plain SQL on an asyncpg connection; ids in hex.

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
    for row in await fetch("record", theirs, tenant_id, names):
        entry = (row["run_id"], row["seq"], row["chain"])
        batches.get(row["batch_id"], {}).setdefault("entries", []).append(entry)
    writers = {w["writer_id"]: w["public_key"] for w in await fetch("writer_key", "")}
    return rows, payloads, batches, writers
