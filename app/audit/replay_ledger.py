"""ReplayLedger: reads runs back from the ledger; nothing leaves it that did not verify.

Threat: Ledger tampering
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from app.domain.errors import ChainBreak, KeyStoreError, LedgerBrokenError, NotFoundError
from app.domain.run import OutputState, RunId, RunKind, RunRow, RunStatus, TenantId, Usage
from app.keys.key_store import KeyStore
from app.ledger.chain import Resume, StoredRun, VerifiedChain, VerifiedRecord, verify_run
from app.ledger.run_account import RunAccount, account_of, row_break
from app.ledger.sealing import SealError, open_result
from app.storage.database import Database
from app.storage.ledger_store import LedgerStore, WrappedKey
from app.storage.run_store import RunStore, StoredResult


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDossier:
    """A run as it can be shown: its row, its verified records, and its output if it has one."""

    run: RunRow
    chain: VerifiedChain
    output: str | None  # the released output in full, while it is kept
    output_state: OutputState


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookmark:
    """How far a reader has come: where the chain stands, and what it has said of the run."""

    head: Resume
    account: RunAccount


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """New verified records of a run, and where the next look begins."""

    run: RunRow
    records: tuple[VerifiedRecord, ...]
    bookmark: Bookmark


@dataclass(frozen=True, slots=True, kw_only=True)
class ReopenedRun:
    """What somebody needs who takes a run over: where its ledger ends, its key, what it used."""

    head: Resume
    run_key: bytes
    spent: Usage


class ReplayLedger:
    """Verified reads of one deployment's runs, always within a tenant."""

    def __init__(
        self,
        *,
        database: Database,
        ledger: LedgerStore,
        runs: RunStore,
        keys: KeyStore,
        enrolment: Collection[bytes],
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._runs = runs
        self._keys = keys
        self._enrolment = enrolment
        self._now = now

    async def read_run(
        self, tenant_id: TenantId, run_id: RunId, *, with_output: bool = False
    ) -> RunDossier:
        """The verified run. NotFoundError; LedgerBrokenError names the first break."""
        async with self._database.snapshot(tenant_id) as raw:
            run = await self._found(await self._runs.find(raw, tenant_id, run_id))
            stored, key = await self._ledger.read(raw, run)
            kept = await self._runs.find_result(raw, tenant_id, run_id) if with_output else None
        chain = self._verified(stored, self._open(run, key), None)
        self._accounted(run, chain, None)
        output = None if kept is None else self._opened_result(run, kept)
        state = OutputState.FULL if output is not None else OutputState.SCRUBBED
        return RunDossier(run=run, chain=chain, output=output, output_state=state)

    async def tail(self, tenant_id: TenantId, run_id: RunId, bookmark: Bookmark | None) -> Tail:
        """What was recorded after `bookmark`, verified from there; the row always, and whole."""
        seen = None if bookmark is None else bookmark.head
        async with self._database.snapshot(tenant_id) as raw:
            run = await self._found(await self._runs.find(raw, tenant_id, run_id))
            stored, key = await self._ledger.read(raw, run, 0 if seen is None else seen.next_seq)
        chain = self._verified(stored, self._open(run, key), seen)
        account = self._accounted(run, chain, None if bookmark is None else bookmark.account)
        bookmark = Bookmark(head=chain.head, account=account)
        return Tail(run=run, records=chain.records, bookmark=bookmark)

    async def row(self, tenant_id: TenantId, run_id: RunId) -> RunRow:
        """The run's state alone, unverified: good for deciding when to look, never for showing.

        NotFoundError; LedgerBrokenError on a row that holds nonsense.
        """
        async with self._database.snapshot(tenant_id) as raw:
            return await self._found(await self._runs.find(raw, tenant_id, run_id))

    async def page(
        self,
        tenant_id: TenantId,
        *,
        before: RunId | None,
        status: RunStatus | None,
        agent: str | None,
        limit: int,
    ) -> list[RunRow]:
        """Rows of a tenant's runs, newest first, unverified: their ledgers are not read."""
        return await self._runs.page(
            tenant_id, before=before, status=status, agent=agent, limit=limit
        )

    async def reopen(self, tenant_id: TenantId, run_id: RunId) -> ReopenedRun:
        """A run for somebody who is about to take it over. NotFoundError; LedgerBrokenError."""
        async with self._database.snapshot(tenant_id) as raw:
            run = await self._found(await self._runs.find(raw, tenant_id, run_id))
            stored, key = await self._ledger.read(raw, run)
        run_key = self._open(run, key)
        chain = self._verified(stored, run_key, None)
        spent = self._accounted(run, chain, None).spent
        return ReopenedRun(head=chain.head, run_key=run_key, spent=spent)

    async def _found(self, run: RunRow | None) -> RunRow:
        # What the administration runs say is read through what they are about.
        if run is None or run.kind is RunKind.ADMIN:
            raise NotFoundError("no such run")
        return run

    def _open(self, run: RunRow, key: WrappedKey) -> bytes:
        owner = run.tenant_id.bytes + run.run_id.bytes
        try:
            return self._keys.unwrap(key.kek_id, key.wrapped, owner)
        except KeyStoreError as error:
            found = ChainBreak(seq=0, reason="the key of the run does not open")
            raise LedgerBrokenError(found) from error

    def _verified(self, stored: StoredRun, run_key: bytes, resume: Resume | None) -> VerifiedChain:
        checked = verify_run(stored, run_key, self._enrolment, resume)
        if isinstance(checked, ChainBreak):
            raise LedgerBrokenError(checked)
        return checked

    @staticmethod
    def _accounted(run: RunRow, chain: VerifiedChain, before: RunAccount | None) -> RunAccount:
        """What the chain says of the run, once the row is known to say the same."""
        account = account_of(chain.records, before)
        if isinstance(account, ChainBreak):
            raise LedgerBrokenError(account)
        found = row_break(run, account)
        if found is not None:
            raise LedgerBrokenError(found)
        return account

    def _opened_result(self, run: RunRow, kept: StoredResult) -> str | None:
        if kept.expires_at <= self._now():
            return None
        # Not committed to by the final record, and need not be: a run's result is sealed once, with
        # that record, under a key made for it alone and bound to this log and run. Nothing else is
        # ever sealed under that key or in this place (payloads name their seq and field too), so
        # there is no other blob to put here without the key store, whose holder could also sign.
        log, owner = run.tenant_id.bytes, run.run_id.bytes
        try:
            key = self._keys.unwrap(kept.key.kek_id, kept.key.wrapped, log + owner)
            return open_result(key, kept.blob, log=log, run=owner)
        except (KeyStoreError, SealError):
            # The full output is a convenience; the ledger's scrubbed one is the truth that stays.
            return None
