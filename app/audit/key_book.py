"""Knows the deployment's keys and what the operator log says of them: rotations, retirements.

Log and enrolment keys are the files of the key directory. A reader trusts those; that a key counts
only in its range is what the rotations say, which both keys signed.

Source: docs/ledger-format.md section 11.

Threat: Ledger tampering
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from app.audit.log_entries import EntryError, OpenedEntry, open_entry
from app.audit.log_keys import LogKeys
from app.audit.retired_writers import outlived_break, retired_break
from app.domain.errors import ChainBreak, LedgerBrokenError
from app.domain.run import TenantId
from app.keys.enrolment_keys import EnrolmentKeys
from app.keys.key_store import KeyStore
from app.keys.signing_keys import ENROLMENT, LOG, SigningKeys
from app.ledger.chain import StoredRun
from app.ledger.key_statements import RETIRED, ROTATED, KeyChange, read_retirement, read_rotation
from app.storage.database import Database
from app.storage.entry_store import administration_end, find_entries, read_entries
from app.storage.place_store import Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHistory:
    """What the operator log says of keys, and the records that say it."""

    entries: tuple[OpenedEntry, ...]
    rotations: tuple[KeyChange, ...]
    retired: Mapping[bytes, Mapping[str, int]]  # sizes of logs by writer


class KeyBook:
    """The keys of one deployment."""

    def __init__(
        self,
        *,
        database: Database,
        keys: KeyStore,
        signing: SigningKeys,
        enrolment: EnrolmentKeys,
        operator: Callable[[], Awaitable[TenantId]],
    ) -> None:
        self._database = database
        self._keys = keys
        self._signing = signing
        self._enrolment = enrolment
        self._operator = operator
        self._seen: tuple[str, ...] | None = None
        self._turn = asyncio.Lock()
        self._retired: dict[bytes, Mapping[str, int]] = {}
        self._changes: list[KeyChange] = []
        self._known_to = -1  # how far the operator log's administration run was read for them
        self.log_keys = LogKeys([])

    async def operator(self) -> TenantId:
        """The operator log's id."""
        return await self._operator()

    async def refresh(self) -> None:
        """Take over keys that were made meanwhile. LedgerBrokenError, KeyStoreError.

        A new key without its rotation does not count yet, so the book is not closed before that.
        """
        self._enrolment.look_again()
        names = self._signing.names(LOG)
        if names == self._seen:
            return
        async with self._turn:
            keys = [key.public_key for key in self._signing.every(LOG)]
            rotations: tuple[KeyChange, ...] = ()
            if len(keys) > 1:
                rotations = (await self.history()).rotations
            changes = [change for change in rotations if change.role == LOG]
            announced = {change.new for change in changes}
            known = [key for key in keys if key == keys[0] or key in announced]
            self.log_keys = LogKeys(known, changes)
            self._seen = names if known == keys else None

    async def rotations(self) -> tuple[KeyChange, ...]:
        """The changes of keys that the operator log holds. LedgerBrokenError."""
        return (await self.history()).rotations

    async def changes(self) -> Sequence[KeyChange]:
        """As `rotations`; each record is read once, and stays known though it should be deleted."""
        await self._keep_up()
        return self._changes

    async def enrolment_in_force(self) -> Collection[bytes]:
        """The enrolment keys that count for what is written now. LedgerBrokenError."""
        self._enrolment.look_again()
        if len(self._enrolment) == 1:
            return list(self._enrolment)
        changes = await self.changes()
        ended = {change.old for change in changes if change.role == ENROLMENT}
        return [key for key in self._enrolment if key not in ended]

    async def writer_break(
        self, stored: StoredRun, placement: Placement, first: int
    ) -> ChainBreak | None:
        """The first record from `first` on whose writer did not count any more where it stands.

        The writer was retired, or the enrolment key that certified it had given way.
        LedgerBrokenError when the records about keys do not hold.
        """
        await self._keep_up()
        found = [
            retired_break(stored, placement, self._retired, first),
            outlived_break(stored, placement, self._changes, self._enrolment, first),
        ]
        breaks = [item for item in found if item is not None]
        return min(breaks, key=lambda item: item.seq, default=None)

    async def _keep_up(self) -> None:
        """Read what the operator log says of keys since the last look."""
        operator = await self._operator()
        async with self._turn:
            async with self._database.snapshot(operator) as raw:
                end = await administration_end(raw, operator)
            if end > self._known_to:
                found = await self._read([ROTATED, RETIRED], self._known_to)
                self._retired |= found.retired
                self._changes += found.rotations
                self._known_to = end

    async def history(self) -> KeyHistory:
        """All that the operator log says of keys. LedgerBrokenError when it does not hold."""
        return await self._read([ROTATED, RETIRED])

    async def _read(self, kinds: Sequence[str], after: int = -1) -> KeyHistory:
        """What the records of these kinds say that come after one of them."""
        operator = await self._operator()
        opened: list[OpenedEntry] = []
        rotations: list[KeyChange] = []
        retired: dict[bytes, Mapping[str, int]] = {}
        async with self._database.snapshot(operator) as raw:
            places = await find_entries(raw, operator, kinds, after)
            for run_id in dict.fromkeys(run for run, _ in places):
                seqs = [seq for run, seq in places if run == run_id]
                for stored in await read_entries(raw, operator, run_id, seqs):
                    try:
                        entry = open_entry(operator, stored, self._keys)
                        if entry.kind == ROTATED:
                            rotations.append(read_rotation(entry.note))
                        else:
                            writer, sizes = read_retirement(entry.note)
                            retired[writer] = sizes
                    except (EntryError, ValueError) as error:
                        reason = "a record of the operator log about a key does not hold"
                        raise LedgerBrokenError(
                            ChainBreak(seq=stored.seq, reason=reason)
                        ) from error
                    opened.append(entry)
        return KeyHistory(entries=tuple(opened), rotations=tuple(rotations), retired=retired)
