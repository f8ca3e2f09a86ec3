"""Makes rows of `record` and `batch` into what a verifier takes. Nothing of them is believed.

Threat: Ledger tampering
"""

import asyncpg

from app.ledger.chain import StoredBatch, StoredRecord


def stored_record(row: asyncpg.Record) -> StoredRecord:
    """A row of `record`."""
    return StoredRecord(
        seq=row["seq"],
        epoch=row["epoch"],
        kind=row["kind"],
        at=row["ts"],
        header=row["header"],
        rc=row["rc"],
        chain=row["chain"],
        batch_id=row["batch_id"].bytes,
    )


def stored_batch(row: asyncpg.Record) -> StoredBatch:
    """A row of `batch` with its writer's key and certificate, where those are known."""
    return StoredBatch(
        batch_id=row["batch_id"].bytes,
        writer=row["writer_id"].bytes,
        count=row["n"],
        ranges=row["ranges"],
        entries=row["entries"],
        tip=row["tip"],
        signature=row["sig"],
        public_key=row["public_key"],
        certificate=row["certificate"],
    )
