"""Writes the published ledger/v1 vectors; the same bytes every time, from fixed inputs.

Usage: `python scripts/make_vectors.py [DIRECTORY]`. Frozen: a vector that changes is a new version
of the format, so what this writes must equal what is committed.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from app.domain.run import Json, JsonObject, Usage
from app.domain.verdict import Decision, Point, PolicyRef, Scrubbed, ScrubBlock, Verdict
from app.ledger import hashing
from app.ledger.batches import SealedBatch, signed_batch
from app.ledger.header import FIELD_NUMBERS, Header
from app.ledger.sealing import NONCE_BYTES, RunSealer
from app.ledger.writing import ChainHead, Draft, RunWriter, SealedAppend, WriterKey

Vector: TypeAlias = JsonObject
DIRECTORY = Path(__file__).resolve().parents[1] / "tests" / "contract" / "vectors"


def fixed(label: str, size: int) -> bytes:
    """Bytes that look random and are the same everywhere: SHAKE-256 of a label."""
    return hashlib.shake_256(f"meshflow ledger/v1 vectors: {label}".encode()).digest(size)


LOG, RUN, OTHER_RUN = fixed("log", 16), fixed("run", 16), fixed("other run", 16)
BEFORE_RUN, AFTER_RUN = b"\x01" + fixed("before", 15), b"\xfe" + fixed("after", 15)
RUN_KEY, OTHER_KEY = fixed("run key", 32), fixed("other run key", 32)
WRITER = WriterKey(fixed("ed25519 seed", 32), fixed("writer id", 16))
AT = datetime(2026, 7, 31, 23, 59, 59, 7, tzinfo=UTC)
POLICY = PolicyRef(policy_id="builtin", version=3, digest=fixed("policy", 32).hex())
SCRUB = ScrubBlock(
    engine="re2/1",
    rules=f"sha256:{fixed('rules', 32).hex()}",
    policy="default/1",
    mode="standard",
    status="ok",
    counts={"email": 2, "phone.us": 1},
    unscanned=0,
)


def told(**members: bytes | str | int) -> JsonObject:
    """Members as JSON shows them: bytes in hex."""
    return {n: v.hex() if isinstance(v, bytes) else v for n, v in members.items()}


def flipped(data: bytes, bit: int = 0) -> bytes:
    """The same bytes with one bit the other way."""
    at = bit // 8 % len(data)
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def vector(
    name: str, inputs: Mapping[str, Json], output: Mapping[str, bytes], *, valid: bool = True
) -> Vector:
    """One vector: inputs, what must come out, and whether it does."""
    return {"name": name, "input": dict(inputs), "output": told(**output), "valid": valid}


def with_twin(
    name: str, inputs: Mapping[str, Json], output: Mapping[str, bytes], bit: int = 77
) -> list[Vector]:
    """A vector, and its twin whose first output has one wrong bit."""
    member, value = next(iter(output.items()))
    wrong = {**output, member: flipped(value, bit)}
    return [
        vector(name, inputs, output),
        vector(f"{name}, one bit wrong", inputs, wrong, valid=False),
    ]


def commitments() -> list[Vector]:
    """C of values that people get wrong: none at all, and more bytes than characters."""
    values = {
        "an empty value": b"",
        "a number": b"42",
        "text": b'{"text":"What is 6*7?"}',
        "unicode": '{"text":"naïve 日本語 🜂 \u2028"}'.encode(),
        "a value of 300 bytes": b'"' + b"a" * 298 + b'"',
    }
    made: list[Vector] = []
    for seq, (name, value) in enumerate(values.items()):
        field, salt = list(FIELD_NUMBERS)[seq], fixed(f"salt {seq}", 32)
        inputs = told(log=LOG, run=RUN, seq=seq * 255, field=field, salt=salt, value=value)
        c = hashing.commitment(LOG, RUN, seq * 255, field, salt, value)
        made += with_twin(name, inputs, {"commitment": c}, bit=seq)
    return made


def blobs() -> list[Vector]:
    """Stored blobs under a fixed key and nonce, and what each place and byte must not open."""
    made: list[Vector] = []
    for seq, (field, value) in enumerate({"task": b"", "output": '"né"'.encode()}.items()):
        salt, nonce = fixed(f"blob salt {seq}", 32), fixed(f"nonce {seq}", 12)
        number = FIELD_NUMBERS[field]
        sealer = RunSealer(RUN_KEY, log=LOG, run=RUN)
        blob = sealer.seal(seq=seq, field=number, salt=salt, value=value, nonce=nonce)
        inputs = told(run_key=RUN_KEY, log=LOG, run=RUN, seq=seq, field=number, nonce=nonce)
        inputs |= told(salt=salt, value=value)
        made += with_twin(f"{field}, whole", inputs, {"blob": blob}, bit=130)
        elsewhere = inputs | told(seq=seq + 1)
        made.append(vector(f"{field}, at another seq", elsewhere, {"blob": blob}, valid=False))
        key = inputs | told(run_key=OTHER_KEY)
        made.append(vector(f"{field}, under another key", key, {"blob": blob}, valid=False))
    return made


def bare_header() -> Header:
    """Every member that may be null is."""
    return Header(
        log=LOG,
        run=RUN,
        seq=0,
        epoch=0,
        kind="run.started",
        at=AT,
        event_id=fixed("event", 16),
        nonce=fixed("header nonce", 16),
        actor="system",
        writer=WRITER.writer_id,
        intent=None,
        parent=None,
        decision=None,
        model=None,
        engine=None,
        tool=None,
        usage=None,
        outcome=None,
        sandbox=None,
        approval=None,
        scrub=None,
        size={},
        commit={},
    )


def decision(verdict: Verdict, *rules: str) -> Decision:
    """A decision of the fixed policy."""
    return Decision(
        point=Point.TOOL_CALL, verdict=verdict, rules=rules, code=verdict.value, policy=POLICY
    )


def full_header() -> Header:
    """Every member has a value; numbers are the largest there are."""
    largest = 2**53 - 1
    return Header(
        log=LOG,
        run=RUN,
        seq=largest,
        epoch=largest,
        kind="tool.finished",
        at=AT,
        event_id=fixed("event 2", 16),
        nonce=fixed("header nonce 2", 16),
        actor=f"key:{fixed('actor', 8).hex()}",
        writer=WRITER.writer_id,
        intent=largest - 1,
        parent=OTHER_RUN,
        decision=decision(Verdict.DENY, "tool.capability", "tool.schema"),
        model="Model-9.1:x_y",
        engine="native",
        tool=fixed("tool", 32),
        usage=Usage(input_tokens=largest, output_tokens=0, cost_micros=1),
        outcome="denied:capability",
        sandbox="landlock-6:seccomp",
        approval=fixed("approval", 16),
        scrub=SCRUB,
        size={name: len(name) for name in FIELD_NUMBERS},
        commit={name: fixed(f"commit {name}", 32) for name in FIELD_NUMBERS},
    )


def headers() -> list[Vector]:
    """Canonical header bytes, their record hash, and bytes that are no header."""
    made: list[Vector] = []
    for name, header in {"all null": bare_header(), "all full": full_header()}.items():
        raw = header.encode()
        inputs: JsonObject = {"members": json.loads(raw)}
        rc = hashing.record_hash(raw)
        made.append(vector(name, inputs, {"header": raw, "record_hash": rc}))
        wrong = {"header": flipped(raw, 8 * raw.index(b'"nonce":"') + 73), "record_hash": rc}
        made.append(vector(f"{name}, one bit wrong", inputs, wrong, valid=False))
    raw = bare_header().encode()
    members: JsonObject = json.loads(raw)
    backwards = json.dumps(dict(reversed(members.items())), separators=(",", ":")).encode()
    not_headers = {
        "a space": raw.replace(b":", b": ", 1),
        "members out of order": backwards,
        "a member twice": raw.replace(b'"v":1', b'"v":1,"v":1'),
        "a float": raw.replace(b'"v":1', b'"v":1.0'),
        "an escape that is not needed": raw.replace(b'"system"', b'"\\u0073ystem"'),
        "a missing member": raw.replace(b',"v":1', b""),
        "an unknown member": raw.replace(b'"v":1', b'"v":1,"w":1'),
        "an intent after its effect": raw.replace(b'"intent":null', b'"intent":0'),
    }
    return made + [
        vector(name, {"members": None}, {"header": data}, valid=False)
        for name, data in not_headers.items()
    ]


def chains() -> list[Vector]:
    """Genesis and the first two links."""
    head = hashing.genesis(LOG, RUN)
    made = with_twin("genesis", told(log=LOG, run=RUN), {"genesis": head})
    for seq in range(2):
        rc = fixed(f"record {seq}", 32)
        link = told(previous=head, seq=seq, record_hash=rc)
        head = hashing.chain_hash(head, seq, rc)
        made += with_twin(f"link {seq}", link, {"chain": head})
    return made


def trees() -> list[Vector]:
    """MTH over one to eight entries: the split is where implementations differ."""
    made: list[Vector] = []
    for n in range(1, 9):
        places: list[Json] = []
        entries: list[bytes] = []
        for seq in range(n):
            chain = fixed(f"chain {seq}", 32)
            places.append(told(run=RUN, seq=seq, chain=chain))
            entries.append(hashing.batch_entry(RUN, seq, chain))
        inputs: JsonObject = {"entries": places}
        made += with_twin(f"n={n}", inputs, {"mth": hashing.merkle_tree_hash(entries)}, bit=n)
    return made


def batches() -> list[Vector]:
    """What a writer signs, and its signature."""
    batch_id, tip = fixed("batch", 16), fixed("tip", 32)
    message = hashing.batch_message(LOG, batch_id, 3, tip)
    inputs = told(log=LOG, batch_id=batch_id, n=3, mth=tip)
    inputs |= told(private_key=fixed("ed25519 seed", 32), public_key=WRITER.public_key)
    signature = WRITER.sign(message)
    made = with_twin("message", inputs, {"message": message, "signature": signature})
    wrong = {"message": message, "signature": flipped(signature, 3)}
    made.append(vector("signature, one bit wrong", inputs, wrong, valid=False))
    return made


def leaves() -> list[Vector]:
    """The leaf of a record in its tenant's log."""
    chain = fixed("leaf chain", 32)
    inputs = told(log=LOG, run=RUN, seq=300, chain=chain)
    return with_twin("leaf", inputs, {"leaf_hash": hashing.leaf_hash(LOG, RUN, 300, chain)})


