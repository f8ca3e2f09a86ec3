"""Opens single records of administration runs: checked from the note's commitment to the chain.

Source: docs/ledger-format.md section 10, entry proof.

Threat: Ledger tampering
"""

import json
from dataclasses import dataclass

from app.domain.errors import KeyStoreError
from app.domain.run import JsonObject, TenantId
from app.keys.key_store import KeyStore
from app.ledger.canonical import CanonicalError
from app.ledger.hashing import chain_hash, commitment, genesis, leaf_hash, record_hash
from app.ledger.header import FIELD_NUMBERS, decode_header
from app.ledger.sealing import RunSealer, SealError
from app.storage.entry_store import StoredEntry

_NOTE = "note"


class EntryError(ValueError):
    """A record of an administration run does not hold; says why and nothing of its content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedEntry:
    """A record that follows from the one before it, with its note in clear."""

    log: TenantId
    stored: StoredEntry
    kind: str
    header: bytes
    previous: bytes
    salt: bytes
    value: bytes

    @property
    def note(self) -> JsonObject:
        """What the record says. EntryError when that is no object."""
        try:
            found = json.loads(self.value)
        except ValueError as error:
            raise EntryError("its note is no JSON") from error
        if not isinstance(found, dict):
            raise EntryError("its note is no object")
        return found

    @property
    def leaf_hash(self) -> bytes:
        """The hash of the record's leaf in its log."""
        stored = self.stored
        return leaf_hash(self.log.bytes, stored.run_id.bytes, stored.seq, stored.chain)


def open_entry(log: TenantId, stored: StoredEntry, keys: KeyStore) -> OpenedEntry:
    """The record in clear. EntryError when a column, a hash, the key or the commitment is wrong."""
    run = stored.run_id.bytes
    if stored.kek_id is None:
        raise EntryError("a part of it is gone")
    try:
        run_key = keys.unwrap(stored.kek_id, stored.wrapped or b"", log.bytes + run)
    except KeyStoreError as error:
        raise EntryError("it does not open") from error
    return open_entry_with(log, stored, run_key)


def open_entry_with(log: TenantId, stored: StoredEntry, run_key: bytes) -> OpenedEntry:
    """As `open_entry`, for a reader who holds the run key itself. EntryError."""
    run = stored.run_id.bytes
    if stored.header is None or stored.blob is None:
        raise EntryError("a part of it is gone")
    previous = genesis(log.bytes, run) if stored.seq == 0 else stored.previous
    if previous is None:
        raise EntryError("the record before it is gone")
    try:
        header = decode_header(stored.header)
        sealer = RunSealer(run_key, log=log.bytes, run=run)
        salt, value = sealer.open(seq=stored.seq, field=FIELD_NUMBERS[_NOTE], blob=stored.blob)
    except (CanonicalError, SealError) as error:
        raise EntryError("it does not open") from error
    if (header["log"], header["run"], header["seq"]) != (log.hex, run.hex(), stored.seq):
        raise EntryError("its header is of another record")
    held = commitment(log.bytes, run, stored.seq, _NOTE, salt, value).hex()
    if header["commit"] != {_NOTE: held}:
        raise EntryError("its note differs from its commitment")
    rc = record_hash(stored.header)
    if rc != stored.rc or chain_hash(previous, stored.seq, rc) != stored.chain:
        raise EntryError("its hashes do not follow from its header")
    return OpenedEntry(
        log=log,
        stored=stored,
        kind=str(header["kind"]),
        header=stored.header,
        previous=previous,
        salt=salt,
        value=value,
    )
