"""Reads which writers there are, the newest first.

Threat: Ledger tampering
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import asyncpg

_PAGE = 1000


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
    return [_listed(row) for row in rows]


async def pages_of_writers(raw: asyncpg.Connection) -> AsyncIterator[list[ListedWriter]]:
    """All of them, some at a time."""
    after = UUID(int=0)
    while rows := await raw.fetch(
        "SELECT writer_id, public_key, certificate FROM writer_key WHERE writer_id > $1"
        " ORDER BY writer_id LIMIT $2",
        after,
        _PAGE,
    ):
        yield [_listed(row) for row in rows]
        after = rows[-1]["writer_id"]


def _listed(row: asyncpg.Record) -> ListedWriter:
    return ListedWriter(
        writer_id=row["writer_id"].bytes,
        public_key=row["public_key"],
        certificate=row["certificate"],
    )