def digests() -> list[Vector]:
    """Keyed digests for each purpose, one of no bytes at all."""
    key = hashing.digest_key(RUN_KEY)
    data = {"tool": b"calculator", "arguments": b'{"a":1}', "request": b"", "result": b"\xff\x00"}
    made: list[Vector] = []
    for purpose, value in data.items():
        inputs = told(run_key=RUN_KEY, purpose=purpose, data=value)
        digest = hashing.keyed_digest(key, purpose, value)
        made += with_twin(purpose, inputs, {"digest": digest})
    return made


ID_BYTES = 16


def counted_entropy(label: str = "entropy") -> Callable[[int], bytes]:
    """A source that gives other bytes each time, and the same ones in each process."""
    taken = 0

    def take(size: int) -> bytes:
        nonlocal taken
        taken += 1
        return fixed(f"{label} {taken}", size)

    def draw(size: int) -> bytes:
        # A record's draw: salt and nonce of each field, event id, nonce; a part has a number each.
        fields, rest = divmod(size - 2 * ID_BYTES, hashing.SALT_BYTES + NONCE_BYTES)
        if fields < 0 or rest:
            return take(size)
        sizes = (*(hashing.SALT_BYTES, NONCE_BYTES) * fields, ID_BYTES, ID_BYTES)
        return b"".join(map(take, sizes))

    return draw


