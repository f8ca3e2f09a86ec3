"""What the vectors of sections 9 to 13 are made of: hashes, trees, notes, keys, records.

Written from `docs/ledger-format.md`, RFC 6962 and the C2SP pages with the standard library and
`cryptography` only; shares no code with the application or with its offline verifier.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, Union

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Json: TypeAlias = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]
JsonObject: TypeAlias = dict[str, Json]

NUMBERS = {
    "task": 1,
    "request": 2,
    "reply": 3,
    "call": 4,
    "result": 5,
    "output": 6,
    "features": 7,
    "note": 8,
}


def fixed(label: str, size: int) -> bytes:
    """Bytes that look random and are the same everywhere: SHAKE-256 of a label."""
    return hashlib.shake_256(f"meshflow ledger/v1 log vectors: {label}".encode()).digest(size)


def flipped(data: bytes, bit: int) -> bytes:
    """The same bytes with one bit the other way."""
    at = bit // 8 % len(data)
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


def b64(data: bytes) -> str:
    """Standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def canonical(value: Json) -> bytes:
    """Section 2."""
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    )
    return text.encode()


def h(*parts: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(b"".join(parts)).digest()


def t(name: str) -> bytes:
    """T of section 1."""
    return f"meshflow-ledger/v1/{name}\0".encode()


def lp(data: bytes) -> bytes:
    """LP of section 1."""
    return len(data).to_bytes(4, "big") + data


def u64(number: int) -> bytes:
    """u64be of section 1."""
    return number.to_bytes(8, "big")


# --- RFC 6962 section 2.1, as it is written there -------------------------------------------


def split(count: int) -> int:
    """The largest power of two below the count."""
    return 1 << (count - 1).bit_length() - 1


def mth(data: Sequence[bytes]) -> bytes:
    """MTH(D[n])."""
    if not data:
        return h()
    if len(data) == 1:
        return h(b"\0", data[0])
    k = split(len(data))
    return h(b"\1", mth(data[:k]), mth(data[k:]))


def inclusion(m: int, data: Sequence[bytes]) -> list[bytes]:
    """PATH(m, D[n])."""
    if len(data) == 1:
        return []
    k = split(len(data))
    if m < k:
        return [*inclusion(m, data[:k]), mth(data[k:])]
    return [*inclusion(m - k, data[k:]), mth(data[:k])]


def consistency(m: int, data: Sequence[bytes], *, whole: bool = True) -> list[bytes]:
    """PROOF(m, D[n]), and its SUBPROOF when not whole."""
    if m == len(data):
        return [] if whole else [mth(data)]
    k = split(len(data))
    if m <= k:
        return [*consistency(m, data[:k], whole=whole), mth(data[k:])]
    return [*consistency(m - k, data[k:], whole=False), mth(data[:k])]


# --- keys and notes ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key made from a label."""

    label: str

    @property
    def private(self) -> Ed25519PrivateKey:
        """The private key."""
        return Ed25519PrivateKey.from_private_bytes(fixed(f"seed {self.label}", 32))

    @property
    def public(self) -> bytes:
        """The public key."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Deterministic, as RFC 8032 has it."""
        return self.private.sign(message)

    def key_id(self, name: str, kind: int) -> bytes:
        """The key id of signed-note."""
        return h(name.encode(), b"\n", bytes([kind]), self.public)[:4]

    def vkey(self, name: str, kind: int = 1) -> str:
        """The vkey of signed-note."""
        return f"{name}+{self.key_id(name, kind).hex()}+{b64(bytes([kind]) + self.public)}"

    def line(self, name: str, text: str) -> str:
        """A signature line of type 0x01."""
        return f"— {name} {b64(self.key_id(name, 1) + self.sign(text.encode()))}\n"

    def cosignature(self, name: str, text: str, moment: int) -> str:
        """A signature line of type 0x04."""
        signature = self.sign(f"cosignature/v1\ntime {moment}\n{text}".encode())
        return f"— {name} {b64(self.key_id(name, 4) + u64(moment) + signature)}\n"


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """The three lines of a checkpoint."""
    return f"{origin}\n{size}\n{b64(root)}\n"


# --- records ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A record with everything that is stored of it."""

    seq: int
    header: bytes
    rc: bytes
    previous: bytes
    chain: bytes
    leaf: bytes
    fields: Mapping[str, tuple[bytes, bytes]]

    @property
    def members(self) -> JsonObject:
        """The header's members."""
        members: JsonObject = json.loads(self.header)
        return members


@dataclass(slots=True, kw_only=True)
class Run:
    """A run that grows by one record at a time."""

    log: bytes
    run: bytes
    records: list[Made] = field(default_factory=list)
    genesis: bytes | None = None  # what a forger begins with
    forged: Mapping[int, str] = field(default_factory=dict)  # seq: what a forger stores there

    def add(self, kind: str, fields: Mapping[str, bytes], writer: bytes, **more: Json) -> Made:
        """One more record."""
        seq, place = len(self.records), f"{self.log.hex()} {self.run.hex()} {len(self.records)}"
        salted = {name: (fixed(f"salt {place} {name}", 32), v) for name, v in fields.items()}
        members: JsonObject = {
            "v": 1,
            "log": self.log.hex(),
            "run": self.run.hex(),
            "seq": seq,
            "epoch": 1,
            "kind": kind,
            "ts": f"2026-08-01T12:00:{seq:02d}.000000Z",
            "event_id": fixed(f"event {place}", 16).hex(),
            "nonce": fixed(f"nonce {place}", 16).hex(),
            "actor": "system",
            "writer": writer.hex(),
            "size": {name: len(value).bit_length() for name, value in fields.items()},
            "commit": {
                name: self._commitment(seq, name, salt, value).hex()
                for name, (salt, value) in salted.items()
            },
        }
        members |= dict.fromkeys(
            ("intent", "parent", "policy", "model", "engine", "tool", "usage", "outcome")
        ) | dict.fromkeys(("sandbox", "approval", "scrub"))
        header = canonical(members | more)
        forged = self.forged.get(seq)
        rc = fixed("forged", 32) if forged == "rc" else h(t("record"), lp(header))
        begin = self.genesis or h(t("genesis"), lp(self.log), lp(self.run))
        previous = self.records[-1].chain if seq else begin
        after = fixed("forged", 32) if forged == "chain" else previous
        chain = h(t("chain"), after, u64(seq), rc)
        made = Made(
            seq=seq,
            header=header,
            rc=rc,
            previous=previous,
            chain=chain,
            leaf=t("leaf") + lp(self.log) + lp(self.run) + u64(seq) + chain,
            fields=salted,
        )
        self.records.append(made)
        return made

    def note(self, kind: str, note: Json, writer: bytes) -> Made:
        """One more record of an administration run."""
        return self.add(kind, {"note": canonical(note)}, writer)

    def _commitment(self, seq: int, name: str, salt: bytes, value: bytes) -> bytes:
        place = lp(self.log) + lp(self.run) + u64(seq)
        return h(t("field"), place, lp(name.encode()), lp(salt), lp(value))


@dataclass(slots=True, kw_only=True)
class Log:
    """The leaf data of a log in its order."""

    log: bytes
    entries: list[bytes] = field(default_factory=list)

    def add(self, *records: Made) -> None:
        """Take records in."""
        self.entries += [record.leaf for record in records]

    def root(self, size: int) -> bytes:
        """The root at this size."""
        return mth(self.entries[:size])

    def proof(self, record: Made, size: int) -> tuple[int, list[bytes]] | None:
        """Index and path of a record in the tree of this size; None if it is not there."""
        index = self.entries.index(record.leaf)
        if index >= size:
            return None
        return index, inclusion(index, self.entries[:size])

    def entry_proof(self, run: Run, record: Made, size: int) -> JsonObject:
        """Section 10."""
        placed = self.proof(record, size)
        if placed is None:
            raise ValueError("this record is not in the tree")
        salt, value = record.fields["note"]
        return {
            "log": self.log.hex(),
            "run": run.run.hex(),
            "seq": record.seq,
            "index": placed[0],
            "size": size,
            "header": b64(record.header),
            "previous": record.previous.hex(),
            "field": 8,
            "salt": salt.hex(),
            "value": b64(value),
            "proof": [b64(item) for item in placed[1]],
        }


def vector(
    name: str, given: Mapping[str, Json], output: Mapping[str, Json], *, valid: bool = True
) -> JsonObject:
    """One vector: inputs, what must come out, and whether it does."""
    return {"name": name, "input": dict(given), "output": dict(output), "valid": valid}


def spoiled(line: str) -> str:
    """A signature line with one bit of its signature wrong."""
    start, _, encoded = line[:-1].rpartition(" ")
    return f"{start} {b64(flipped(base64.b64decode(encoded), 8 * 20))}\n"


def lines(rows: Iterable[Mapping[str, Json]]) -> bytes:
    """JSON lines with sorted keys."""
    return b"".join(canonical(dict(row)) + b"\n" for row in rows)


def edited(data: bytes, at: int, **members: Json) -> bytes:
    """JSON lines with other members in one line."""
    rows: list[JsonObject] = [json.loads(line) for line in data.splitlines()]
    rows[at] |= members
    return lines(rows)


def kept(data: bytes) -> list[bytes]:
    """Lines with their newlines."""
    return data.splitlines(keepends=True)


def rows(data: bytes) -> list[JsonObject]:
    """The rows of JSON lines."""
    return [json.loads(line) for line in data.splitlines()]
