"""What the holder of an export changes in it: proofs, rows, signatures, keys, whole members.

Each change is of the members of one bundle; whoever makes it then makes the manifest fit.
"""

import base64
import json
from collections.abc import Callable
from random import Random  # noqa: TID251 - seeded positions
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.tampering.bundles import Lines, Members, encoded, lines_of, member_of
from bench.tampering.forging import OwnWriter
from tests.support.independent_verifier import chain_hash, record_hash, tagged
from tests.support.small_log import NoteKey, key_id

Change = Callable[[Members, Random], None]
RowChange = Callable[[Lines, Random], None]
RECORDS, PAYLOADS, BATCHES = "records.jsonl", "payloads.jsonl", "batches.jsonl"


def on(name: str, change: RowChange) -> Change:
    """A change of the rows of one member."""

    def do(members: Members, rng: Random) -> None:
        rows = lines_of(members[name])
        change(rows, rng)
        members[name] = member_of(rows)

    return do


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def flipped(raw: bytes, rng: Random) -> bytes:
    """One bit of it."""
    changed = bytearray(raw)
    changed[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip(name: str) -> RowChange:
    """One bit of a member of some row."""

    def do(rows: Lines, rng: Random) -> None:
        row = rng.choice(rows)
        row[name] = b64(flipped(base64.b64decode(row[name]), rng))

    return do


def placed(rows: Lines) -> Lines:
    return [row for row in rows if row["proof"]]


# Class 34: proofs.


def wrong_index(rows: Lines, rng: Random) -> None:
    row = rng.choice(placed(rows))
    row["index"] = max(0, row["index"] + rng.choice((-1, 1, 2, 256)))


def proofs_swapped(rows: Lines, rng: Random) -> None:
    one, other = rng.sample(placed(rows), 2)
    for name in ("index", "proof"):
        one[name], other[name] = other[name], one[name]


def short_hash(rows: Lines, rng: Random) -> None:
    row = rng.choice(placed(rows))
    place = rng.randrange(len(row["proof"]))
    whole = base64.b64decode(row["proof"][place])
    row["proof"][place] = b64(rng.choice((whole[:-1], whole[:16], b"", whole + b"\0")))


def other_length(rows: Lines, rng: Random) -> None:
    row = rng.choice(placed(rows))
    if rng.random() < 0.5:
        del row["proof"][rng.randrange(len(row["proof"]))]
    else:
        row["proof"].insert(rng.randrange(len(row["proof"])), b64(rng.randbytes(32)))


def node_for_leaf(rows: Lines, rng: Random) -> None:
    """The path of the node above the leaf, as if that were the leaf."""
    row = rng.choice(placed(rows))
    row["index"], row["proof"] = row["index"] // 2, row["proof"][1:]


def backwards(rows: Lines, rng: Random) -> None:
    row = rng.choice([row for row in placed(rows) if len(set(row["proof"])) > 1])
    row["proof"].reverse()


def wrong_size(members: Members, rng: Random) -> None:
    """Another size, in the checkpoint or in the anchor's path."""
    if rng.random() < 0.5:
        note = members["checkpoint.note"].split(b"\n")
        note[1] = str(int(note[1]) + rng.choice((-1, 1, 7))).encode()
        members["checkpoint.note"] = b"\n".join(note)
        return
    anchor = json.loads(members["anchor.json"])
    anchor["size"] += rng.choice((-1, 1, 7))
    members["anchor.json"] = encoded(anchor) + b"\n"


def anchor_path(members: Members, rng: Random) -> None:
    anchor = json.loads(members["anchor.json"])
    place = rng.randrange(len(anchor["proof"]))
    whole = base64.b64decode(anchor["proof"][place])
    anchor["proof"][place] = b64(rng.choice((whole[:-1], flipped(whole, rng))))
    members["anchor.json"] = encoded(anchor) + b"\n"


# Class 42: rows and keys.


def drop(rows: Lines, rng: Random) -> None:
    del rows[rng.randrange(1, len(rows) - 1)]


def drop_tail(members: Members, rng: Random) -> None:
    """The last records, with their contents, and the batches that hold nothing else."""
    records = lines_of(members[RECORDS])
    first = len(records) - rng.randrange(1, 6)
    ids = {row["batch_id"] for row in records[:first]}
    while ids & {row["batch_id"] for row in records[first:]}:
        first -= 1
        ids = {row["batch_id"] for row in records[:first]}
    members[RECORDS] = member_of(records[:first])
    for name, is_kept in (
        (PAYLOADS, lambda row: row["seq"] < first),
        (BATCHES, lambda row: row["batch_id"] in ids),
    ):
        members[name] = member_of([row for row in lines_of(members[name]) if is_kept(row)])


def edit_header(rows: Lines, rng: Random) -> None:
    row = rng.choice(rows)
    header = json.loads(base64.b64decode(row["header"]))
    header["actor"] = "operator" if header["actor"] != "operator" else "system"
    row["header"] = b64(encoded(header))


def edit_and_rehash(rows: Lines, rng: Random) -> None:
    at = rng.randrange(1, len(rows))
    edit_header(rows[at : at + 1], rng)
    head = bytes.fromhex(rows[at - 1]["chain"])
    for row in rows[at:]:
        record = record_hash(base64.b64decode(row["header"]))
        head = chain_hash(head, row["seq"], record)
        row["rc"], row["chain"] = record.hex(), head.hex()


def edit_time(rows: Lines, rng: Random) -> None:
    row = rng.choice(rows)
    row["ts"] = f"2025{row['ts'][4:]}"


def own_writer(members: Members, rng: Random) -> None:
    """Every batch signed by a writer of the holder's own, certified by an own enrolment key."""
    enrolment = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
    private = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32))
    writers = lines_of(members["writers.jsonl"])
    public = private.public_key().public_bytes_raw()
    for writer in writers:
        claim = tagged("writer", bytes.fromhex(writer["writer_id"]), public)
        writer |= {"public_key": b64(public), "certificate": b64(enrolment.sign(claim))}
    members["writers.jsonl"] = member_of(writers)
    log = json.loads(members["manifest.json"])["log"]
    batches = lines_of(members[BATCHES])
    for batch in batches:
        own = OwnWriter(writer_id=UUID(batch["writer_id"]), private=private)
        signature = own.sign(log, UUID(batch["batch_id"]), batch["n"], bytes.fromhex(batch["tip"]))
        batch["sig"] = b64(signature)
    members[BATCHES] = member_of(batches)


