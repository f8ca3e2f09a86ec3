"""What a forger computes: the bytes of docs/ledger-format.md, nothing of the app."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.independent_verifier import (
    batch_message,
    canonical,
    chain_hash,
    commitment,
    genesis,
    merkle_tree_hash,
    open_blob,
    record_hash,
    tagged,
)

Row = dict[str, Any]
FIELD_NAMES = ("", "task", "request", "reply", "call", "result", "output", "features", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnWriter:
    """A signing key of the attacker's own, or a stolen one."""

    writer_id: UUID
    private: Ed25519PrivateKey

    @classmethod
    def fresh(cls) -> "OwnWriter":
        """One nobody has certified."""
        return cls(writer_id=uuid4(), private=Ed25519PrivateKey.generate())

    @property
    def public(self) -> bytes:
        """32 raw bytes."""
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @property
    def claim(self) -> bytes:
        """What a certificate signs (section 11)."""
        return tagged("writer", self.writer_id.bytes, self.public)

    def sign(self, log: str, batch: UUID, n: int, tip: bytes) -> bytes:
        """The signature of a batch (section 5)."""
        return self.private.sign(batch_message(bytes.fromhex(log), batch.bytes, n, tip))


def header_of(row: Mapping[str, Any]) -> Row:
    """The members of a stored header."""
    members: Row = json.loads(row["header"])
    return members


def rehash(log: str, run: str, rows: Sequence[Row]) -> None:
    """Make R and H of every row fit the headers as they are now, in place."""
    head = genesis(bytes.fromhex(log), bytes.fromhex(run))
    for row in rows:
        row["rc"] = record_hash(row["header"])
        head = row["chain"] = chain_hash(head, row["seq"], row["rc"])


def encode(members: Mapping[str, Any]) -> bytes:
    """A canonical header."""
    return canonical(dict(members))


def sealed(key: bytes, log: str, run: str, seq: int, field: int, clear: bytes) -> bytes:
    """A blob under the run's key; the nonce does not matter to a forger."""
    nonce = uuid4().bytes[:12]
    aad = bytes.fromhex(log) + bytes.fromhex(run) + seq.to_bytes(8) + field.to_bytes(2)
    return nonce + AESGCM(key).encrypt(nonce, clear, aad)


def opened(key: bytes, row: Mapping[str, Any]) -> bytes:
    """Salt and value of a payload row."""
    return open_blob(
        key, row["blob"], row["tenant_id"].bytes, row["run_id"].bytes, row["seq"], row["field"]
    )


def commit(log: str, run: str, seq: int, field: int, clear: bytes) -> str:
    """The commitment to salt and value, as a header holds it."""
    made = commitment(
        bytes.fromhex(log), bytes.fromhex(run), seq, FIELD_NAMES[field], clear[:32], clear[32:]
    )
    return made.hex()


def tip_of(run: str, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The batch tree over rows of one run."""
    return merkle_tree_hash(
        [bytes.fromhex(run) + row["seq"].to_bytes(8) + row["chain"] for row in rows]
    )


def ranges(run: str, first: int, last: int) -> bytes:
    """The ranges of a batch with rows of one run."""
    return bytes.fromhex(run) + first.to_bytes(8) + last.to_bytes(8)
