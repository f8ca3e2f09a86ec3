"""Reads which writers there are, the newest first.

Threat: Ledger tampering
"""

from dataclasses import dataclass

import asyncpg


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedWriter:
    """A row of `writer_key`; whose certificate it has is not checked here."""

    writer_id: bytes
    public_key: bytes
    certificate: bytes | None


async def read_writers(raw: asyncpg.Connection, limit: int) -> list[ListedWriter]:
    """Writers of all processes there ever were."""
    rows = await raw.fetch(
        "SELECT writer_id, public_key, certificate FROM writer_key"
        " ORDER BY created_at DESC, writer_id LIMIT $1",
        limit,
    )
    return [
        ListedWriter(
            writer_id=row["writer_id"].bytes,
            public_key=row["public_key"],
            certificate=row["certificate"],
        )
        for row in rows
    ]
