"""Bundles by forgers who hold keys: all signatures and hashes fit, and one rule alone is broken."""

from collections.abc import Callable, Mapping

from scripts.vector_bundles import Members, Plan, bundle
from scripts.vector_keys import (
    FIRST,
    OPERATOR,
    OPERATOR_ORIGIN,
    ORIGIN,
    OTHER,
    RUN,
    TENANT,
    WRITERS,
    certificate,
)
from scripts.vector_parts import (
    Json,
    JsonObject,
    b64,
    edited,
    fixed,
    inclusion,
    kept,
    lines,
    rows,
    spoiled,
    t,
    u64,
)

Change = Callable[[Members], Members]
B, W, R, P = "batches.jsonl", "writers.jsonl", "records.jsonl", "payloads.jsonl"


def items(statement: JsonObject) -> list[JsonObject]:
    """The items of a statement, to be changed."""
    found = statement["items"]
    return [dict(i) for i in found if isinstance(i, dict)] if isinstance(found, list) else []


def with_item(at: int, **members: Json) -> Callable[[JsonObject], JsonObject]:
    """A statement with one item that says something else."""

    def change(said: JsonObject) -> JsonObject:
        changed = items(said)
        changed[at] |= members
        return said | {"items": list[Json](changed)}

    return change


def longer(said: JsonObject) -> JsonObject:
    """A statement that names a record which never was."""
    more = items(said)
    return said | {"items": list[Json]([*more, more[-1] | {"seq": len(more)}])}


def shorter(said: JsonObject) -> JsonObject:
    """A statement that does not name the last record."""
    return said | {"items": list[Json](items(said)[:-1])}


ANON, GONE = "anonymize_run", "delete_run"
PLANS: Mapping[str, Plan] = {
    "a statement about another run": Plan(erase=ANON, forge=lambda s: s | {"run": OTHER.hex()}),
    "a statement about another log": Plan(
        erase=ANON, forge=lambda s: s | {"log": fixed("x", 16).hex(), "checkpoint": None}
    ),
    "a statement with another record hash": Plan(erase=ANON, forge=with_item(1, rc="00" * 32)),
    "a statement with another chain hash": Plan(erase=ANON, forge=with_item(1, chain="00" * 32)),
    "a statement of a field that never was": Plan(
        erase=ANON, forge=with_item(1, fields=["features"])
    ),
    "a statement of a field with no name": Plan(erase=ANON, forge=with_item(0, fields=["tusk"])),
    "a statement with a field twice": Plan(erase=ANON, forge=with_item(0, fields=["task", "task"])),
    "a statement with a field that is a number": Plan(erase=ANON, forge=with_item(0, fields=[1])),
    "a statement of more records than there are": Plan(erase=ANON, forge=longer),
    "a deletion that does not name the last record": Plan(erase=GONE, forge=shorter),
    "a statement that names a later checkpoint": Plan(erase=ANON, stated_size=4000),
    "a statement that names a checkpoint which no log key signed": Plan(
        erase=ANON, stated_key="strange log"
    ),
    "a statement that names a checkpoint by a log key before its time": Plan(
        erase=ANON,
        rotated=("log",),
        rotated_at=7,
        tenant_log_key="log",
        operator_log_key="new log",
        stated_key="new log",
    ),
    "a checkpoint that the log key of before signed, too": Plan(
        rotated=("log",),
        rotated_at=5,
        tenant_log_key="new log",
        operator_log_key="new log",
        signed_too="log",
    ),
    "an operator log with two records of one seq": Plan(retired_at=3, is_forked=True),
    "an operator log in another order than its run": Plan(retired_at=3, anchor_index=1),
    "an operator log that a checkpoint opens": Plan(is_opened=False),
    "a hash of another header": Plan(forged=((1, "rc"),)),
    "a hash that follows from nothing": Plan(forged=((3, "chain"),)),
    "records in the log the wrong way round": Plan(backwards=True),
    "an operator log of another deployment": Plan(
        operator_origin=f"elsewhere.example/ledger/{OPERATOR.hex()}"
    ),
    "an operator log with two administration runs": Plan(retired_at=3, offices=2),
    "an operator log with two administration runs at other seqs": Plan(
        retired_at=3, offices=2, is_lagging=True
    ),
    "a statement before what it names": Plan(
        erase=ANON, erase_first=True, forge=lambda s: s | {"checkpoint": None}
    ),
    "a statement before what has no place": Plan(
        erase=ANON, erase_first=True, sequenced=2, forge=lambda s: s | {"checkpoint": None}
    ),
    "an erasure by a record of another kind": Plan(erase=ANON, erase_kind="hold."),
    "a statement of another action than its record": Plan(
        erase=ANON, forge=lambda s: s | {"action": GONE}
    ),
    "a checkpoint of another log": Plan(
        origin=OPERATOR_ORIGIN.replace(OPERATOR.hex(), fixed("third log", 16).hex())
    ),
    "an anchor of another kind": Plan(anchor_kind="schema.change"),
    "an anchor of another checkpoint": Plan(
        anchored_note=f"{ORIGIN}\n5\n{b64(bytes(32))}\n\n— {ORIGIN} AAAAAAA=\n"
    ),
}


