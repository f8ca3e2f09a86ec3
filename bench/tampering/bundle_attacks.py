"""Attacks on exported bundles by whoever holds one, and old states shown as if they were new.

Every bundle is a real export of the rotated deployment. The holder changes members and makes the
manifest fit; the reader's policy was pinned before. An answer of 0 is the attacker's success.
"""

import base64
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random  # noqa: TID251 - seeded positions
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.tampering.attack import Outcome, Told, Trial
from bench.tampering.bundles import (
    BROKEN,
    INCOMPLETE,
    WHOLE,
    Lines,
    Members,
    encoded,
    lines_of,
    member_of,
    members_of,
    packed,
)
from bench.tampering.forging import OwnWriter
from bench.tampering.rotated import Rotated
from bench.tampering.run_ref import RunRef
from tests.support.independent_verifier import chain_hash, record_hash, tagged
from tests.support.small_log import NoteKey, key_id

BundleAct = Callable[[Rotated], Awaitable[Trial]]
Change = Callable[[Members, Random], None]
RowChange = Callable[[Lines, Random], None]
_RECORDS, _PAYLOADS, _BATCHES = "records.jsonl", "payloads.jsonl", "batches.jsonl"
_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleClass:
    """A class of the table that is made on bundles; `codes`: the answers that tell it."""

    number: int
    title: str
    who: str
    named: str
    acts: tuple[tuple[str, "Deal"], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """What is shown to the reader: which run, changed how, read with what."""

    change: Change
    told_by: frozenset[int] = frozenset({BROKEN})
    erased: bool = False  # a run of which something was erased lawfully
    trusting: bool = False  # the reader has no policy
    words: Callable[[Members, Random], tuple[str, ...]] = lambda _members, _rng: ()


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


def _flip(row: dict[str, Any], name: str, rng: Random) -> None:
    row[name] = b64(flipped(base64.b64decode(row[name]), rng))


def _placed(rows: Lines) -> Lines:
    return [row for row in rows if row["proof"]]


# Class 34: proofs.


def _wrong_index(rows: Lines, rng: Random) -> None:
    row = rng.choice(_placed(rows))
    row["index"] = max(0, row["index"] + rng.choice((-1, 1, 2, 256)))


def _proofs_swapped(rows: Lines, rng: Random) -> None:
    one, other = rng.sample(_placed(rows), 2)
    for name in ("index", "proof"):
        one[name], other[name] = other[name], one[name]


def _short_hash(rows: Lines, rng: Random) -> None:
    row = rng.choice(_placed(rows))
    place = rng.randrange(len(row["proof"]))
    whole = base64.b64decode(row["proof"][place])
    row["proof"][place] = b64(rng.choice((whole[:-1], whole[:16], b"", whole + b"\0")))


def _other_length(rows: Lines, rng: Random) -> None:
    row = rng.choice(_placed(rows))
    if rng.random() < 0.5:
        del row["proof"][rng.randrange(len(row["proof"]))]
    else:
        row["proof"].insert(rng.randrange(len(row["proof"])), b64(rng.randbytes(32)))


def _node_for_leaf(rows: Lines, rng: Random) -> None:
    """The path of the node above the leaf, as if that were the leaf."""
    row = rng.choice(_placed(rows))
    row["index"], row["proof"] = row["index"] // 2, row["proof"][1:]


def _backwards(rows: Lines, rng: Random) -> None:
    row = rng.choice([row for row in _placed(rows) if len(set(row["proof"])) > 1])
    row["proof"].reverse()


def _wrong_size(members: Members, rng: Random) -> None:
    """Another size, in the checkpoint or in the anchor's path."""
    if rng.random() < 0.5:
        note = members["checkpoint.note"].split(b"\n")
        note[1] = str(int(note[1]) + rng.choice((-1, 1, 7))).encode()
        members["checkpoint.note"] = b"\n".join(note)
        return
    anchor = json.loads(members["anchor.json"])
    anchor["size"] += rng.choice((-1, 1, 7))
    members["anchor.json"] = encoded(anchor) + b"\n"


def _anchor_path(members: Members, rng: Random) -> None:
    anchor = json.loads(members["anchor.json"])
    place = rng.randrange(len(anchor["proof"]))
    whole = base64.b64decode(anchor["proof"][place])
    anchor["proof"][place] = b64(rng.choice((whole[:-1], flipped(whole, rng))))
    members["anchor.json"] = encoded(anchor) + b"\n"


# Class 42: rows and keys.


def _drop(rows: Lines, rng: Random) -> None:
    del rows[rng.randrange(1, len(rows) - 1)]


def _drop_tail(members: Members, rng: Random) -> None:
    """The last records, with their contents, and the batches that hold nothing else."""
    records = lines_of(members[_RECORDS])
    first = len(records) - rng.randrange(1, 6)
    ids = {row["batch_id"] for row in records[:first]}
    while ids & {row["batch_id"] for row in records[first:]}:
        first -= 1
        ids = {row["batch_id"] for row in records[:first]}
    members[_RECORDS] = member_of(records[:first])
    for name, is_kept in (
        (_PAYLOADS, lambda row: row["seq"] < first),
        (_BATCHES, lambda row: row["batch_id"] in ids),
    ):
        members[name] = member_of([row for row in lines_of(members[name]) if is_kept(row)])


def _edit_header(rows: Lines, rng: Random) -> None:
    row = rng.choice(rows)
    header = json.loads(base64.b64decode(row["header"]))
    header["actor"] = "operator" if header["actor"] != "operator" else "system"
    row["header"] = b64(encoded(header))


def _edit_and_rehash(rows: Lines, rng: Random) -> None:
    at = rng.randrange(1, len(rows))
    _edit_header(rows[at : at + 1], rng)
    head = bytes.fromhex(rows[at - 1]["chain"])
    for row in rows[at:]:
        record = record_hash(base64.b64decode(row["header"]))
        head = chain_hash(head, row["seq"], record)
        row["rc"], row["chain"] = record.hex(), head.hex()


def _edit_time(rows: Lines, rng: Random) -> None:
    row = rng.choice(rows)
    row["ts"] = f"2025{row['ts'][4:]}"


def _own_writer(members: Members, rng: Random) -> None:
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
    batches = lines_of(members[_BATCHES])
    for batch in batches:
        own = OwnWriter(writer_id=_uuid(batch["writer_id"]), private=private)
        signature = own.sign(log, _uuid(batch["batch_id"]), batch["n"], bytes.fromhex(batch["tip"]))
        batch["sig"] = b64(signature)
    members[_BATCHES] = member_of(batches)


def _uuid(text: str) -> Any:
    from uuid import UUID

    return UUID(text)


def _own_log_key(members: Members, rng: Random) -> None:
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


def _own_everything(members: Members, rng: Random) -> None:
    _own_writer(members, rng)
    _own_log_key(members, rng)


def _own_key_under_real_id(members: Members, rng: Random) -> None:
    """As `_own_log_key` for the tenant's checkpoint, with the id of the key that signed it."""
    text, _, line = members["checkpoint.note"].partition(b"\n\n")
    text += b"\n"
    name, _, encoded_line = line.strip().rpartition(b" ")
    forged = Ed25519PrivateKey.from_private_bytes(rng.randbytes(32)).sign(text)
    made = base64.b64decode(encoded_line)[:4] + forged
    assert len(made) == len(key_id("x", 1, b"")) + 64
    members["checkpoint.note"] = text + b"\n" + name + b" " + base64.b64encode(made) + b"\n"


def _no_anchor(members: Members, _rng: Random) -> None:
    members["anchor.json"], members["operator.note"] = b"null\n", b""


def _no_cosignature(members: Members, _rng: Random) -> None:
    text, _, lines = members["operator.note"].partition(b"\n\n")
    members["operator.note"] = text + b"\n\n" + lines.splitlines()[0] + b"\n"


def _no_erasure(members: Members, _rng: Random) -> None:
    """The statement that makes what is gone lawful."""
    rows = lines_of(members["administration.jsonl"])
    kinds = [json.loads(base64.b64decode(row["header"]))["kind"] for row in rows]
    kept = [r for r, kind in zip(rows, kinds, strict=True) if not kind.startswith("erasure.")]
    assert len(kept) < len(rows)
    members["administration.jsonl"] = member_of(kept)


def _nothing(_members: Members, _rng: Random) -> None:
    """The bundle as it was exported, long ago."""


def _long_after(members: Members, rng: Random) -> tuple[str, ...]:
    """The reader's clock and patience: the witness saw it longer ago than that."""
    most = rng.randrange(60, _DAY)
    later = witnessed_at(members) + most + rng.randrange(1, _DAY)
    return ("--now", str(later), "--max-age-seconds", str(most))


def witnessed_at(members: Members) -> int:
    """When the witness cosigned (C2SP tlog-cosignature)."""
    line = members["operator.note"].splitlines()[-1]
    raw = base64.b64decode(line.rpartition(b" ")[2])
    return int.from_bytes(raw[4:12])


def soon_after(members: Members, rng: Random) -> tuple[str, ...]:
    """A reader who asks in time: nothing to be said."""
    most = rng.randrange(60, _DAY)
    now = witnessed_at(members) + rng.randrange(most)
    return ("--now", str(now), "--max-age-seconds", str(most))


_PARTLY = frozenset({BROKEN, INCOMPLETE})
CLASSES = (
    BundleClass(
        number=34,
        title="leaf/node confusion, wrong size or index, short hashes in proofs",
        who="client",
        named="D12",
        acts=(
            ("node for leaf", Deal(change=on(_RECORDS, _node_for_leaf))),
            ("index", Deal(change=on(_RECORDS, _wrong_index))),
            ("size", Deal(change=_wrong_size)),
            ("hash of another length", Deal(change=on(_RECORDS, _short_hash))),
            ("a hash more or less", Deal(change=on(_RECORDS, _other_length))),
            ("backwards", Deal(change=on(_RECORDS, _backwards))),
            ("two swapped", Deal(change=on(_RECORDS, _proofs_swapped))),
            ("anchor's path", Deal(change=_anchor_path)),
        ),
    ),
    BundleClass(
        number=42,
        title="drop or edit rows of an export; a bundle with keys of its own",
        who="holder",
        named="D12",
        acts=(
            ("record dropped", Deal(change=on(_RECORDS, _drop))),
            ("end dropped", Deal(change=_drop_tail, told_by=_PARTLY)),
            ("payload dropped", Deal(change=on(_PAYLOADS, _drop))),
            ("batch dropped", Deal(change=on(_BATCHES, _drop))),
            ("header", Deal(change=on(_RECORDS, _edit_header))),
            ("header, re-hashed", Deal(change=on(_RECORDS, _edit_and_rehash))),
            ("time", Deal(change=on(_RECORDS, _edit_time))),
            (
                "value",
                Deal(change=on(_PAYLOADS, lambda rows, rng: _flip(rng.choice(rows), "value", rng))),
            ),
            (
                "salt",
                Deal(change=on(_PAYLOADS, lambda rows, rng: _flip(rng.choice(rows), "salt", rng))),
            ),
            (
                "signature",
                Deal(change=on(_BATCHES, lambda rows, rng: _flip(rng.choice(rows), "sig", rng))),
            ),
            ("own writer", Deal(change=_own_writer)),
            ("own log and witness keys", Deal(change=_own_log_key)),
            ("own key, real id", Deal(change=_own_key_under_real_id)),
            ("all keys its own", Deal(change=_own_everything)),
            (
                "all keys its own, no policy",
                Deal(change=_own_everything, trusting=True, told_by=_PARTLY),
            ),
            ("anchor dropped", Deal(change=_no_anchor, told_by=_PARTLY)),
            ("cosignature dropped", Deal(change=_no_cosignature, told_by=_PARTLY)),
            ("erasure record dropped", Deal(change=_no_erasure, erased=True)),
        ),
    ),
    BundleClass(
        number=28,
        title="freeze: serve an old checkpoint",
        who="A4",
        named="D10",
        acts=(("old bundle", Deal(change=_nothing, words=_long_after, told_by=_PARTLY)),),
    ),
)


async def bundle_trial(rotated: Rotated, one: BundleClass, name: str, deal: Deal) -> Trial:
    """Change one export and have it read."""
    rng = rotated.stage.rng
    run = _run_for(rotated, deal)
    members = members_of(rotated.bundles[run])
    deal.change(members, rng)
    found = await rotated.verify(
        packed(members),
        *deal.words(members, rng),
        trusting=deal.trusting,
    )
    told = tuple(Told(detector=one.named, reason=reason) for reason in found.findings[:1])
    is_told = found.code in deal.told_by
    outcome = Outcome.DETECTED if is_told else Outcome.UNDETECTED
    if not is_told and found.code != WHOLE:
        outcome = Outcome.ELSEWHERE
    layers = frozenset(_layer(reason) for reason in found.findings)
    return Trial(
        number=one.number, act=name, outcome=outcome, told=told, where=run.public, layers=layers
    )


def _run_for(rotated: Rotated, deal: Deal) -> RunRef:
    wanted = "anonymized" if deal.erased else ""
    return rotated.stage.rng.choice([run for run in rotated.bundles if run.erased == wanted])


# Which layer a finding of the offline verifier is of, most special first.
_LAYERS = (
    (r"no erasure statement|erasure|was erased", "D8"),
    (r"witness|cosignature|quorum", "D6"),
    (r"enrolment|vouched for", "D7"),
    (r"is signed by no log key|has a signature by|no policy is given|is pinned", "D5"),
    (r"tree of the checkpoint|stands in the log|names another checkpoint|no hash|leads to", "D4"),
    (r"in a log of which no checkpoint", "D4"),
    (r"enrolment|batch|writer", "D7"),
    (r"commits to|belongs to (no record|a record)|field .* (twice|unknown)", "D3"),
    (r"and header do not agree", "D2"),
    (r"hash of the header|does not follow|chain|missing|order|end here|header", "D1"),
)


def _layer(reason: str) -> str:
    for pattern, layer in _LAYERS:
        if re.search(pattern, reason):
            return layer
    return "D12"