def own_log_key(members: Members, rng: Random) -> None:
    """Checkpoints signed and cosigned with keys of the holder's own, under the real names."""
    for name in ("checkpoint.note", "operator.note"):
        text, _, lines = members[name].partition(b"\n\n")
        text += b"\n"
        origin = text.partition(b"\n")[0].decode()
        note = text + b"\n" + NoteKey(origin, seed=rng.randbytes(32)).line(text)
        for line in lines.splitlines()[1:]:
            witness = NoteKey(line.decode().split()[1], seed=rng.randbytes(32), kind=4)
            note += witness.line(text, at=1_800_000_000)
        members[name] = note


def own_everything(members: Members, rng: Random) -> None:
    own_writer(members, rng)
    own_log_key(members, rng)


def own_key_under_real_id(members: Members, rng: Random) -> None:
    """As `own_log_key` for the tenant's checkpoint, with the id of the key that signed it."""
    text, _, line = members["checkpoint.note"].partition(b"\n\n")
    text += b"\n"
    name, _, encoded_line = line.strip().rpartition(b" ")
    forged = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32)).sign(text)
    made = base64.b64decode(encoded_line)[:4] + forged
    assert len(made) == len(key_id("x", 1, b"")) + 64
    members["checkpoint.note"] = text + b"\n" + name + b" " + base64.b64encode(made) + b"\n"


def no_anchor(members: Members, _rng: Random) -> None:
    members["anchor.json"], members["operator.note"] = b"null\n", b""


def no_cosignature(members: Members, _rng: Random) -> None:
    text, _, lines = members["operator.note"].partition(b"\n\n")
    members["operator.note"] = text + b"\n\n" + lines.splitlines()[0] + b"\n"


def no_erasure(members: Members, _rng: Random) -> None:
    """The statement that makes what is gone lawful."""
    rows = lines_of(members["administration.jsonl"])
    kinds = [json.loads(base64.b64decode(row["header"]))["kind"] for row in rows]
    kept = [r for r, kind in zip(rows, kinds, strict=True) if not kind.startswith("erasure.")]
    assert len(kept) < len(rows)
    members["administration.jsonl"] = member_of(kept)
