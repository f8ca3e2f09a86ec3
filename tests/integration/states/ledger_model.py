"""What the ledger was told, and a thief who has kept everything that the database ever held."""

from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from app.domain.errors import KeyStoreError
from app.domain.run import RunId, TenantId, Usage
from app.keys.key_store import KeyStore
from app.ledger.header import FIELD_NAMES, FIELD_NUMBERS
from app.ledger.sealing import RunSealer, SealError, open_result
from app.ledger.writing import SealedAppend
from app.runs.recorder import LedgerRecorder
from tests.integration.states.deployment import Seat
from tests.integration.states.lifeline import Lifeline

Row = tuple[int, bytes, bytes]  # seq, R and H
ALL = frozenset(FIELD_NUMBERS) - {"features"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A record as its writer made it."""

    row: Row
    kind: str
    fields: dict[str, bytes]


def told(sealed: SealedAppend, run_key: bytes) -> list[Told]:
    """The records of an append, in clear."""
    sealer = RunSealer(run_key, log=sealed.log, run=sealed.run)
    fields: defaultdict[int, dict[str, bytes]] = defaultdict(dict)
    for item in sealed.fields:
        _, value = sealer.open(seq=item.seq, field=item.field, blob=item.blob)
        fields[item.seq][FIELD_NAMES[item.field]] = value
    return [
        Told(row=(item.seq, item.rc, item.chain), kind=item.kind, fields=fields[item.seq])
        for item in sealed.records
    ]


@dataclass(slots=True, kw_only=True)
class RunModel:
    """One run: what is in the ledger for certain, and what may yet get there."""

    tenant_id: TenantId
    run_id: RunId
    records: list[Told] = field(default_factory=list)
    maybe: list[Told] = field(default_factory=list)  # on its way: all of it or nothing
    late: Lifeline | None = None  # where that lies about
    seat: Seat | None = None
    recorder: LedgerRecorder | None = None
    run_key: bytes = b""
    spent: Usage = field(default_factory=Usage)
    output: str | None = None  # kept in full
    erased: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    is_held: bool = False
    is_deleted: bool = False

    @property
    def rows(self) -> list[Row]:
        return [item.row for item in self.records]

    @property
    def is_started(self) -> bool:
        return any(item.kind == "run.started" for item in self.records)

    @property
    def is_over(self) -> bool:
        return any(item.kind == "run.finished" for item in self.records)

    @property
    def is_thinned(self) -> bool:
        return any(self.erased.values())

    def left(self, wanted: frozenset[str]) -> list[tuple[int, str]]:
        """Which of these fields are there to be erased."""
        if "output" in wanted:
            wanted |= {"note"}
        return [
            (item.row[0], name)
            for item in self.records
            for name in item.fields
            if name in wanted and name not in self.erased[item.row[0]]
        ]

    def erase(self, wanted: frozenset[str]) -> None:
        for seq, name in self.left(wanted):
            self.erased[seq].add(name)
        self.output = None

    def delete(self) -> None:
        self.erase(ALL)
        self.is_deleted = True

    def disown(self) -> None:
        self.seat, self.recorder = None, None


class Thief:
    """Whoever copied every row of the database at every moment, and all keys that are left."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self._blobs: defaultdict[UUID, set[tuple[int, int, bytes]]] = defaultdict(set)
        self._wraps: defaultdict[UUID, set[tuple[str, bytes]]] = defaultdict(set)
        self._results: defaultdict[UUID, set[tuple[str, bytes, bytes]]] = defaultdict(set)

    async def look(self, superuser: asyncpg.Connection) -> None:
        """Copy what is there now."""
        for run, *blob in await superuser.fetch("SELECT run_id, seq, field, blob FROM payload"):
            self._blobs[run].add(tuple(blob))
        for run, *wrap in await superuser.fetch("SELECT run_id, kek_id, wrapped FROM run_key"):
            self._wraps[run].add(tuple(wrap))
        found = await superuser.fetch("SELECT run_id, kek_id, wrapped, blob FROM run_result")
        for run, *kept in found:
            self._results[run].add(tuple(kept))

    def reads(self, run: RunModel) -> set[tuple[int, str]]:
        """The fields of a run that the copies and the living keys still give."""
        log, run_id = run.tenant_id.bytes, run.run_id.bytes
        found: set[tuple[int, str]] = set()
        for kek_id, wrapped in self._wraps[run.run_id]:
            key = self._unwrapped(kek_id, wrapped, log + run_id)
            if key is None:
                continue
            sealer = RunSealer(key, log=log, run=run_id)
            for seq, number, blob in self._blobs[run.run_id]:
                try:
                    sealer.open(seq=seq, field=number, blob=blob)
                except SealError:
                    continue
                found.add((seq, FIELD_NAMES[number]))
        return found

    def reads_result(self, run: RunModel) -> bool:
        """Whether they still give the output in full."""
        log, run_id = run.tenant_id.bytes, run.run_id.bytes
        for kek_id, wrapped, blob in self._results[run.run_id]:
            key = self._unwrapped(kek_id, wrapped, log + run_id)
            if key is None:
                continue
            try:
                open_result(key, blob, log=log, run=run_id)
            except SealError:
                continue
            return True
        return False

    def _unwrapped(self, kek_id: str, wrapped: bytes, aad: bytes) -> bytes | None:
        try:
            return self._keys.unwrap(kek_id, wrapped, aad)
        except KeyStoreError:
            return None