def words(text: str) -> Scrubbed:
    """A value of one member."""
    return Scrubbed(value=json.dumps({"text": text}, ensure_ascii=False).encode(), block=SCRUB)


def others() -> list[SealedAppend]:
    """What two more runs have in the batch, of which only the chain hashes are kept there.

    One id sorts before the run's and one after it, so that its entries stand in the middle.
    """
    made: list[SealedAppend] = []
    entropy = counted_entropy("others' entropy")
    for run, seq, count in ((BEFORE_RUN, 7, 2), (AFTER_RUN, 0, 1)):
        writer = RunWriter(log=LOG, run=run, run_key=OTHER_KEY, writer=WRITER, entropy=entropy)
        head = ChainHead(next_seq=seq, chain=fixed(f"head of {run.hex()}", 32))
        asked = Draft(kind="llm.requested", actor="system", fields={"request": words("hello")})
        made.append(writer.seal(head, [asked] * count, epoch=1, at=AT))
    return made


def small_run(
    beside: Sequence[SealedAppend] = (), call: str = "6*7"
) -> tuple[list[SealedBatch], JsonObject]:
    """Three records in two batches, as they are stored; others' appends are in the second one."""
    entropy = counted_entropy()
    writer = RunWriter(log=LOG, run=RUN, run_key=RUN_KEY, writer=WRITER, entropy=entropy)
    allowed = decision(Verdict.ALLOW)
    submitted = Draft(
        kind="run.submitted",
        actor=f"key:{fixed('actor', 8).hex()}",
        decision=allowed,
        model="offline",
        outcome="allow",
        fields={"task": words("What is 6*7?")},
    )
    decided = Draft(
        kind="tool.decided",
        actor="model",
        decision=allowed,
        tool="calculator",
        outcome="allow",
        fields={"call": words(call)},
    )
    finished = Draft(
        kind="run.finished",
        actor="system",
        intent=1,
        usage=Usage(input_tokens=7, output_tokens=2, cost_micros=0),
        outcome="succeeded",
        fields={"output": words("42, voilà"), "note": words("")},
    )
    first = writer.seal(ChainHead.empty(LOG, RUN), [submitted], epoch=1, at=AT)
    opening = signed_batch([first], entropy(16))
    second = writer.seal(first.head, [decided, finished], epoch=2, at=AT)
    closing = signed_batch([second, *beside], entropy(16))
    return [opening, closing], told(log=LOG, run=RUN, run_key=RUN_KEY)


