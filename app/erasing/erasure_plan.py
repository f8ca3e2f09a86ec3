"""Decides what an erasure takes from a run, and seals again what stays.

A run that does not verify is not erased: erasing must not be a way to hide that it was forged.

Threat: Ledger tampering
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.audit.erasure_book import ErasureBook, OlderViewError
from app.domain.erasure import KEPT_BY_ANONYMIZING, ErasureAction, ErasureRequest
from app.domain.errors import (
    ChainBreak,
    ErasureRefusedError,
    KeyStoreError,
    LedgerUnavailableError,
)
from app.domain.run import TERMINAL, RunId, RunKind, RunRow, TenantId
from app.ledger.chain import StoredRun, VerifiedChain, verify_run
from app.ledger.erasure_statement import Erased, ErasedItem, ErasureStatement
from app.ledger.header import FIELD_NAMES
from app.ledger.released_output import RELEASED_FIELD
from app.ledger.run_account import account_of, row_break
from app.ledger.sealing import NONCE_BYTES, RunSealer, SealError
from app.ledger.writing import SealedField
from app.runs.run_keys import RunKeys
from app.storage.companions import WrappedKey
from app.storage.database import Database
from app.storage.erasing_store import AnonymizeRun, DeleteRun, DeleteTenant, Removal, RunSnapshot
from app.storage.erasure_store import ErasureStore
from app.storage.ledger_store import LedgerStore
from app.storage.run_store import RunStore

_LOOKS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will be said and what will be done."""

    statement: ErasureStatement
    removal: Removal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A run as it stands."""

    run: RunRow
    stored: StoredRun
    key: WrappedKey
    erased: Erased
    has_result: bool
    checkpoint: str | None


class ErasurePlanner:
    """Plans erasures from what the database holds now; the database compares again when it acts."""

    def __init__(
        self,
        *,
        database: Database,
        ledger: LedgerStore,
        runs: RunStore,
        erasures: ErasureStore,
        book: ErasureBook,
        run_keys: RunKeys,
        enrolment: Collection[bytes],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._runs = runs
        self._erasures = erasures
        self._book = book
        self._run_keys = run_keys
        self._enrolment = enrolment
        self._entropy = entropy

    async def of_run(
        self, request: ErasureRequest, run_id: RunId, at: datetime, *, is_forced: bool
    ) -> Plan:
        """The plan for one run. ErasureRefusedError; forced, nothing is verified first."""
        seen = await self._seen(request, run_id, is_forced=is_forced)
        if seen.run.status not in TERMINAL:
            raise ErasureRefusedError("run_not_over")
        run_key = self._key_of(seen)
        if not is_forced:
            self._require_whole(seen, run_key)
        gone, kept = self._parted(request, seen, run_key)
        if request.action is ErasureAction.ANONYMIZE_RUN and not gone and not seen.has_result:
            raise ErasureRefusedError("nothing_left")
        taken: dict[int, list[str]] = {}
        for item in gone:
            name = FIELD_NAMES.get(item.field)
            if name is not None:
                taken.setdefault(item.seq, []).append(name)
        items = tuple(
            ErasedItem(
                seq=r.seq, rc=r.rc, chain=r.chain, fields=tuple(sorted(taken.get(r.seq, [])))
            )
            for r in seen.stored.records
        )
        statement = _statement(request, at, items, seen.checkpoint)
        snapshot = RunSnapshot(
            run_id=run_id,
            hashes=[(r.seq, r.rc, r.chain) for r in seen.stored.records],
            gone=[(item.seq, item.field) for item in gone],
        )
        if request.action is ErasureAction.DELETE_RUN:
            return Plan(statement=statement, removal=DeleteRun(snapshot=snapshot))
        new_key, wrapped = self._run_keys.new_run_key(request.log_id, run_id, at)
        sealer = RunSealer(new_key, log=request.log_id.bytes, run=run_id.bytes)
        again = [
            SealedField(
                seq=seq,
                field=field,
                blob=sealer.seal(
                    seq=seq, field=field, salt=salt, value=value, nonce=self._entropy(NONCE_BYTES)
                ),
            )
            for seq, field, salt, value in kept
        ]
        removal = AnonymizeRun(snapshot=snapshot, kept=again, key=wrapped)
        return Plan(statement=statement, removal=removal)

    async def of_tenant(
        self, request: ErasureRequest, at: datetime, kek_ids: Collection[str], *, is_forced: bool
    ) -> Plan:
        """The plan for a whole tenant."""
        async with self._database.snapshot(request.log_id) as raw:
            found = await self._erasures.checkpoint(raw, request.log_id)
        checkpoint = await self._checked(found, request.log_id, is_forced=is_forced)
        statement = _statement(request, at, None, checkpoint)
        removal = DeleteTenant(log_id=request.log_id, kek_ids=sorted(kek_ids))
        return Plan(statement=statement, removal=removal)

    async def is_undone(self, statement: ErasureStatement) -> bool:
        """Whether anything that the statement took away is there again."""
        log_id = TenantId(UUID(bytes=statement.log))
        if statement.run is None:
            return await self._erasures.has_log(log_id)
        run_id = RunId(UUID(bytes=statement.run))
        async with self._database.snapshot(log_id) as raw:
            run = await self._runs.find(raw, log_id, run_id)
            if run is None or statement.action is ErasureAction.DELETE_RUN:
                return run is not None
            stored, _ = await self._ledger.read(raw, run)
        taken = {(item.seq, name) for item in statement.items or () for name in item.fields}
        return any((item.seq, FIELD_NAMES.get(item.field)) in taken for item in stored.fields)

    async def _checked(
        self, checkpoint: str | None, log_id: TenantId, *, is_forced: bool
    ) -> str | None:
        """What a statement may say of the log: the erasure key vouches for nothing that is not so.

        Forced, it says nothing of a log whose checkpoint does not hold. ErasureRefusedError.
        """
        if checkpoint is None or await self._book.holds(checkpoint, log_id):
            return checkpoint
        if is_forced:
            return None
        raise ErasureRefusedError("broken_checkpoint")

    async def _seen(self, request: ErasureRequest, run_id: RunId, *, is_forced: bool) -> _Seen:
        log_id = request.log_id
        for _ in range(_LOOKS):
            try:
                async with self._database.snapshot(log_id) as raw:
                    run = await self._runs.find(raw, log_id, run_id)
                    if run is None or run.kind is RunKind.ADMIN:
                        raise ErasureRefusedError("not_found")
                    stored, key = await self._ledger.read(raw, run)
                    result = await self._runs.find_result(raw, log_id, run_id)
                    told = await self._book.of_run(raw, log_id, run_id)
                    checkpoint = await self._erasures.checkpoint(raw, log_id)
            except OlderViewError:
                continue
            if not is_forced:
                await self._book.require(told)
            return _Seen(
                run=run,
                stored=stored,
                key=key,
                erased=told.erased,
                has_result=result is not None,
                checkpoint=await self._checked(checkpoint, log_id, is_forced=is_forced),
            )
        raise LedgerUnavailableError("the administration run is shorter than it was")

    def _key_of(self, seen: _Seen) -> bytes | None:
        try:
            return self._run_keys.open(seen.run.tenant_id, seen.run.run_id, seen.key)
        except KeyStoreError:
            return None

    def _require_whole(self, seen: _Seen, run_key: bytes | None) -> None:
        checked = verify_run(seen.stored, run_key, self._enrolment, None, seen.erased)
        found: ChainBreak | None
        if isinstance(checked, VerifiedChain):
            account = account_of(checked.records)
            found = account if isinstance(account, ChainBreak) else row_break(seen.run, account)
        else:
            found = checked
        if found is not None:
            raise ErasureRefusedError(f"broken_at_{found.seq}")

    @staticmethod
    def _parted(
        request: ErasureRequest, seen: _Seen, run_key: bytes | None
    ) -> tuple[list[SealedField], list[tuple[int, int, bytes, bytes]]]:
        """What goes, and what stays as seq, field, salt and value. What cannot be opened goes."""
        log, run = seen.stored.log, seen.stored.run
        sealer = None if run_key is None else RunSealer(run_key, log=log, run=run)
        gone: list[SealedField] = []
        kept: list[tuple[int, int, bytes, bytes]] = []
        for item in seen.stored.fields:
            if sealer is None or _takes(request, FIELD_NAMES.get(item.field)):
                gone.append(item)
                continue
            try:
                salt, value = sealer.open(seq=item.seq, field=item.field, blob=item.blob)
            except SealError:
                gone.append(item)
            else:
                kept.append((item.seq, item.field, salt, value))
        return gone, kept


def _takes(request: ErasureRequest, name: str | None) -> bool:
    if request.action is ErasureAction.DELETE_RUN or name is None:
        return True
    if request.fields is None:
        return name not in KEPT_BY_ANONYMIZING
    # What binds the output in full goes with the output: it binds nothing that is left.
    return name in request.fields or (name == RELEASED_FIELD and "output" in request.fields)


def _statement(
    request: ErasureRequest,
    at: datetime,
    items: tuple[ErasedItem, ...] | None,
    checkpoint: str | None,
) -> ErasureStatement:
    return ErasureStatement(
        action=request.action,
        log=request.log_id.bytes,
        run=None if request.run_id is None else request.run_id.bytes,
        at=at,
        actor=request.actor,
        legal_basis=request.legal_basis,
        request_ref=request.request_ref,
        items=items,
        checkpoint=checkpoint,
    )
