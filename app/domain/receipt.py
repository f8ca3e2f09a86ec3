"""What whoever asked for a record keeps of it: its hashes, and its share in a writer's signature.

Source: docs/ledger-format.md section 14.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShare:
    """One record's part in a batch: enough to check the batch's signature for that record alone."""

    batch_id: bytes
    writer: bytes
    public_key: bytes
    count: int
    index: int
    proof: tuple[bytes, ...]
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReceipt:
    """A durable record as whoever asked for it keeps it. `share`: None when it is not at hand."""

    log: bytes
    run: bytes
    seq: int
    rc: bytes
    chain: bytes
    share: BatchShare | None