def rows_of(batches: Sequence[SealedBatch], *, with_entries: bool = False) -> JsonObject:
    """The rows of a run's tables: its own, and those of its batches."""
    ids = told(tenant_id=LOG, run_id=RUN)
    records: list[Json] = []
    payloads: list[Json] = []
    signed: list[Json] = []
    for batch in batches:
        row = told(tenant_id=LOG, batch_id=batch.batch_id, writer_id=batch.writer)
        row |= told(n=len(batch.records), ranges=batch.ranges, tip=batch.tip, sig=batch.signature)
        if with_entries:
            row["entries"] = None if batch.entries is None else batch.entries.hex()
        signed.append(row)
        own = [append for append in batch.appends if append.run == RUN]
        for record in (record for append in own for record in append.records):
            columns = told(seq=record.seq, epoch=record.epoch, kind=record.kind)
            hashes = told(header=record.header, rc=record.rc, chain=record.chain)
            ts: JsonObject = {"ts": json.loads(record.header)["ts"]}
            records.append(ids | columns | ts | hashes | told(batch_id=batch.batch_id))
        fields = (item for append in own for item in append.fields)
        payloads += [ids | told(seq=i.seq, field=i.field, blob=i.blob) for i in fields]
    writer = told(writer_id=WRITER.writer_id, public_key=WRITER.public_key)
    return {"record": records, "payload": payloads, "batch": signed, "writer_key": [writer]}


# Where one bit is turned, and the seq at which a verifier must name the break.
TURNED: Sequence[tuple[str, int, str, int]] = (
    ("record", 1, "header", 1),
    ("record", 0, "rc", 0),
    ("record", 2, "chain", 2),
    ("payload", 0, "blob", 0),
    ("payload", 2, "blob", 2),
    ("batch", 0, "sig", 0),
    ("batch", 1, "tip", 1),
    ("writer_key", 0, "public_key", 0),
)


def runs() -> list[Vector]:
    """A whole run, and the same rows with one bit turned."""
    batches, inputs = small_run()
    made: list[Vector] = [
        {
            "name": "three records in two batches",
            "input": inputs,
            "output": {"rows": rows_of(batches), "broken_at": None},
            "valid": True,
        }
    ]
    for table, index, column, seq in TURNED:
        rows: dict[str, list[dict[str, str]]] = json.loads(json.dumps(rows_of(batches)))
        row = rows[table][index]
        row[column] = flipped(bytes.fromhex(row[column]), 101).hex()
        turned: Json = json.loads(json.dumps(rows))
        made.append(
            {
                "name": f"{table}.{column} {index}, one bit wrong",
                "input": inputs,
                "output": {"rows": turned, "broken_at": seq},
                "valid": False,
            }
        )
    return made + shared_runs()


