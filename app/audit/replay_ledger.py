"""ReplayLedger: reads runs back from the ledger; nothing leaves it that did not verify.

Threat: Ledger tampering
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from app.audit.erasure_book import OlderViewError
from app.audit.erasure_calls import ErasureCalls, ErasureParts
from app.audit.inclusion import Inclusion, InclusionCheck, InclusionError
from app.audit.integrity import Integrity, IntegrityState, unwitnessed_age
from app.audit.integrity_alarm import IntegrityAlarm
from app.audit.key_book import KeyBook
from app.audit.recovered_names import RecoveredNames
from app.audit.run_dossier import Bookmark, Evidence, Remains, ReopenedRun, RunDossier, Tail
from app.audit.witnessed_times import TimeDoubt, time_doubt
from app.audit.witnessing import Witnessing
from app.domain.errors import ChainBreak, KeyStoreError, LedgerBrokenError, NotFoundError
from app.domain.run import OutputState, RunFilter, RunId, RunKind, RunRow, TenantId
from app.keys.key_store import KeyStore
from app.ledger.chain import Resume, StoredRun, VerifiedChain, VerifiedRecord, verify_run
from app.ledger.erasure_statement import Erased
from app.ledger.hashing import digest_key
from app.ledger.released_output import RELEASED_FIELD, is_released
from app.ledger.run_account import RunAccount, account_of, row_break
from app.ledger.sealing import SealError, open_result
from app.storage.companions import WrappedKey
from app.storage.database import Database
from app.storage.ledger_store import LedgerStore
from app.storage.place_store import Placement, is_named, read_older, read_overdue, read_placement
from app.storage.run_store import RunStore, StoredResult

_LOOKS = 3
_CUT = LedgerBrokenError(ChainBreak(seq=0, reason="the log's administration run was cut"))
_NOT_RELEASED = "the kept output is not the one that was released"
_SEQUENCED_WITHIN = timedelta(seconds=10)
_OLDER = 8  # checkpoints in which a witnessed part of a run is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChecks:
    """What holds runs against the logs of the deployment, and where a break is told."""

    book: KeyBook
    check: InclusionCheck
    names: RecoveredNames
    witnessing: Witnessing
    alarm: IntegrityAlarm


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one snapshot holds of a run, believed by nobody yet."""

    run: RunRow
    stored: StoredRun
    key: WrappedKey
    kept: StoredResult | None
    placement: Placement
    erased: Erased


