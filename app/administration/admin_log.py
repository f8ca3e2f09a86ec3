"""AdminLog: what concerns a whole log goes into its administration run, from any process.

Whoever appends takes the run over first, in the same transaction: of two at once, one goes after
the other, and nothing is lost or forked.

Threat: Ledger tampering
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from app.domain.errors import (
    ChainBreak,
    KeyStoreError,
    LedgerUnavailableError,
    NotFoundError,
    StaleEpochError,
)
from app.domain.run import (
    OPERATOR,
    JsonObject,
    RunId,
    RunKind,
    RunStatus,
    TenantId,
)
from app.keys.operator_key import OperatorKey
from app.ledger.chain import Resume, VerifiedChain, verify_run
from app.ledger.writing import ChainHead, Draft, Entropy, RunWriter, SealedAppend, WriterKey
from app.privacy.scrubber import machine_note
from app.storage.companions import Claim, Companion, NewRun, WrappedKey
from app.storage.ledger_store import LedgerStore, Receipt
from app.storage.run_store import RunStore

OPENED = "admin.opened"
_PAGE = 256
_TRIES = 64  # each lost race is somebody else's record: this many in a row is no race any more


class RunKeyMaker(Protocol):
    """Makes and opens the keys of runs."""

    def new_run_key(
        self, tenant_id: TenantId, run_id: RunId, now: datetime
    ) -> tuple[bytes, WrappedKey]:
        """A fresh key and how it is stored."""

    def open(self, tenant_id: TenantId, run_id: RunId, key: WrappedKey) -> bytes:
        """The key in clear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminParts:
    """What an AdminLog is built from."""

    ledger: LedgerStore
    runs: RunStore
    keys: RunKeyMaker
    writer: WriterKey
    now: Callable[[], datetime]
    entropy: Entropy
    sandbox: str | None = None  # how this process confines tools, stamped into each record


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminReceipt:
    """Where a record stands, and its hashes: whoever keeps this can prove that it was there."""

    run_id: RunId
    seq: int
    rc: bytes
    chain: bytes
    batch_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminPage:
    """Verified records of an administration run, and how many it has in all."""

    run_id: RunId
    chain: VerifiedChain
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where the administration run stood when this process last saw it."""

    run_id: RunId
    run_key: bytes
    head: ChainHead
    epoch: int
    opening: NewRun | None  # the run is not there yet: its first record brings it


class AdminLog:
    """Appends to the administration runs of all logs. For any number of tasks at a time."""

    def __init__(self, parts: AdminParts) -> None:
        self._parts = parts
        self._turns: defaultdict[TenantId, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._known: dict[TenantId, _Place] = {}
        self._operator: TenantId | None = None

    async def operator_log_id(self) -> TenantId:
        """The id of the operator log, which is made when it is first asked for."""
        if self._operator is None:
            self._operator = await self._parts.runs.ensure_tenant(OPERATOR)
        return self._operator

    async def operator_key(self) -> OperatorKey:
        """What opens the notes of the operator log. NotFoundError before its first record."""
        operator = await self.operator_log_id()
        found = await self._parts.ledger.admin_run(operator)
        if found is None:
            raise NotFoundError("the operator log has no record yet")
        run_key = self._parts.keys.open(operator, found.run_id, found.key)
        return OperatorKey(log=operator.bytes, run=found.run_id.bytes, run_key=run_key)

    async def append(
        self,
        tenant_id: TenantId,
        kind: str,
        note: JsonObject,
        companions: Sequence[Companion] = (),
        *,
        actor: str = "system",
    ) -> AdminReceipt:
        """One record with its companions, in one transaction; durable when this returns.

        `note` is made of ids, keys, codes and signatures by this program: it is stored as it is.
        LedgerUnavailableError: not known to be written.
        """
        drafts = [Draft(kind=kind, actor=actor, fields={"note": machine_note(note)})]
        return (await self._append(tenant_id, drafts, companions))[0]

    async def append_all(
        self, tenant_id: TenantId, kind: str, notes: Sequence[JsonObject]
    ) -> list[AdminReceipt]:
        """One record for each note, all in one transaction; as `append` otherwise."""
        drafts = [
            Draft(kind=kind, actor="system", fields={"note": machine_note(note)}) for note in notes
        ]
        return await self._append(tenant_id, drafts, ()) if drafts else []

    async def read_on(
        self, tenant_id: TenantId, after: Resume | None, enrolment: Collection[bytes]
    ) -> AdminPage | ChainBreak | None:
        """The next records of the run after those that a caller has verified; None when no more.

        A run that is shorter than that, or another, is a break: it only ever grows.
        """
        done = 0 if after is None else after.next_seq
        read = await self._parts.ledger.admin_page(tenant_id, done, _PAGE)
        if read is None:
            return None if after is None else ChainBreak(seq=0, reason="it is gone")
        found, stored = read
        if found.next_seq < done:
            return ChainBreak(seq=found.next_seq, reason="its end is gone")
        if after is not None and found.next_seq == done:
            is_same = found.chain == after.chain
            return None if is_same else ChainBreak(seq=done - 1, reason="it was rewritten")
        try:
            run_key = self._parts.keys.open(tenant_id, found.run_id, found.key)
        except KeyStoreError:
            return ChainBreak(seq=0, reason="its key does not open")
        # A page takes long enough to be felt by whoever shares this loop.
        checked = await asyncio.to_thread(verify_run, stored, run_key, enrolment, after)
        if isinstance(checked, ChainBreak):
            return checked
        if checked.head.next_seq == done:
            return ChainBreak(seq=done, reason="a record is missing")
        return AdminPage(run_id=found.run_id, chain=checked, end=found.next_seq)

    async def _append(
        self, tenant_id: TenantId, drafts: Sequence[Draft], companions: Sequence[Companion]
    ) -> list[AdminReceipt]:
        async with self._turns[tenant_id]:  # our own tasks need not race each other
            for _ in range(_TRIES):
                place = self._known.pop(tenant_id, None) or await self._find(tenant_id)
                try:
                    sealed, receipt, place = await self._write(tenant_id, place, drafts, companions)
                except StaleEpochError:
                    continue
                self._known[tenant_id] = place
                return [
                    AdminReceipt(
                        run_id=place.run_id,
                        seq=record.seq,
                        rc=record.rc,
                        chain=record.chain,
                        batch_id=receipt.batch_id,
                    )
                    for record in sealed.records[-len(drafts) :]
                ]
        raise LedgerUnavailableError("an administration run is never free")

    async def _find(self, tenant_id: TenantId) -> _Place:
        """The run as the database has it, or a new one that its first record will bring."""
        parts = self._parts
        found = await parts.ledger.admin_run(tenant_id)
        if found is None:
            return self._unopened(tenant_id)
        return _Place(
            run_id=found.run_id,
            run_key=parts.keys.open(tenant_id, found.run_id, found.key),
            head=ChainHead(next_seq=found.next_seq, chain=found.chain),
            epoch=found.epoch,
            opening=None,
        )

    def _unopened(self, tenant_id: TenantId) -> _Place:
        parts = self._parts
        # Random and not time-ordered: it says nothing of when the log began.
        run_id = RunId(UUID(bytes=parts.entropy(16), version=4))
        now = parts.now()
        run_key, wrapped = parts.keys.new_run_key(tenant_id, run_id, now)
        opening = NewRun(
            kind=RunKind.ADMIN,
            status=RunStatus.RUNNING,
            provider="none",
            model="none",
            agent=None,
            policy_digest="0" * 64,
            created_at=now,
            key=wrapped,
        )
        head = ChainHead.empty(tenant_id.bytes, run_id.bytes)
        return _Place(run_id=run_id, run_key=run_key, head=head, epoch=1, opening=opening)

    async def _write(
        self,
        tenant_id: TenantId,
        place: _Place,
        drafts: Sequence[Draft],
        companions: Sequence[Companion],
    ) -> tuple[SealedAppend, Receipt, _Place]:
        parts = self._parts
        own: Companion
        if place.opening is None:
            own = Claim(from_epoch=place.epoch)
            place = replace(place, epoch=place.epoch + 1)
        else:
            own = place.opening
            opened = Draft(kind=OPENED, actor="system", fields={"note": machine_note({})})
            drafts = [opened, *drafts]
        writer = RunWriter(
            log=tenant_id.bytes,
            run=place.run_id.bytes,
            run_key=place.run_key,
            writer=parts.writer,
            entropy=parts.entropy,
            sandbox=parts.sandbox,
        )
        sealed = writer.seal(place.head, drafts, epoch=place.epoch, at=parts.now())
        receipt = await parts.ledger.append(tenant_id, place.run_id, sealed, [own, *companions])
        return sealed, receipt, replace(place, head=sealed.head, opening=None)