# The same of a batch that it shares: two entries before its own two, one after them. Where a bit
# is turned, which bit of it, and where the break is: a batch is named at the run's first record.
TURNED_SHARED: Sequence[tuple[str, int, str, int, int]] = (
    ("record", 1, "chain", 5, 1),
    ("record", 2, "header", 101, 2),
    ("payload", 3, "blob", 101, 2),
    ("batch", 1, "n", 0, 1),
    ("batch", 1, "ranges", 3, 1),  # the id of another run
    ("batch", 1, "ranges", 8 * 23, 1),  # where another run begins
    ("batch", 1, "ranges", 8 * 40, 1),  # its own id
    ("batch", 1, "ranges", 8 * 55, 1),  # where it begins itself
    ("batch", 1, "entries", 9, 1),  # another run's
    ("batch", 1, "entries", 8 * 64 + 9, 1),  # its own first
    ("batch", 1, "entries", 8 * 96 + 9, 1),  # its own second
    ("batch", 1, "entries", 8 * 159, 1),  # the last, another run's
    ("batch", 1, "tip", 77, 1),
    ("batch", 1, "sig", 101, 1),
    ("batch", 0, "sig", 101, 0),
    ("writer_key", 0, "public_key", 101, 0),
)


def shared_runs() -> list[Vector]:
    """The run again, its second batch shared with two others, whose records are not there."""
    batches, inputs = small_run(others())
    whole = rows_of(batches, with_entries=True)

    def shared(name: str, rows: JsonObject, seq: int | None) -> Vector:
        name = f"a batch of three runs{name}"
        output: JsonObject = {"rows": rows, "broken_at": seq}
        return {"name": name, "input": inputs, "output": output, "valid": seq is None}

    made = [shared("", whole, None)]
    for table, index, column, bit, seq in TURNED_SHARED:
        rows: dict[str, list[dict[str, str | int]]] = json.loads(json.dumps(whole))
        value = rows[table][index][column]
        rows[table][index][column] = (
            value ^ 1 << bit if isinstance(value, int) else flipped(bytes.fromhex(value), bit).hex()
        )
        turned: JsonObject = json.loads(json.dumps(rows))
        made.append(shared(f": {table}.{column} {index}, bit {bit} wrong", turned, seq))
    entries = (batches[1].entries or b"").hex()
    for name, told_entries in {
        "the entries are gone": None,
        "an entry is gone": entries[64:],
        "two entries of others change places": entries[64:128] + entries[:64] + entries[128:],
        "its own entries alone": entries[128:256],
    }.items():
        made.append(shared(f": {name}", _with_entries(whole, told_entries), 1))
    anew = rows_of(small_run(others(), "6*8")[0], with_entries=True)
    rewritten: JsonObject = {**anew, "batch": whole["batch"]}
    made.append(shared(": its records are written and chained anew", rewritten, 1))
    return made


def _with_entries(rows: JsonObject, entries: str | None) -> JsonObject:
    found: list[JsonObject] = json.loads(json.dumps(rows["batch"]))
    found[1]["entries"] = entries
    return {**rows, "batch": [*found]}


FILES: Mapping[str, Callable[[], list[Vector]]] = {
    "commitment": commitments,
    "blob": blobs,
    "header": headers,
    "chain": chains,
    "tree": trees,
    "batch": batches,
    "leaf": leaves,
    "digest": digests,
    "run": runs,
}


def main(directory: Path) -> int:
    """Write every file."""
    for name, make in FILES.items():
        shown = {"format": "ledger/v1", "vectors": make()}
        text = json.dumps(shown, ensure_ascii=True, indent=1, sort_keys=True) + "\n"
        (directory / f"{name}.json").write_text(text, encoding="ascii")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, default=DIRECTORY)
    sys.exit(main(parser.parse_args().directory))
