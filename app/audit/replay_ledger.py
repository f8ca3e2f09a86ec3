"""ReplayLedger: reads runs back from the ledger; nothing leaves it that did not verify.

Threat: Ledger tampering
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime

from app.audit.erasure_book import ErasureBook, OlderViewError
from app.audit.erasure_desk import ErasureDesk
from app.domain.erasure import ErasureAction, ErasureReceipt
from app.domain.errors import ChainBreak, KeyStoreError, LedgerBrokenError, NotFoundError
from app.domain.run import OutputState, RunId, RunKind, RunRow, RunStatus, TenantId, Usage
from app.keys.key_store import KeyStore
from app.ledger.chain import Resume, StoredRun, VerifiedChain, VerifiedRecord, verify_run
from app.ledger.erasure_statement import Erased
from app.ledger.run_account import RunAccount, account_of, row_break
from app.ledger.sealing import SealError, open_result
from app.storage.database import Database
from app.storage.ledger_store import LedgerStore, WrappedKey
from app.storage.run_store import RunStore, StoredResult

_LOOKS = 3
_CUT = LedgerBrokenError(ChainBreak(seq=0, reason="the log's administration run was cut"))


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
class Remains:
    """A deleted run: how many records it had, and the chain over their hashes, which holds."""

    run_id: RunId
    records: int
    head: Resume


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one snapshot holds of a run, believed by nobody yet."""

    run: RunRow
    stored: StoredRun
    key: WrappedKey
    kept: StoredResult | None
    erased: Erased


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
        book: ErasureBook,
        desk: ErasureDesk,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._runs = runs
        self._keys = keys
        self._enrolment = enrolment
        self._book = book
        self._desk = desk
        self._now = now

    async def read_run(
        self, tenant_id: TenantId, run_id: RunId, *, with_output: bool = False
    ) -> RunDossier:
        """The verified run. NotFoundError; LedgerBrokenError names the first break."""
        seen = await self._look(tenant_id, run_id, with_output=with_output)
        chain = self._verified(seen, None)
        self._accounted(seen.run, chain, None)
        output = None if seen.kept is None else self._opened_result(seen.run, seen.kept)
        state = OutputState.FULL if output is not None else OutputState.SCRUBBED
        if output is None and chain.records and "output" in chain.records[-1].erased:
            state = OutputState.ERASED
        return RunDossier(run=seen.run, chain=chain, output=output, output_state=state)

    async def tail(self, tenant_id: TenantId, run_id: RunId, bookmark: Bookmark | None) -> Tail:
        """What was recorded after `bookmark`, verified from there; the row always, and whole."""
        before = None if bookmark is None else bookmark.head
        seen = await self._look(tenant_id, run_id, 0 if before is None else before.next_seq)
        chain = self._verified(seen, before)
        account = self._accounted(seen.run, chain, None if bookmark is None else bookmark.account)
        bookmark = Bookmark(head=chain.head, account=account)
        return Tail(run=seen.run, records=chain.records, bookmark=bookmark)

    async def replay(self, tenant_id: TenantId, run_id: RunId) -> tuple[VerifiedRecord, ...]:
        """The steps of a run in order, verified, with what was lawfully erased left out."""
        return (await self.read_run(tenant_id, run_id)).chain.records

    async def remains(self, tenant_id: TenantId, run_id: RunId) -> Remains:
        """What is left of a deleted run. NotFoundError for any other; LedgerBrokenError."""
        for _ in range(_LOOKS):
            try:
                async with self._database.snapshot(tenant_id) as raw:
                    erased = await self._book.of_run(raw, tenant_id, run_id)
                    if not erased.is_deleted:
                        raise NotFoundError("no such run")
                    count = len(erased.records)
                    stored = await self._ledger.remains(raw, tenant_id, run_id, count)
            except OlderViewError:
                continue
            checked = verify_run(stored, None, self._enrolment, None, erased)
            if isinstance(checked, ChainBreak):
                raise LedgerBrokenError(checked)
            return Remains(run_id=run_id, records=checked.deleted, head=checked.head)
        raise _CUT

    async def anonymize_run(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        *,
        legal_basis: str,
        request_ref: str,
        actor: str,
        fields: Collection[str] | None = None,
        wait_seconds: float = 0,
    ) -> ErasureReceipt:
        """Ask that fields of a run be erased: all of its content, or the named fields.

        The receipt says what became of it; NotFoundError, InvalidSubmissionError.
        """
        await self.row(tenant_id, run_id)
        receipt = await self._desk.request(
            tenant_id,
            ErasureAction.ANONYMIZE_RUN,
            run_id,
            legal_basis=legal_basis,
            request_ref=request_ref,
            actor=actor,
            fields=None if fields is None else sorted(fields),
        )
        return await self._desk.executed(receipt, wait_seconds)

    async def delete_run(
        self,
        tenant_id: TenantId,
        run_id: RunId,
        *,
        legal_basis: str,
        request_ref: str,
        actor: str,
        wait_seconds: float = 0,
    ) -> ErasureReceipt:
        """Ask that nothing but the hashes of a run's records stay. NotFoundError."""
        await self.row(tenant_id, run_id)
        receipt = await self._desk.request(
            tenant_id,
            ErasureAction.DELETE_RUN,
            run_id,
            legal_basis=legal_basis,
            request_ref=request_ref,
            actor=actor,
        )
        return await self._desk.executed(receipt, wait_seconds)

    async def delete_tenant(
        self,
        tenant_id: TenantId,
        *,
        legal_basis: str,
        request_ref: str,
        actor: str,
        wait_seconds: float = 0,
    ) -> ErasureReceipt:
        """Ask that nothing of a tenant stay but the operator log's record of the erasure."""
        receipt = await self._desk.request(
            tenant_id,
            ErasureAction.DELETE_TENANT,
            None,
            legal_basis=legal_basis,
            request_ref=request_ref,
            actor=actor,
        )
        return await self._desk.executed(receipt, wait_seconds)

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
        seen = await self._look(tenant_id, run_id)
        chain = self._verified(seen, None)
        spent = self._accounted(seen.run, chain, None).spent
        return ReopenedRun(head=chain.head, run_key=self._open(seen.run, seen.key), spent=spent)

    async def _look(
        self, tenant_id: TenantId, run_id: RunId, from_seq: int = 0, *, with_output: bool = False
    ) -> _Seen:
        """One snapshot of a run that is not older than what is known of erasures."""
        for _ in range(_LOOKS):
            try:
                async with self._database.snapshot(tenant_id) as raw:
                    run = await self._found(await self._runs.find(raw, tenant_id, run_id))
                    stored, key = await self._ledger.read(raw, run, from_seq)
                    find = self._runs.find_result
                    return _Seen(
                        run=run,
                        stored=stored,
                        key=key,
                        kept=await find(raw, tenant_id, run_id) if with_output else None,
                        erased=await self._book.of_run(raw, tenant_id, run_id),
                    )
            except OlderViewError:
                continue
        raise _CUT

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

    def _verified(self, seen: _Seen, resume: Resume | None) -> VerifiedChain:
        run_key = self._open(seen.run, seen.key)
        checked = verify_run(seen.stored, run_key, self._enrolment, resume, seen.erased)
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
