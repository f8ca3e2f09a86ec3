"""The independent verifier names every kind of tampering at the right record."""

import hmac
import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tests.support import independent_reader as r
from tests.support import independent_verifier as v

LOG, RUN, SIDE = b"\x01" * 16, b"\x02" * 16, b"\x03" * 16
OTHER_LOG, OTHER_RUN = b"\x0a" * 16, b"\x0b" * 16
WRITER_ID, THIEF_ID = "0c" * 16, "0d" * 16
WRITER = Ed25519PrivateKey.from_private_bytes(b"\x04" * 32)
THIEF = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
RUN_KEY = b"\x06" * 32
FIRST, SECOND = "e1" * 16, "e2" * 16
FIRST_OF = {FIRST: 0, SECOND: 3}
NUMBERS = {name: number for number, name in v.FIELDS.items()}


@dataclass(kw_only=True)
class Run:
    """Six records in two batches; the first batch holds two records of another run too."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    payloads: list[dict[str, Any]] = field(default_factory=list)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    writers: dict[str, bytes] = field(default_factory=dict)
    side: list[tuple[str, int, bytes]] = field(default_factory=list)

    def broken(self, key: bytes | None = RUN_KEY, **more: Any) -> tuple[int, str] | None:
        return v.verify_run(self.rows, self.payloads, self.batches, self.writers, key, **more)

    def header(self, seq: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.rows[seq]["header"])
        return found

    def reseal(self, seq: int, header: bytes | dict[str, Any]) -> None:
        """A forger with database rights: the new header, then every hash after it made to fit."""
        raw = header if isinstance(header, bytes) else compact(header)
        self.rows[seq]["header"] = raw
        head = self.rows[seq - 1]["chain"] if seq else v.genesis(LOG, RUN)
        for row in self.rows[seq:]:
            row["rc"] = v.record_hash(row["header"])
            head = row["chain"] = v.chain_hash(head, row["seq"], row["rc"])

    def sign(self, signer: Ed25519PrivateKey = WRITER) -> None:
        """Both batches again, over the chain values as they are now."""
        for name in (FIRST, SECOND):
            own = [r for r in self.rows if r["batch_id"] == name]
            entries = [(RUN.hex(), r["seq"], r["chain"]) for r in own]
            entries += self.side if name == FIRST else []
            data = [bytes.fromhex(r) + s.to_bytes(8, "big") + c for r, s, c in entries]
            tip = v.merkle_tree_hash(data)
            sig = signer.sign(v.batch_message(LOG, bytes.fromhex(name), len(data), tip))
            ranges = RUN + own[0]["seq"].to_bytes(8, "big") + own[-1]["seq"].to_bytes(8, "big")
            ranges += SIDE + bytes(8) + (1).to_bytes(8, "big") if name == FIRST else b""
            self.batches[name] = {
                "writer_id": WRITER_ID,
                "n": len(data),
                "ranges": ranges,
                "tip": tip,
                "sig": sig,
                "entries": entries,
            }


def compact(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def header_of(seq: int, values: dict[str, bytes]) -> dict[str, Any]:
    absent = ("parent", "model", "engine", "tool", "usage", "outcome", "sandbox", "approval")
    return dict.fromkeys((*absent, "scrub", "policy")) | {
        "v": 1,
        "log": LOG.hex(),
        "run": RUN.hex(),
        "seq": seq,
        "epoch": 1 + (seq > 2),
        "kind": "model.replied",
        "ts": f"2026-01-02T03:04:05.00000{seq}Z",
        "event_id": f"{seq:032x}",
        "nonce": "ab" * 16,
        "actor": "key:0123456789abcdef" if seq else "system",
        "writer": WRITER_ID,
        "intent": seq - 1 if seq else None,
        "size": {name: len(value).bit_length() for name, value in values.items()},
        "commit": {
            name: v.commitment(LOG, RUN, seq, name, salt_of(seq, name), value).hex()
            for name, value in values.items()
        },
    }


def salt_of(seq: int, name: str) -> bytes:
    return sha256(f"{seq} {name}".encode()).digest()


def seal(seq: int, name: str, salt: bytes, value: bytes) -> bytes:
    place = LOG + RUN + seq.to_bytes(8, "big") + NUMBERS[name].to_bytes(2, "big")
    nonce = sha256(salt + value + place).digest()[:12]
    return nonce + AESGCM(RUN_KEY).encrypt(nonce, salt + value, place)


@pytest.fixture
def run() -> Run:
    public = {WRITER_ID: WRITER, THIEF_ID: THIEF}
    made = Run(writers={name: key.public_key().public_bytes_raw() for name, key in public.items()})
    made.side = [(SIDE.hex(), seq, sha256(bytes([seq])).digest()) for seq in range(2)]
    for seq in range(6):
        values = {"request": b'{"n":%d}' % seq, "reply": b'"hi"'} if seq % 2 else {}
        header = header_of(seq, values)
        ids = {"tenant_id": LOG.hex(), "run_id": RUN.hex()}
        columns = {name: header[name] for name in ("seq", "epoch", "kind", "ts")}
        batch = {"batch_id": FIRST if seq < 3 else SECOND}
        made.rows.append(ids | columns | batch | {"header": compact(header)})
        made.payloads += [
            {
                "seq": seq,
                "field": NUMBERS[name],
                "blob": seal(seq, name, salt_of(seq, name), value),
            }
            for name, value in values.items()
        ]
    made.reseal(0, made.rows[0]["header"])
    made.sign()
    return made


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def at(found: tuple[int, str] | None) -> int | None:
    return None if found is None else found[0]


def test_an_untouched_run_is_whole_with_and_without_its_key(run: Run) -> None:
    assert run.broken() is None
    assert run.broken(None) is None


def test_an_unknown_run_is_not_a_valid_one() -> None:
    assert Run().broken() == (0, "unknown run")


@pytest.mark.parametrize("seq", range(6))
def test_every_flipped_header_byte_is_found_at_its_record(run: Run, seq: int) -> None:
    whole = run.rows[seq]["header"]
    for place in range(len(whole)):
        run.rows[seq]["header"] = flip(whole, place)
        assert at(run.broken()) == seq, place


@pytest.mark.parametrize("column", ["rc", "chain"])
@pytest.mark.parametrize("seq", range(6))
def test_every_flipped_hash_byte_is_found_at_its_record(run: Run, seq: int, column: str) -> None:
    whole = run.rows[seq][column]
    for place in range(len(whole)):
        run.rows[seq][column] = flip(whole, place)
        assert at(run.broken()) == seq


@pytest.mark.parametrize(
    ("column", "forged"),
    [
        ("kind", "tool.called"),
        ("ts", "2025-01-02T03:04:05.000003Z"),
        ("epoch", 9),
        ("seq", 9),
        ("run_id", OTHER_RUN.hex()),
        ("tenant_id", OTHER_LOG.hex()),
        ("batch_id", FIRST),
        ("batch_id", "ff" * 16),
        ("header", None),
        ("rc", b""),
        ("chain", b""),
    ],
)
@pytest.mark.parametrize("seq", [3, 4])
def test_every_changed_column_is_found_at_its_record(
    run: Run, seq: int, column: str, forged: object
) -> None:
    run.rows[seq][column] = forged
    assert at(run.broken()) == seq


@pytest.mark.parametrize("index", range(6))
def test_every_flipped_payload_byte_is_found_at_its_record(run: Run, index: int) -> None:
    whole = run.payloads[index]["blob"]
    for place in range(len(whole)):
        run.payloads[index]["blob"] = flip(whole, place)
        assert run.broken() == (index // 2 * 2 + 1, "payload: commitment")


@pytest.mark.parametrize("part", ["salt", "value"])
def test_a_payload_sealed_again_with_another_salt_or_value_is_found(run: Run, part: str) -> None:
    salt, value = salt_of(3, "reply"), b'"hi"'
    blob = seal(3, "reply", flip(salt, 0), value) if part == "salt" else b""
    run.payloads[3]["blob"] = blob or seal(3, "reply", salt, b'"ho"')
    assert run.broken() == (3, "payload: commitment")


def test_payloads_exchanged_between_records_are_found_at_the_first(run: Run) -> None:
    one, two = run.payloads[1], run.payloads[5]
    one["blob"], two["blob"] = two["blob"], one["blob"]
    assert run.broken() == (1, "payload: commitment")
    assert run.broken(None) is None  # what cannot be opened is matched by name and size only


def test_a_payload_of_another_size_is_found_without_the_key(run: Run) -> None:
    run.payloads[1]["blob"] += b"more and more"
    assert run.broken(None) == (1, "payload: size")


def test_a_size_bucket_that_does_not_fit_is_found(run: Run) -> None:
    header = run.header(3)
    header["size"]["reply"] += 1
    run.reseal(3, header)
    run.sign()
    assert run.broken() == (3, "payload: size")


def test_a_missing_payload_is_found_unless_its_erasure_is_recorded(run: Run) -> None:
    gone = run.payloads.pop(3)
    assert run.broken() == (3, "payload: missing")
    assert run.broken(None) == (3, "payload: missing")
    assert run.broken(erased={(gone["seq"], gone["field"])}) is None
    assert at(run.broken(erased={(gone["seq"], 1), (1, gone["field"])})) == 3


@pytest.mark.parametrize("number", [1, 3, 8, 9, 0])
def test_an_uncommitted_or_second_or_unknown_field_is_found(run: Run, number: int) -> None:
    run.payloads.append({"seq": 3, "field": number, "blob": run.payloads[3]["blob"]})
    assert at(run.broken()) == 3
    assert at(run.broken(None)) == 3


@pytest.mark.parametrize("seq", [6, 99])
def test_a_payload_without_a_record_is_found(run: Run, seq: int) -> None:
    run.payloads.append({"seq": seq, "field": 1, "blob": bytes(80)})
    assert run.broken() == (seq, "payload without a record")


@pytest.mark.parametrize("seq", range(6))
def test_a_missing_record_is_found_at_its_place(run: Run, seq: int) -> None:
    del run.rows[seq]
    for batch in run.batches.values():
        batch["entries"] = [e for e in batch["entries"] if e[:2] != (RUN.hex(), seq)]
    run.payloads = [payload for payload in run.payloads if payload["seq"] != seq]
    assert run.broken() == (seq, "gap in seq")


@pytest.mark.parametrize(("one", "two"), [(0, 1), (1, 2), (2, 3), (1, 5)])
def test_reordered_records_are_found_at_the_first_moved(run: Run, one: int, two: int) -> None:
    apart = deepcopy(run)
    run.rows[one], run.rows[two] = run.rows[two], run.rows[one]
    assert run.broken() == (one, "gap in seq")
    left, right = apart.rows[one], apart.rows[two]
    left["header"], right["header"] = right["header"], left["header"]
    assert at(apart.broken()) == one


def spaced(header: dict[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True).encode()


def unsorted(header: dict[str, Any]) -> bytes:
    return json.dumps(dict(reversed(header.items())), separators=(",", ":")).encode()


REENCODED: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "spaces": spaced,
    "order": unsorted,
    "trailing newline": lambda h: compact(h) + b"\n",
    "byte order mark": lambda h: b"\xef\xbb\xbf" + compact(h),
    "utf-16": lambda h: compact(h).decode().encode("utf-16"),
    "escape": lambda h: compact(h).replace(b'"kind":"m', b'"kind":"\\u006d'),
    "float": lambda h: compact(h).replace(b'"v":1', b'"v":1.0'),
    "exponent": lambda h: compact(h).replace(b'"v":1', b'"v":1e0'),
    "minus zero": lambda h: compact(h).replace(b'"intent":2', b'"intent":-0'),
    "not a number": lambda h: compact(h).replace(b'"intent":2', b'"intent":NaN'),
    "key twice": lambda h: compact(h).replace(b'"v":1', b'"v":1,"v":1'),
    "too large": lambda h: compact(h).replace(b'"intent":2', b'"intent":' + b"9" * 5000),
    "too deep": lambda h: compact(h).replace(b'"scrub":null', b'"scrub":' + b"[" * 6 + b"]" * 6),
    "endless": lambda _: b"[" * 8000,
    "not an object": lambda _: b"[]",
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("how", REENCODED)
def test_a_header_written_otherwise_is_found_even_when_signed(run: Run, how: str) -> None:
    forged = REENCODED[how](run.header(3))
    assert forged != run.rows[3]["header"]
    run.reseal(3, forged)
    run.sign()
    found = run.broken()
    assert found is not None
    assert found[0] == 3
    assert found[1].startswith("header: ")


POLICY = {"digest": "a" * 64, "id": "p-1", "rules": ["r", 'a"]'], "ver": 1, "verdict": "allow"}
USAGE = {"cost_micros": 5, "input_tokens": 0, "output_tokens": 9}
SCRUB = dict.fromkeys(("engine", "hmac_key", "mode", "ms", "ner", "policy", "rules", "status"))
SCRUB |= {"counts": {"email": 2}, "unscanned": 0}
WRONG: list[tuple[str, object]] = [
    *((name, "A" * 32) for name in ("log", "run", "event_id", "nonce", "writer", "parent")),
    *((name, None) for name in ("v", "seq", "epoch", "kind", "ts", "event_id", "nonce", "actor")),
    *((name, None) for name in ("writer", "size", "commit")),
    *((name, "é prose, no code") for name in ("model", "engine", "outcome", "sandbox", "approval")),
    *((name, True) for name in ("v", "seq", "epoch", "intent", "usage", "scrub", "policy")),
    ("v", 2),
    ("epoch", -1),
    ("epoch", 2**53),
    ("kind", "Kind"),
    ("kind", "k" * 65),
    ("kind", "k\n"),
    ("ts", "2026-13-02T03:04:05.000003Z"),
    ("ts", "2026-01-02T03:04:05Z"),
    ("ts", "2026-01-02T03:04:05.000003+00:00"),
    ("actor", "root"),
    ("actor", "key:0123"),
    ("intent", 3),
    ("intent", -1),
    ("tool", "a" * 63),
    ("model", "m" * 129),
    ("policy", POLICY | {"more": 1}),
    ("policy", {name: POLICY[name] for name in ("digest", "id", "rules", "ver")}),
    ("policy", POLICY | {"rules": [1]}),
    ("policy", POLICY | {"verdict": None}),
    ("usage", USAGE | {"cost_micros": -1}),
    ("usage", USAGE | {"more": 1}),
    ("usage", {}),
    ("scrub", {}),
    ("scrub", SCRUB | {"more": 1}),
    ("scrub", SCRUB | {"counts": {"Email": 1}}),
    ("scrub", SCRUB | {"counts": {"email": "1"}}),
    ("size", {}),
    ("size", {"request": 3, "reply": "3"}),
    ("commit", {"request": "a" * 64, "reply": "a" * 63}),
    ("commit", {"request": "a" * 64, "other": "a" * 64}),
]


@pytest.mark.parametrize(("member", "value"), WRONG)
def test_a_member_outside_its_rule_is_found_even_when_signed(
    run: Run, member: str, value: object
) -> None:
    run.reseal(3, run.header(3) | {member: value})
    if member in run.rows[3]:
        run.rows[3][member] = value
    run.sign() if member != "seq" else None
    found = run.broken()
    assert found is not None
    assert found[0] == 3
    assert member == "seq" or found[1].startswith("header: ")


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("policy", POLICY),
        ("policy", POLICY | {"rules": []}),
        ("usage", USAGE),
        ("scrub", SCRUB),
        ("intent", 0),
        ("tool", "a" * 64),
        ("model", "Model-1:b.c_d"),
        ("parent", "b" * 32),
        ("outcome", "ok"),
    ],
)
def test_a_member_inside_its_rule_is_whole(run: Run, member: str, value: object) -> None:
    run.reseal(3, run.header(3) | {member: value})
    run.sign()
    assert run.broken() is None


def test_an_unknown_member_is_found_even_when_signed(run: Run) -> None:
    run.reseal(3, run.header(3) | {"more": None})
    run.sign()
    assert run.broken() == (3, "header: members: ['more']")


@pytest.mark.parametrize("member", sorted(v.MEMBERS))
def test_each_missing_member_is_found_even_when_signed(run: Run, member: str) -> None:
    header = run.header(3)
    del header[member]
    run.reseal(3, header)
    run.sign()
    assert run.broken() == (3, f"header: members: ['{member}']")


def test_a_falling_epoch_is_found_even_when_signed(run: Run) -> None:
    run.reseal(4, run.header(4) | {"epoch": 1})
    run.rows[4]["epoch"] = 1
    run.sign()
    assert run.broken() == (4, "epoch fell")


def test_a_changed_and_rehashed_record_is_found_at_the_first_record_of_its_batch(run: Run) -> None:
    run.reseal(4, run.header(4) | {"outcome": "ok"})
    assert run.broken() == (3, "batch: records")
    for batch in run.batches.values():
        batch["entries"] = [
            (r, s, run.rows[s]["chain"] if r == RUN.hex() else c) for r, s, c in batch["entries"]
        ]
    assert run.broken() == (3, "batch: tip")


@pytest.mark.parametrize("name", [FIRST, SECOND])
def test_a_forged_or_flipped_batch_signature_is_found(run: Run, name: str) -> None:
    whole = run.batches[name]["sig"]
    for place in range(64):
        run.batches[name]["sig"] = flip(whole, place)
        assert run.broken() == (FIRST_OF[name], "batch: signature")
    run.batches[name]["sig"] = b""
    assert run.broken() == (FIRST_OF[name], "batch: signature")
    run.sign(THIEF)
    assert run.broken() == (0, "batch: signature")


@pytest.mark.parametrize("name", [FIRST, SECOND])
@pytest.mark.parametrize(
    ("column", "forged"),
    [
        ("writer_id", THIEF_ID),
        ("writer_id", "99" * 16),
        ("n", 4),
        ("n", -1),
        ("n", 2**40),
        ("tip", bytes(32)),
        ("ranges", b""),
        ("ranges", b"short"),
        ("ranges", SIDE + bytes(16)),
    ],
)
def test_every_changed_batch_column_is_found(
    run: Run, name: str, column: str, forged: object
) -> None:
    run.batches[name][column] = forged
    assert at(run.broken()) == FIRST_OF[name]


def test_ranges_that_promise_endless_records_are_refused_and_never_walked(run: Run) -> None:
    two = (2).to_bytes(8, "big")
    backwards = RUN + bytes(8) + two + SIDE + b"\xff" * 8 + bytes(8)
    balanced = backwards + OTHER_RUN + bytes(8) + b"\xff" * 8  # counts add up to five again
    for ranges in (backwards, balanced):
        run.batches[FIRST]["ranges"] = ranges
        assert run.broken() == (0, "batch: ranges")
    run.batches[FIRST]["ranges"] = RUN + bytes(8) + two + SIDE + bytes(8) + b"\xff" * 8
    assert run.broken() == (0, "batch: count")


def test_ranges_that_promise_more_of_this_run_name_the_first_absent_record(run: Run) -> None:
    run.batches[SECOND]["ranges"] = RUN + (3).to_bytes(8, "big") + b"\xff" * 8
    assert run.broken() == (6, "gap in seq")


def test_a_batch_or_a_writer_that_is_not_there_is_found(run: Run) -> None:
    without = deepcopy(run)
    del without.batches[SECOND]
    assert without.broken() == (3, "batch: writer")
    del run.writers[WRITER_ID]
    assert run.broken() == (0, "batch: writer")


def test_a_batch_short_of_a_record_of_another_run_is_found(run: Run) -> None:
    run.batches[FIRST]["entries"].pop()
    assert run.broken() == (0, "batch: count")


def test_a_batch_with_a_foreign_record_in_place_of_its_own_is_found(run: Run) -> None:
    run.batches[FIRST]["entries"][-1] = (OTHER_RUN.hex(), 1, run.side[1][2])
    assert run.broken() == (0, "batch: records")


def test_a_record_of_another_run_in_the_chain_is_found_even_when_signed(run: Run) -> None:
    run.reseal(4, run.header(4) | {"run": OTHER_RUN.hex()})
    run.rows[4]["run_id"] = OTHER_RUN.hex()
    run.sign()
    assert run.broken() == (4, "run")


def test_a_key_twice_is_refused_while_parsing(run: Run) -> None:
    with pytest.raises(ValueError, match="not canonical"):
        v.parse_header(REENCODED["key twice"](run.header(3)))


def test_a_header_of_more_than_8_kib_is_refused_and_one_of_8_kib_is_not(run: Run) -> None:
    short = len(compact(run.header(3) | {"policy": POLICY | {"verdict": ""}}))
    fits = compact(run.header(3) | {"policy": POLICY | {"verdict": "x" * (8192 - short)}})
    assert len(fits) == 8192
    assert v.parse_header(fits)["seq"] == 3
    with pytest.raises(ValueError, match="too long"):
        v.parse_header(fits.replace(b"xx", b"xxx", 1))


def test_the_tree_hash_gives_the_known_roots_of_certificate_transparency() -> None:
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    data = [bytes.fromhex(leaf) for leaf in [*leaves, "606162636465666768696a6b6c6d6e6f"]]
    roots = {
        0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    }
    assert {n: v.merkle_tree_hash(data[:n]).hex() for n in roots} == roots


def test_the_keyed_digest_is_hmac_under_the_hkdf_of_the_run_key() -> None:
    key = HKDF(SHA256(), 32, salt=None, info=b"meshflow/digest/v1").derive(RUN_KEY)
    message = b"\0\0\0\x04tool\0\0\0\x03abc"
    assert r.keyed_digest(RUN_KEY, "tool", b"abc") == hmac.digest(key, message, "sha256")


def test_every_tag_and_length_is_written_out() -> None:
    def tagged(tag: bytes, rest: bytes) -> bytes:
        return sha256(b"meshflow-ledger/v1/" + tag + b"\0" + rest).digest()

    log, run, five = b"\0\0\0\x10" + LOG, b"\0\0\0\x10" + RUN, b"\0" * 7 + b"\5"
    place, chain = log + run + five, b"\7" * 32
    assert v.genesis(LOG, RUN) == tagged(b"genesis", log + run)
    assert v.record_hash(b"{}") == tagged(b"record", b"\0\0\0\2{}")
    assert v.chain_hash(chain, 5, b"\x08" * 32) == tagged(b"chain", chain + five + b"\x08" * 32)
    salted = b"\0\0\0\4task\0\0\0\x20" + b"\x09" * 32 + b"\0\0\0\2{}"
    made = v.commitment(LOG, RUN, 5, "task", b"\x09" * 32, b"{}")
    assert made == tagged(b"field", place + salted)
    leaf = sha256(b"\0meshflow-ledger/v1/leaf\0" + place + chain).digest()
    assert r.leaf_hash(LOG, RUN, 5, chain) == leaf
    message = b"meshflow-ledger/v1/batch\0" + LOG + SIDE + b"\0\0\0\7" + chain
    assert v.batch_message(LOG, SIDE, 7, chain) == message


def test_a_wrapped_run_key_opens_only_for_its_own_run() -> None:
    kek, nonce = b"\x07" * 32, b"\x08" * 12
    wrapped = nonce + AESGCM(kek).encrypt(nonce, RUN_KEY, LOG + RUN)
    assert r.unwrap_run_key(kek, wrapped, LOG, RUN) == RUN_KEY
    with pytest.raises(InvalidTag):
        r.unwrap_run_key(kek, wrapped, LOG, SIDE)


def test_canonical_bytes_use_the_minimal_escapes_and_sort_by_code_point() -> None:
    text = '\b\t\n\f\r"\\/\x00\x1f\x7fé\u2028😀'
    assert v.canonical({"b": [None, True, -7], "a.": text, "a": {}}) == (
        b'{"a":{},"a.":"\\b\\t\\n\\f\\r\\"\\\\/\\u0000\\u001f\x7f'
        + "é\u2028😀".encode()
        + b'","b":[null,true,-7]}'
    )


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        2**53,
        -(2**53),
        "\ud800",
        {"A": 1},
        {"": 1},
        {"k" * 65: 1},
        [[[[[[[]]]]]]],
        b"",
        {"k\n": 1},
    ],
)
def test_canonical_refuses_what_the_profile_leaves_out(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        v.canonical(value)
    assert v.canonical([[[[[[]]]]]]) == b"[[[[[[]]]]]]"
