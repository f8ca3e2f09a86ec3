"""The hashes of ledger/v1: commitments, records, chains, batches, leaves and keyed digests.

Source: docs/ledger-format.md sections 1, 4, 5 and 6; RFC 6962 section 2.1 for the tree hash.

Threat: Ledger tampering
"""

import hmac
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from itertools import repeat

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.transparency.merkle_tree import hash_leaf, tree_root

HASH_BYTES = 32
SALT_BYTES = 32


def u16be(number: int) -> bytes:
    """Two bytes, big-endian."""
    return number.to_bytes(2, "big")


def u64be(number: int) -> bytes:
    """Eight bytes, big-endian."""
    return number.to_bytes(8, "big")


def length_prefixed(data: bytes) -> bytes:
    """Four bytes of length, then the data: no two different lists of parts collide."""
    return len(data).to_bytes(4, "big") + data


def tag(name: str) -> bytes:
    """The domain separator: bytes hashed for one purpose never mean another."""
    return b"meshflow-ledger/v1/" + name.encode("ascii") + b"\x00"


_FIELD, _RECORD, _CHAIN = tag("field"), tag("record"), tag("chain")
_GENESIS, _BATCH, _LEAF = tag("genesis"), tag("batch"), tag("leaf")


def commitment(log: bytes, run: bytes, seq: int, name: str, salt: bytes, value: bytes) -> bytes:
    """Binds a salted value to its log, run, position and field name."""
    return commitment_in(commitment_place(log, run), seq, name, salt, value)


def commitment_place(log: bytes, run: bytes) -> bytes:
    """What every commitment of a run hashes first."""
    return _FIELD + length_prefixed(log) + length_prefixed(run)


def commitment_in(place: bytes, seq: int, name: str, salt: bytes, value: bytes) -> bytes:
    """The commitment of a run whose place is known."""
    parts = (
        place,
        seq.to_bytes(8, "big"),
        _named(name),
        len(salt).to_bytes(4, "big"),
        salt,
        len(value).to_bytes(4, "big"),
        value,
    )
    return sha256(b"".join(parts)).digest()


@lru_cache(maxsize=256)
def _named(name: str) -> bytes:
    return length_prefixed(name.encode("ascii"))


def record_hash(header: bytes) -> bytes:
    """R: the hash of stored header bytes."""
    return sha256(_RECORD + length_prefixed(header)).digest()


def record_prefix(length: int) -> bytes:
    """What R hashes before a header of this many bytes."""
    return _RECORD + length.to_bytes(4, "big")


def genesis(log: bytes, run: bytes) -> bytes:
    """H_-1: where the chain of a run starts."""
    return sha256(_GENESIS + length_prefixed(log) + length_prefixed(run)).digest()


def chain_hash(previous: bytes, seq: int, record: bytes) -> bytes:
    """H_i from H_(i-1), the position and R_i."""
    return sha256(_CHAIN + previous + u64be(seq) + record).digest()


def chain_hashes(
    previous: Iterable[bytes], seqs: Iterable[bytes], records: Iterable[bytes]
) -> list[bytes]:
    """H of each of many records, from the H before it, its seq in eight bytes and its R."""
    parts = zip(repeat(_CHAIN), previous, seqs, records, strict=False)
    return [sha256(data).digest() for data in map(b"".join, parts)]


def batch_entry(run: bytes, seq: int, chain: bytes) -> bytes:
    """What a batch signs of one record."""
    return run + u64be(seq) + chain


def merkle_tree_hash(entries: Sequence[bytes]) -> bytes:
    """RFC 6962 MTH over `entries`."""
    return tree_root([hash_leaf(entry) for entry in entries])


def batch_message(log: bytes, batch_id: bytes, count: int, root: bytes) -> bytes:
    """The bytes a writer signs with Ed25519 for one batch."""
    return _BATCH + log + batch_id + count.to_bytes(4, "big") + root


def leaf_hash(log: bytes, run: bytes, seq: int, chain: bytes) -> bytes:
    """The RFC 6962 leaf hash of a record in its tenant's log."""
    data = _LEAF + length_prefixed(log) + length_prefixed(run) + u64be(seq) + chain
    return hash_leaf(data)


def digest_key(run_key: bytes) -> bytes:
    """The key of a run's digests; dies with the run key."""
    return HKDF(SHA256(), 32, salt=None, info=b"meshflow/digest/v1").derive(run_key)


def keyed_digest(key: bytes, purpose: str, data: bytes) -> bytes:
    """A digest nobody can guess the input of once the run key is gone."""
    message = length_prefixed(purpose.encode("ascii")) + length_prefixed(data)
    return hmac.digest(key, message, "sha256")
