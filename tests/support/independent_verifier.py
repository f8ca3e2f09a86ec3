"""A second ledger/v1 verifier, written from docs/ledger-format.md alone: it shares no code.

Threat: Ledger tampering
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Row = Mapping[str, Any]  # ids in rows are 32 hex digits; elsewhere 16 raw bytes
Rows = Sequence[Row]
Lot = Collection[tuple[int, int]]
Key = bytes | None
Chains = dict[tuple[str, int], bytes]
UNSAID = {InvalidTag: "payload: commitment", InvalidSignature: "batch: signature"}
NAMES = "task|request|reply|call|result|output|features|note"
FIELDS = dict(enumerate(NAMES.split("|"), 1))
COLUMNS = {"tenant_id": "log", "run_id": "run"} | {c: c for c in ("seq", "epoch", "kind", "ts")}
# Section 3 as patterns of each member's canonical bytes; ANY is what the page leaves open.
KEY, WHOLE, TEXT, ANY = "[a-z0-9_.]{1,64}", "(0|[1-9][0-9]*)", r'"([^"\\]|\\.)*"', ".*"
ID, HASH, CODE = '"[0-9a-f]{32}"', '"[0-9a-f]{64}"', '"[a-z0-9_.:-]{1,128}"'
POLICY = rf'"digest":{HASH},"id":"[a-z0-9_.-]{{1,64}}","rules":\[({TEXT},?)*\],"ver":-?{WHOLE}'
MEMBERS = dict.fromkeys(("log", "run", "event_id", "nonce", "writer"), ID)
MEMBERS |= dict.fromkeys(("parent", "approval"), f"null|{ID}")
MEMBERS |= dict.fromkeys(("model", "engine"), 'null|"[a-zA-Z0-9_.:-]{1,128}"')
MEMBERS |= dict.fromkeys(("outcome", "sandbox"), f"null|{CODE}")
MEMBERS |= {"v": "1", "seq": WHOLE, "epoch": WHOLE, "intent": f"null|{WHOLE}", "kind": f'"{KEY}"'}
MEMBERS |= {"policy": f'null|{{{POLICY},"verdict":{TEXT}}}', "tool": f"null|{HASH}"}
MEMBERS |= {"size": f'{{("({NAMES})":{WHOLE},?)*}}', "commit": f'{{("({NAMES})":{HASH},?)*}}'}
MEMBERS |= {"ts": '"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}[.][0-9]{6}Z"'}
MEMBERS |= {"actor": '"(key:[0-9a-f]{16}|system|model|tool|operator)"', "scrub": f"null|{{{ANY}}}"}
MEMBERS["usage"] = f'null|{{"cost_micros":{WHOLE},"input_tokens":{WHOLE},"output_tokens":{WHOLE}}}'
SCRUB = dict.fromkeys(("engine", "hmac_key", "mode", "ms", "ner", "policy", "rules"), ANY)
SCRUB |= {"status": ANY, "unscanned": ANY, "counts": f'{{("{KEY}":-?{WHOLE},?)*}}'}


def _require(holds: object, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def canonical(value: object, depth: int = 6) -> bytes:
    match value:
        case list():
            _require(depth, "nested too deeply")
            return b"[" + b",".join(canonical(item, depth - 1) for item in value) + b"]"
        case dict():
            _require(depth and all(re.fullmatch(KEY, key) for key in value), "depth or key")
            pairs = (canonical(k) + b":" + canonical(value[k], depth - 1) for k in sorted(value))
            return b"{" + b",".join(pairs) + b"}"
    fits = abs(value) < 2**53 if isinstance(value, int) else isinstance(value, str)
    _require(value is None or fits, "value outside the profile")
    return json.dumps(value, ensure_ascii=False).encode()


def parse_header(raw: Any) -> dict[str, Any]:
    try:
        _require(isinstance(raw, bytes) and len(raw) <= 8192, "absent or too long")
        header: dict[str, Any] = json.loads(raw.decode())  # a key twice: not canonical
        _require(raw[:1] == b"{" and canonical(header) == raw, "not canonical")
        for found, table in ((header, MEMBERS), (header.get("scrub"), SCRUB)):
            if found is not None:
                _require(found.keys() == table.keys(), f"members: {sorted(found.keys() ^ table)}")
                for name, p in table.items():
                    _require(re.fullmatch(p, canonical(found[name]).decode()), f"member {name}")
        datetime.fromisoformat(header["ts"])
        _require(header["intent"] is None or header["intent"] < header["seq"], "intent")
        _require(header["size"].keys() == header["commit"].keys(), "size and commit")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"header: {error}") from error
    return header


def lp(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def tagged(tag: str, *parts: bytes) -> bytes:
    return b"meshflow-ledger/v1/" + tag.encode() + b"\0" + b"".join(parts)


def genesis(log: bytes, run: bytes) -> bytes:
    return sha256(tagged("genesis", lp(log, run))).digest()


def record_hash(header: bytes) -> bytes:
    return sha256(tagged("record", lp(header))).digest()


def chain_hash(previous: bytes, seq: int, record: bytes) -> bytes:
    return sha256(tagged("chain", previous, seq.to_bytes(8), record)).digest()


def commitment(log: bytes, run: bytes, seq: int, name: str, salt: bytes, value: bytes) -> bytes:
    named = lp(log, run) + seq.to_bytes(8) + lp(name.encode(), salt, value)
    return sha256(tagged("field", named)).digest()


def merkle_tree_hash(entries: Sequence[bytes]) -> bytes:
    if len(entries) < 2:
        return sha256(b"".join(b"\0" + entry for entry in entries)).digest()
    split = 1 << (len(entries) - 1).bit_length() - 1
    halves = merkle_tree_hash(entries[:split]) + merkle_tree_hash(entries[split:])
    return sha256(b"\1" + halves).digest()


def batch_message(log: bytes, batch_id: bytes, n: int, tip: bytes) -> bytes:
    return tagged("batch", log, batch_id, n.to_bytes(4), tip)


def open_blob(key: bytes, blob: bytes, log: bytes, run: bytes, seq: int, n: int) -> bytes:
    return AESGCM(key).decrypt(blob[:12], blob[12:], log + run + seq.to_bytes(8) + n.to_bytes(2))


def _check_payloads(header: Row, payloads: Rows, key: Key, erased: Lot) -> None:
    log, run, seq = bytes.fromhex(header["log"]), bytes.fromhex(header["run"]), header["seq"]
    owed = dict(header["commit"])
    for number, blob in [(p["field"], p["blob"]) for p in payloads if p["seq"] == seq]:
        name = FIELDS.get(number, "")
        committed, size = owed.pop(name, None), len(blob) - 12 - 32 - 16
        _require(committed and size >= 0, "payload: no commitment, twice, or short")
        _require(size.bit_length() == header["size"][name], "payload: size")
        if key is not None:
            plain = open_blob(key, blob, log, run, seq, number)  # salt, then value
            made = commitment(log, run, seq, name, plain[:32], plain[32:])
            _require(made.hex() == committed, "payload: commitment")
    _require({FIELDS.get(n) for s, n in erased if s == seq} >= owed.keys(), "payload: missing")


def spans(ranges: bytes) -> list[tuple[str, int, int]]:
    whole = [ranges[at : at + 32] for at in range(0, len(ranges), 32)]
    return [(w[:16].hex(), int.from_bytes(w[16:24]), int.from_bytes(w[24:])) for w in whole]


def _check_batch(log: bytes, batch_id: str, batch: Row, key: bytes, own: Chains) -> None:
    chains = {(run, seq): chain for run, seq, chain in batch["entries"]}
    named = spans(batch["ranges"])
    _require(all(first <= last for _, first, last in named), "batch: ranges")
    _require(sum(b - a + 1 for _, a, b in named) == batch["n"] == len(chains), "batch: count")
    places = [(run, seq) for run, first, last in named for seq in range(first, last + 1)]
    _require(chains.keys() == set(places) and chains.items() >= own.items(), "batch: records")
    tip = merkle_tree_hash([bytes.fromhex(r) + s.to_bytes(8) + chains[r, s] for r, s in places])
    _require(tip == batch["tip"], "batch: tip")
    message = batch_message(log, bytes.fromhex(batch_id), batch["n"], tip)
    Ed25519PublicKey.from_public_bytes(key).verify(batch["sig"], message)


def _check_record(row: Row, first: Row, seq: int, epoch: int, head: bytes) -> dict[str, Any]:
    _require(row["seq"] == seq, "gap in seq")
    header = parse_header(row["header"])
    _require(all(row[c] == header[member] for c, member in COLUMNS.items()), "columns")
    _require((row["tenant_id"], row["run_id"]) == (first["tenant_id"], first["run_id"]), "run")
    _require(header["epoch"] >= epoch, "epoch fell")
    _require(row["rc"] == record_hash(row["header"]), "record hash")
    _require(row["chain"] == chain_hash(head, seq, row["rc"]), "chain")
    return header


def verify_run(
    rows: Rows, payloads: Rows, batches: Row, writers: Row, run_key: Key = None, *, erased: Lot = ()
) -> tuple[int, str] | None:
    """The first break of a run as (seq, reason), or None; bad rows are a break, never an error.

    Rows as independent_reader.py gives them; `erased`: (seq, field) that may be absent. Without
    `run_key` commitments are matched by name and size. A batch is named at its first record.
    """
    at = begun = epoch = 0
    try:
        _require(rows, "unknown run")
        log, run = bytes.fromhex(rows[0]["tenant_id"]), rows[0]["run_id"]
        head, own = genesis(log, bytes.fromhex(run)), Chains()
        for seq, row in enumerate(rows):
            at = seq
            header = _check_record(row, rows[0], seq, epoch, head)
            _check_payloads(header, payloads, run_key, erased)
            head, epoch = row["chain"], header["epoch"]
            own[run, seq] = head
            name, batch = row["batch_id"], batches.get(row["batch_id"], {"writer_id": None})
            _require(header["writer"] == batch["writer_id"] in writers, "batch: writer")
            lasts = [b for r, a, b in spans(batch["ranges"]) if r == run and a <= seq <= b]
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
    except (ValueError, InvalidTag, InvalidSignature) as error:
        return at, str(error) or UNSAID[type(error)]
    return None
