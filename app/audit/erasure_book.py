"""Knows which erasures a log has recorded, so that a reader can tell a lawful gap from a break.

The administration run is verified from where the last look ended; what it says about a run is read
again when that run is. A look that is older than what is known is taken again.

Threat: Ledger tampering
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from app.audit.erasure_grounds import Ground, ToldErasures, checkpoint_fault, doubt
from app.audit.key_book import KeyBook
from app.domain.errors import ChainBreak, KeyStoreError, LedgerBrokenError
from app.domain.run import RunId, RunRow, TenantId
from app.keys.key_store import KeyStore
from app.ledger.canonical import CanonicalError
from app.ledger.chain import Resume, VerifiedChain, verify_run
from app.ledger.erasure_statement import (
    NOTHING,
    RECORD_KINDS,
    StatementError,
    checked_statement,
    erased_of,
    signer_of,
)
from app.ledger.hashing import commitment, record_hash
from app.ledger.header import FIELD_NUMBERS, decode_header
from app.ledger.sealing import RunSealer, SealError
from app.storage.companions import WrappedKey
from app.storage.database import Snapshot
from app.storage.erasure_store import ErasureStore, StoredNote
from app.storage.ledger_store import AdminRun, LedgerStore
from app.storage.run_store import RunStore

_PAGE = 256
_NOTHING = ToldErasures(erased=NOTHING)
Entry = tuple[int, bytes]  # seq and R of an erasure record


class OlderViewError(Exception):
    """This snapshot was taken before erasures that are known by now: take another one."""


@dataclass(slots=True)
class _Known:
    run_id: RunId
    head: Resume | None = None
    entries: dict[bytes, list[Entry]] = field(default_factory=dict)


class ErasureBook:
    """The erasures of all logs of a deployment, as verified administration runs tell them."""

    def __init__(
        self,
        *,
        ledger: LedgerStore,
        runs: RunStore,
        erasures: ErasureStore,
        keys: KeyStore,
        enrolment: Collection[bytes],
        erasure_keys: Callable[[], Collection[bytes]],
        key_book: KeyBook,
    ) -> None:
        self._ledger = ledger
        self._runs = runs
        self._erasures = erasures
        self._keys = keys
        self._enrolment = enrolment
        self._erasure_keys = erasure_keys
        self._key_book = key_book
        self._known: dict[TenantId, _Known] = {}
        self._turns: defaultdict[TenantId, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def of_run(self, raw: Snapshot, tenant_id: TenantId, run_id: RunId) -> ToldErasures:
        """What was taken of the run, as far as this snapshot goes: lawfully if `require` holds.

        LedgerBrokenError when the administration run does not verify; OlderViewError.
        """
        found = await self._ledger.admin_run_in(raw, tenant_id)
        known = self._known.get(tenant_id)
        if found is None and known is None:
            return _NOTHING
        if found is None or known is None or not _is_at(known, found):
            async with self._turns[tenant_id]:
                known = await self._caught_up(raw, tenant_id, found)
        entries = known.entries.get(run_id.bytes, [])
        if found is None or not entries:
            return _NOTHING
        run_key = self._open(tenant_id, found.run_id, found.key)
        told = [
            await self._ground(raw, (tenant_id, found.run_id), run_key, entry) for entry in entries
        ]
        statements = [ground.statement for ground in told]
        erased = erased_of(statements, log=tenant_id.bytes, run=run_id.bytes)
        return ToldErasures(erased=erased, grounds=tuple(told))

    async def require(self, told: ToldErasures) -> None:
        """Each statement counts where it stands. LedgerBrokenError names the first that does not.

        Reads the operator log, so not while the caller holds a snapshot.
        """
        if not told.grounds:
            return
        await self._key_book.refresh()
        is_rotated = len(self._erasure_keys()) > 1
        changes = await self._key_book.changes() if is_rotated else ()
        for ground in told.grounds:
            fault = doubt(ground, self._key_book.log_keys, changes)
            if fault is not None:
                raise _broken(ground.seq, fault)

    async def holds(self, note: str, tenant_id: TenantId) -> bool:
        """Whether a note is a signed checkpoint of this log, as a statement may name it."""
        await self._key_book.refresh()
        return checkpoint_fault(note, tenant_id.bytes, self._key_book.log_keys)[0] is None

    async def _caught_up(
        self, raw: Snapshot, tenant_id: TenantId, found: AdminRun | None
    ) -> _Known:
        known = self._known.get(tenant_id)
        if found is None:
            raise OlderViewError
        if known is None:
            known = _Known(run_id=found.run_id)
        if known.run_id != found.run_id:
            raise _broken(0, "another run")
        done = 0 if known.head is None else known.head.next_seq
        if found.next_seq < done:
            raise OlderViewError
        run = await self._runs.find(raw, tenant_id, found.run_id)
        if run is None:
            raise _broken(0, "it is gone")
        run_key = self._open(tenant_id, found.run_id, found.key)
        while known.head is None or known.head.next_seq < found.next_seq:
            known = await self._page(raw, run, run_key, known)
            self._known[tenant_id] = known
        if known.head.next_seq == found.next_seq and known.head.chain != found.chain:
            raise _broken(done, "it was rewritten")
        return known

    async def _page(self, raw: Snapshot, run: RunRow, run_key: bytes, known: _Known) -> _Known:
        start = 0 if known.head is None else known.head.next_seq
        stored, _ = await self._ledger.read(raw, run, start, start + _PAGE)
        checked = verify_run(stored, run_key, self._enrolment, known.head)
        if not isinstance(checked, VerifiedChain):
            raise _broken(checked.seq, checked.reason)
        if not checked.records:
            raise _broken(start, "a record is missing")
        entries = dict(known.entries)
        for record in checked.records:
            if record.kind not in RECORD_KINDS:
                continue
            try:
                told = checked_statement(record.fields["note"], keys=self._erasure_keys())
            except (StatementError, KeyError):
                continue  # says nothing: what it claims to have taken is missing without a reason
            if told.run is not None and told.action is RECORD_KINDS[record.kind]:
                entries[told.run] = [*entries.get(told.run, []), (record.seq, record.rc)]
        return replace(known, head=checked.head, entries=entries)

    async def _ground(
        self,
        raw: Snapshot,
        place: tuple[TenantId, RunId],
        run_key: bytes,
        entry: Entry,
    ) -> Ground:
        """The statement of a record that was verified before, and is the same still."""
        seq, rc = entry
        stored = await self._erasures.note(raw, *place, seq)
        if stored is None or stored.rc != rc or stored.header is None:
            raise _broken(seq, "a record was changed")
        try:
            note = _opened(stored, place, run_key, seq)
            statement = checked_statement(note, keys=self._erasure_keys())
        except (SealError, StatementError, CanonicalError) as error:
            raise _broken(seq, "a statement was changed") from error
        return Ground(seq=seq, statement=statement, signer=signer_of(note), index=stored.index)

    def _open(self, tenant_id: TenantId, run_id: RunId, key: WrappedKey) -> bytes:
        try:
            return self._keys.unwrap(key.kek_id, key.wrapped, tenant_id.bytes + run_id.bytes)
        except KeyStoreError as error:
            raise _broken(0, "its key does not open") from error


def _is_at(known: _Known, found: AdminRun) -> bool:
    head = known.head
    if head is None or known.run_id != found.run_id:
        return False
    return (head.next_seq, head.chain) == (found.next_seq, found.chain)


def _opened(stored: StoredNote, place: tuple[TenantId, RunId], run_key: bytes, seq: int) -> bytes:
    log, run = place[0].bytes, place[1].bytes
    if stored.header is None or record_hash(stored.header) != stored.rc:
        raise StatementError("another header")
    commits = decode_header(stored.header)["commit"]
    sealer = RunSealer(run_key, log=log, run=run)
    salt, value = sealer.open(seq=seq, field=FIELD_NUMBERS["note"], blob=stored.blob)
    held = commitment(log, run, seq, "note", salt, value).hex()
    if not isinstance(commits, dict) or commits.get("note") != held:
        raise StatementError("another note")
    return value


def _broken(seq: int, reason: str) -> LedgerBrokenError:
    return LedgerBrokenError(ChainBreak(seq=seq, reason=f"the log's administration run: {reason}"))