class ReplayLedger(ErasureCalls):
    """Verified reads of one deployment's runs, always within a tenant."""

    def __init__(
        self,
        *,
        database: Database,
        ledger: LedgerStore,
        runs: RunStore,
        keys: KeyStore,
        enrolment: Collection[bytes],
        erasures: ErasureParts,
        logs: LogChecks,
        now: Callable[[], datetime],
    ) -> None:
        super().__init__(erasures.desk)
        self._database = database
        self._ledger = ledger
        self._runs = runs
        self._keys = keys
        self._enrolment = enrolment
        self._book = erasures.book
        self._logs = logs
        self._now = now

    async def read_run(
        self, tenant_id: TenantId, run_id: RunId, *, with_output: bool = False, anew: bool = False
    ) -> RunDossier:
        """The verified run. NotFoundError; LedgerBrokenError names the first break.

        `with_output`: the output in full, while it is kept; another one than was released breaks.
        `anew`: the signatures of all its batches are checked too, and nothing is remembered.
        """
        with self._alarmed(tenant_id, run_id):
            seen = await self._look(tenant_id, run_id, with_output=with_output)
            chain, inclusion = await self._verified(seen, None, anew=anew)
            self._accounted(seen.run, chain, None)
            output = self._released(seen, chain)
            integrity = await self._integrity(tenant_id, chain, inclusion, anew=anew)
            times = await self._times(tenant_id, chain, inclusion, integrity) if anew else None
        is_erased = output is None and chain.records and "output" in chain.records[-1].erased
        kept = OutputState.FULL if output is not None else OutputState.SCRUBBED
        return RunDossier(
            run=seen.run,
            chain=chain,
            integrity=integrity,
            output=output,
            output_state=OutputState.ERASED if is_erased else kept,
            digest_key=digest_key(self._open(seen.run, seen.key)),
            times=times,
        )

    async def tail(self, tenant_id: TenantId, run_id: RunId, bookmark: Bookmark | None) -> Tail:
        """What was recorded after `bookmark`, verified from there; the row always, and whole."""
        before = None if bookmark is None else bookmark.head
        with self._alarmed(tenant_id, run_id):
            seen = await self._look(tenant_id, run_id, 0 if before is None else before.next_seq)
            chain, _ = await self._verified(seen, before)
            account = self._accounted(
                seen.run, chain, None if bookmark is None else bookmark.account
            )
        bookmark = Bookmark(head=chain.head, account=account)
        return Tail(run=seen.run, records=chain.records, bookmark=bookmark)

    async def replay(self, tenant_id: TenantId, run_id: RunId) -> tuple[VerifiedRecord, ...]:
        """The steps of a run in order, verified, with what was lawfully erased left out."""
        return (await self.read_run(tenant_id, run_id)).chain.records

    async def remains(self, tenant_id: TenantId, run_id: RunId) -> Remains:
        """What is left of a deleted run. NotFoundError for any other; LedgerBrokenError."""
        with self._alarmed(tenant_id, run_id):
            chain, left = await self._left(tenant_id, run_id)
            integrity = await self._integrity(tenant_id, chain, left.inclusion, anew=True)
        return Remains(
            run_id=run_id,
            records=chain.deleted,
            head=chain.head,
            integrity=replace(integrity, state=IntegrityState.ERASED),
        )

    async def _left(self, tenant_id: TenantId, run_id: RunId) -> tuple[VerifiedChain, Evidence]:
        await self._logs.book.refresh()
        for _ in range(_LOOKS):
            try:
                async with self._database.snapshot(tenant_id) as raw:
                    told = await self._book.of_run(raw, tenant_id, run_id)
                    if not told.erased.is_deleted:
                        raise NotFoundError("no such run")
                    count = len(told.erased.records)
                    stored = await self._ledger.remains(raw, tenant_id, run_id, count)
                    placement = await read_placement(raw, tenant_id, run_id, 0)
            except OlderViewError:
                continue
            await self._book.require(told)
            checked = verify_run(stored, None, self._enrolment, None, told.erased)
            if isinstance(checked, ChainBreak):
                raise LedgerBrokenError(checked)
            await self._logs.names.require(placement.state, 0)
            inclusion = self._logs.check.check(placement, stored, 0)
            return checked, Evidence.of(stored, None, inclusion, placement)
        raise _CUT

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
        wanted: RunFilter,
        limit: int,
    ) -> list[RunRow]:
        """Rows of a tenant's runs, newest first, unverified: their ledgers are not read."""
        return await self._runs.page(tenant_id, before=before, wanted=wanted, limit=limit)

    async def reopen(self, tenant_id: TenantId, run_id: RunId) -> ReopenedRun:
        """A run for somebody who is about to take it over. NotFoundError; LedgerBrokenError."""
        with self._alarmed(tenant_id, run_id):
            seen = await self._look(tenant_id, run_id)
            chain, _ = await self._verified(seen, None, anew=True)
            spent = self._accounted(seen.run, chain, None).spent
        return ReopenedRun(
            head=chain.head,
            run_key=self._open(seen.run, seen.key),
            spent=spent,
            policy_digest=seen.run.policy_digest,
            records=chain.records,
        )

    async def evidence(self, tenant_id: TenantId, run_id: RunId) -> Evidence:
        """A run as it is stored, or what is left of a deleted one, once all of it has verified.

        NotFoundError; LedgerBrokenError. The output in full is no part of it, but one that was not
        released breaks it all the same: an export and a verification of one moment say the same.
        """
        with self._alarmed(tenant_id, run_id):
            try:
                seen = await self._look(tenant_id, run_id, with_output=True)
            except NotFoundError:
                return (await self._left(tenant_id, run_id))[1]
            chain, inclusion = await self._verified(seen, None, anew=True)
            self._accounted(seen.run, chain, None)
            self._released(seen, chain)
        run_key = self._open(seen.run, seen.key)
        return Evidence.of(seen.stored, run_key, inclusion, seen.placement)

    @contextmanager
    def _alarmed(self, tenant_id: TenantId, run_id: RunId) -> Iterator[None]:
        """Whatever breaks inside is told to the operator log, too."""
        try:
            yield
        except InclusionError as error:
            self._logs.alarm.sound(tenant_id, run_id, error.found)
            raise LedgerBrokenError(error.found) from error
        except LedgerBrokenError as error:
            self._logs.alarm.sound(tenant_id, run_id, error.found)
            raise

    async def _look(
        self, tenant_id: TenantId, run_id: RunId, from_seq: int = 0, *, with_output: bool = False
    ) -> _Seen:
        """One snapshot of a run that is not older than what is known of erasures."""
        operator = await self._logs.witnessing.operator()
        await self._logs.book.refresh()
        for _ in range(_LOOKS):
            try:
                async with self._database.snapshot(tenant_id) as raw:
                    told = await self._book.of_run(raw, tenant_id, run_id)
                    found = await self._runs.find(raw, tenant_id, run_id)
                    if found is None and not told.erased.is_deleted:
                        self._check_never_was(is_in_log=await is_named(raw, tenant_id, run_id))
                    run = await self._found(found)
                    stored, key = await self._ledger.read(raw, run, from_seq)
                    find = self._runs.find_result
                    kept = await find(raw, tenant_id, run_id) if with_output else None
                    placement = await read_placement(raw, tenant_id, run_id, from_seq)
                    first = from_seq + len(placement.places.by_seq)
                    if self._is_late(stored, first):
                        overdue = await read_overdue(raw, operator, (tenant_id, run_id), first)
                        placement = replace(placement, overdue=overdue)
            except OlderViewError:
                continue
            await self._logs.names.require(placement.state, from_seq)
            await self._book.require(told)
            return _Seen(
                run=run, stored=stored, key=key, kept=kept, placement=placement, erased=told.erased
            )
        raise _CUT

    @staticmethod
    def _check_never_was(*, is_in_log: bool) -> None:
        """A run without a row has no place in the log, unless an erasure took the row."""
        if is_in_log:
            raise InclusionError(0, "the run is gone that the log holds")

    def _is_late(self, stored: StoredRun, first: int) -> bool:
        """Whether a record without a place is old enough to have one."""
        waiting = (record for record in stored.records if record.seq >= first)
        record = next(waiting, None)
        if record is None:
            return False
        return record.at is None or self._now() - record.at > _SEQUENCED_WITHIN

    async def _found(self, run: RunRow | None) -> RunRow:
        # What the administration runs say is read through what they are about.
        if run is None or run.kind is RunKind.ADMIN:
            raise NotFoundError("no such run")
        return run

    def _open(self, run: RunRow, key: WrappedKey) -> bytes:
        try:
            return self._keys.unwrap(
                key.kek_id, key.wrapped, run.tenant_id.bytes + run.run_id.bytes
            )
        except KeyStoreError as error:
            found = ChainBreak(seq=0, reason="the key of the run does not open")
            raise LedgerBrokenError(found) from error

    async def _verified(
        self, seen: _Seen, resume: Resume | None, *, anew: bool = False
    ) -> tuple[VerifiedChain, Inclusion]:
        run_key = self._open(seen.run, seen.key)
        first = 0 if resume is None else resume.next_seq
        end = first + len(seen.stored.records)
        placed = 0 if anew else self._logs.check.covered(seen.placement, first, end)
        checked = verify_run(
            seen.stored, run_key, self._enrolment, resume, seen.erased, placed=placed
        )
        if isinstance(checked, ChainBreak):
            raise LedgerBrokenError(checked)
        inclusion = self._logs.check.check(seen.placement, seen.stored, first)
        if placed < end:
            found = await self._logs.book.writer_break(seen.stored, seen.placement, placed)
            if found is not None:
                raise LedgerBrokenError(found)
        return checked, inclusion

    async def _integrity(
        self, tenant_id: TenantId, chain: VerifiedChain, inclusion: Inclusion, *, anew: bool
    ) -> Integrity:
        """How much of a run that verified is witnessed. InclusionError."""
        size, witnessing = chain.head.next_seq, self._logs.witnessing
        at, witnessed = None, 0
        if inclusion.covering is not None and witnessing.is_asked_for:
            at, witnessed = await witnessing.seen_at(inclusion.covering, anew=anew), 0
            if at is not None:
                witnessed = inclusion.covered
            else:
                at, witnessed = await self._older(tenant_id, inclusion, anew=anew)
        state = IntegrityState.ANCHORED if witnessed == size else IntegrityState.PENDING
        return Integrity(
            state=IntegrityState.ERASED if chain.is_erased else state,
            size=size,
            witnessed_at=at,
            unwitnessed=size - witnessed,
            unwitnessed_age_seconds=unwitnessed_age(chain, witnessed, self._now()),
        )

    async def _older(
        self, tenant_id: TenantId, inclusion: Inclusion, *, anew: bool
    ) -> tuple[datetime | None, int]:
        """When the longest part of a run was witnessed that is, and how many records that is."""
        covering, first = inclusion.covering, min(inclusion.places.values())
        if covering is None:
            return None, 0
        async with self._database.snapshot(tenant_id) as raw:
            older = await read_older(raw, tenant_id, covering.origin, covering.size, _OLDER)
        for head in older:
            if head.size <= first:
                break
            self._logs.check.opened(head, covering.origin, tenant_id.bytes, 0)
            at = await self._logs.witnessing.seen_at(head, anew=anew)
            if at is not None:
                return at, sum(index < head.size for index in inclusion.places.values())
        return None, 0

    async def _times(
        self, tenant_id: TenantId, chain: VerifiedChain, inclusion: Inclusion, integrity: Integrity
    ) -> TimeDoubt | None:
        """Whether its times fit those at which witnesses saw the log without and with it."""
        without = await self._logs.witnessing.seen_without(tenant_id, inclusion)
        return time_doubt(
            chain.records,
            seen_without=without,
            seen_with=integrity.witnessed_at,
            covered=integrity.size - integrity.unwitnessed,
        )

    @staticmethod
    def _accounted(run: RunRow, chain: VerifiedChain, before: RunAccount | None) -> RunAccount:
        """What the chain says of the run, once the row is known to say the same."""
        account = account_of(chain.records, before)
        if isinstance(account, ChainBreak):
            raise LedgerBrokenError(account)
        if (found := row_break(run, account)) is not None:
            raise LedgerBrokenError(found)
        return account

    def _released(self, seen: _Seen, chain: VerifiedChain) -> str | None:
        """The kept output, once it is known to be the one released. LedgerBrokenError."""
        if seen.kept is None or not chain.records:
            return None
        last = chain.records[-1]
        if RELEASED_FIELD in last.erased:
            return None  # the output went with it: what lies there now is nobody's word
        text = self._opened_result(seen.run, seen.kept)
        if text is None:
            return None
        note = last.fields.get(RELEASED_FIELD)
        if note is None or not is_released(self._open(seen.run, seen.key), text, note):
            raise LedgerBrokenError(ChainBreak(seq=last.seq, reason=_NOT_RELEASED))
        return text

    def _opened_result(self, run: RunRow, kept: StoredResult) -> str | None:
        """What is sealed there, believed by nobody yet: who holds the work key can seal, too.

        None past its time, and when it does not open.
        """
        if kept.expires_at <= self._now():
            return None
        log, owner = run.tenant_id.bytes, run.run_id.bytes
        try:
            key = self._keys.unwrap(kept.key.kek_id, kept.key.wrapped, log + owner)
            return open_result(key, kept.blob, log=log, run=owner)
        except (KeyStoreError, SealError):
            # The full output is a convenience; the ledger's scrubbed one is the truth that stays.
            return None