def ranges_of(at: int, *found: tuple[bytes, int, int], **more: Json) -> Change:
    """A batch that names other ranges; nobody signs them."""
    raw = b"".join(run + u64(first) + u64(last) for run, first, last in found)
    return lambda m: m | {B: edited(m[B], at, ranges=b64(raw), **more)}


def resigned(writer: bytes, at: int) -> Change:
    """A batch whose writer signed another tip."""

    def change(m: Members) -> Members:
        row = rows(m[B])[at]
        tip, count = fixed("another tip", 32), int(str(row["n"]))
        message = t("batch") + TENANT + bytes.fromhex(str(row["batch_id"]))
        signature = WRITERS[writer].sign(message + count.to_bytes(4, "big") + tip)
        return m | {B: edited(m[B], at, tip=tip.hex(), sig=b64(signature))}

    return change


def fewer_paths(m: Members) -> Members:
    """A batch with one path for two records."""
    paths = rows(m[B])[0]["entries"]
    return m | {B: edited(m[B], 0, entries=paths[:1] if isinstance(paths, list) else None)}


def needless_paths(m: Members) -> Members:
    """A batch of this run alone, with paths that hold."""
    chains = [bytes.fromhex(str(row["chain"])) for row in rows(m[R])[:2]]
    entries = [RUN + u64(seq) + chain for seq, chain in enumerate(chains)]
    paths: list[Json] = [
        {"index": at, "proof": [b64(item) for item in inclusion(at, entries)]} for at in range(2)
    ]
    return m | {B: edited(m[B], 0, entries=paths)}


def more_lines(name: str, at: int, **members: Json) -> Change:
    """A file with one line more: a copy that says something else."""
    return lambda m: m | {name: m[name] + lines([rows(m[name])[at] | members])}


def stranger(m: Members) -> Members:
    """A writer that signed nothing here."""
    row: JsonObject = {
        "writer_id": fixed("stranger", 16).hex(),
        "public_key": b64(WRITERS[FIRST].public),
        "certificate": b64(certificate(FIRST)),
    }
    return m | {W: m[W] + lines([row])}


def header_back(m: Members) -> Members:
    """A header that a statement says is gone."""
    row = rows(bundle(Plan(shared=True))[R])[1]
    back = {name: row[name] for name in ("epoch", "header", "kind", "ts")}
    return m | {R: edited(m[R], 1, **back)}


def longer_proof(name: str) -> Change:
    """An entry proof with a hash too many."""

    def change(m: Members) -> Members:
        proof = rows(m[name])[0]["proof"]
        more: list[Json] = [*proof, b64(bytes(32))] if isinstance(proof, list) else []
        return m | {name: edited(m[name], 0, proof=more)}

    return change


def spoiled_cosignature(m: Members) -> Members:
    """The last cosignature of the operator's checkpoint with one bit wrong."""
    *before, last = kept(m["operator.note"])
    return m | {"operator.note": b"".join(before) + spoiled(last.decode()).encode()}


OTHER_FIRST = ((RUN, 0, 1), (OTHER, 0, 2), (fixed("run 2", 16), 0, 0))
CHANGES: Mapping[str, Mapping[str, Change]] = {
    "plain": {
        "a batch of no record": more_lines(B, 0, batch_id=fixed("no batch", 16).hex()),
        "a batch twice": more_lines(B, 0),
        "a writer twice": more_lines(W, 0),
        "a writer of no batch": stranger,
        "ranges that begin later": ranges_of(1, (RUN, 3, 5)),
        "ranges of nothing": ranges_of(0),
        "ranges of another run": ranges_of(0, (OTHER, 0, 1)),
        "ranges of more than the batch": ranges_of(0, (RUN, 0, 1), (OTHER, 0, 0)),
        "ranges that run backwards": ranges_of(0, (RUN, 0, 1), (OTHER, 1, 0)),
        "ranges cut short": lambda m: m | {B: edited(m[B], 0, ranges=b64(RUN + bytes(15)))},
        "a batch signed over other records": resigned(FIRST, 0),
        "paths in a batch that needs none": needless_paths,
        "a record's proof": longer_proof(R),
        "the anchor's proof": longer_proof("anchor.json"),
    },
    "shared batch": {
        "ranges in another order": ranges_of(0, *OTHER_FIRST),
        "ranges that name a run twice": ranges_of(
            0, (OTHER, 0, 1), (OTHER, 2, 2), (RUN, 0, 1), (fixed("run 2", 16), 0, 0)
        ),
        "a path too few": fewer_paths,
        "a batch signed over other records": resigned(FIRST, 0),
    },
    "anonymized": {
        "the erasure record's proof": longer_proof("administration.jsonl"),
        "the erasure record twice": lambda m: (
            m | {"administration.jsonl": m["administration.jsonl"] * 2}
        ),
    },
    "no witness is asked for": {"a cosignature that does not hold": spoiled_cosignature},
    "rotated, old pins": {
        "a rotation under another size of the same shape": lambda m: (
            m | {"administration.jsonl": edited(m["administration.jsonl"], 0, size=6)}
        )
    },
    "deleted": {"a header is back as it was": header_back},
}
