"""What befalls a whole deployment: keys that all rest on, a tenant that goes, a backup restored.

Threat: Ledger tampering
"""

from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from uuid import UUID

import asyncpg
import pytest

from app.domain.erasure import ErasureReceipt, ErasureStatus
from app.domain.errors import ErasureRefusedError, RotationRefusedError
from app.domain.run import RunId, TenantId
from tests.integration.erasing.erasing_scene import WHY
from tests.integration.states.deployment import Seat
from tests.integration.states.ledger_acts import LedgerActs, owned
from tests.integration.states.ledger_model import RunModel
from tests.support.databases import Roles

NAMES = ("acme", "other")
_GONE_SECONDS = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Erasure:
    """One that was carried out, and what it took."""

    log: TenantId
    run: RunId | None  # None: the tenant
    taken: frozenset[tuple[int, str]] | None = None  # None: all that there was


@dataclass(slots=True, kw_only=True)
class _Backup:
    """A copy of the database, what the ledger had acknowledged by then, what was erased since."""

    roles: Roles
    runs: list[RunModel]
    tenants: list[TenantId]
    seen: dict[tuple[UUID, int], tuple[bytes, bytes]]
    leaves: dict[tuple[UUID, int], tuple[UUID, int]]
    pending: list[tuple[RunId, ErasureReceipt | None]]
    erased: list[_Erasure] = field(default_factory=list)


class LedgerUpheavals(LedgerActs):
    """The acts, and these."""

    def __init__(self) -> None:
        super().__init__()
        self.backup: _Backup | None = None
        self.rotations = 0
        self.restores = 0

    # Keys

    async def rotate_enrolment_key(self) -> None:
        """All processes stop; one that crashed is waited for until it is retired."""
        with pytest.raises(RotationRefusedError, match="are not retired"):
            await self.place.rotate_enrolment_key(gone_seconds=_GONE_SECONDS)
        for seat in list(self.seats):
            await seat.parts.enrolment.leave()
            self._vacate(seat)
        await self.place.office.enrolment.leave()
        await self.place.rotate_enrolment_key(gone_seconds=0.0)
        await self.place.move_out(says_goodbye=False)
        await self._come_back()
        self.has_new_keys = True
        self.rotations += 1

    async def rotate_erasure_key(self) -> None:
        await self.place.rotate_erasure_key()
        self.is_fresh = False
        self.rotations += 1

    # Tenants

    async def finish_all(self) -> None:
        """Every run comes to its end."""
        for run in self.runs:
            await self._settle(run)

    async def wind_up(self, tenant: int) -> None:
        """All runs of a tenant come to their end, and no hold is left."""
        for run in [item for item in self.runs if item.tenant_id == self.tenants[tenant]]:
            await self._settle(run)

    async def delete_tenant(self, tenant: int) -> None:
        log = self.tenants[tenant]
        own = [run for run in self.runs if run.tenant_id == log]
        held = any(run.is_held for run in own)
        refusal = "hold" if held else None if all(r.is_over for r in own) else "run_not_over"
        rows = await self._rows_of(log)
        asked = await self.place.office.replay.delete_tenant(log, **WHY)
        await self.place.eraser.eraser.execute_waiting()
        self.is_fresh = False
        told = asked.request
        now = await self.place.office.desk.receipt(told.tenant_id, told.erasure_id)
        if refusal is not None:
            assert (now.status, now.reason) == (ErasureStatus.REFUSED, refusal)
            return
        # Without a record there is no key that an old copy would have to wait for.
        status = ErasureStatus.PENDING if rows else ErasureStatus.COMPLETE
        assert (now.status, now.reason) == (status, None)
        if self.backup is not None:
            self.backup.erased.append(_Erasure(log=log, run=None))
        self._unsee({row["run_id"] for row in rows}, log)
        await self._forget(tenant, now)

    def _unsee(self, run_ids: set[UUID], log: TenantId) -> None:
        self._seen = {k: v for k, v in self._seen.items() if k[0] not in run_ids}
        self._leaves = {k: v for k, v in self._leaves.items() if k[0] != log}

    async def _forget(self, tenant: int, receipt: ErasureReceipt | None) -> None:
        """Nothing of the log is there any more; whoever comes under its name has another one."""
        log = self.tenants[tenant]
        for table in ("record", "payload", "runs", "run_key", "leaf", "tile", "checkpoint"):
            query = f"SELECT count(*) FROM {table} WHERE tenant_id = $1"
            assert await self.place.superuser.fetchval(query, log) == 0, table
        # Its receipts went with it, but for the one in the operator's log.
        self.pending = [(run, None if run.tenant_id == log else told) for run, told in self.pending]
        gone = [run for run in self.runs if run.tenant_id == log]
        self.runs = [run for run in self.runs if run.tenant_id != log]
        for run in gone:
            run.delete()
            self.pending.append((run, None))
        if receipt is not None and gone:
            self.pending.append((gone[0], receipt))
        self.tenants[tenant] = await self.place.tenant(NAMES[tenant])
        assert self.tenants[tenant] != log

    # Backups

    async def back_up(self) -> None:
        """Everything stops, the database is copied, everything starts again."""
        await self._all_stop()
        roles = await self.place.copied()
        await self._come_back()
        self.backup = _Backup(
            roles=roles,
            runs=[_copy(run) for run in self.runs],
            tenants=list(self.tenants),
            seen=dict(self._seen),
            leaves=dict(self._leaves),
            pending=[(run.run_id, receipt) for run, receipt in self.pending],
        )

    async def restore(self) -> None:
        """The copy takes the place of the database, and what was erased since is erased again."""
        backup, self.backup = self.backup, None
        assert backup is not None
        await self._all_stop(says_goodbye=False)
        self.place.roles = backup.roles
        self.runs = backup.runs
        self.tenants, self._seen, self._leaves = backup.tenants, backup.seen, backup.leaves
        there = {run.run_id: run for run in self.runs}
        # What was erased and is not even there any more opens no more than the rest.
        later = [(run, None) for run, _ in self.pending if run.run_id not in there]
        self.pending = [(there[run], told) for run, told in backup.pending if run in there]
        self.pending += later
        await self._come_back()
        for item in backup.erased:
            if item.run is None:
                self._unsee({row["run_id"] for row in await self._rows_of(item.log)}, item.log)
        await self._erase_again(backup.erased, there)
        self.restores += 1

    async def _erase_again(self, erased: list[_Erasure], there: dict[RunId, RunModel]) -> None:
        """The replay: of runs that go on or are held again it says so, and does all the others."""
        eraser = self.place.eraser.eraser
        # A log that began after the backup and was deleted is not there again.
        erased = [item for item in erased if item.run is not None or item.log in self.tenants]
        logs = {item.log for item in erased if item.run is None}
        named = {item.run for item in erased}
        touched = [run for run in there.values() if run.run_id in named or run.tenant_id in logs]
        blocked = [run for run in touched if run.is_held or not run.is_over]
        if blocked and any(self._is_undone(item, there) for item in erased):
            with suppress(ErasureRefusedError):
                await eraser.replay()
        for run in blocked:
            await self._settle(run)
        expected = 0
        for item in erased:
            if item.run is not None and self._is_undone(item, there):
                expected += 1
                self._thin(there[item.run], item)
        expected += len(logs)
        count = await eraser.replay()
        assert blocked or count == expected, (count, expected)
        assert await eraser.replay() == 0
        for log in logs:
            await self._forget(self.tenants.index(log), None)

    @staticmethod
    def _is_undone(item: _Erasure, there: dict[RunId, RunModel]) -> bool:
        """Whether something that it took is there again."""
        run = None if item.run is None else there.get(item.run)
        if run is None:
            return item.run is None
        if item.taken is None:
            return not run.is_deleted
        return any(
            seq < len(run.records)
            and name in run.records[seq].fields
            and name not in run.erased[seq]
            for seq, name in item.taken
        )

    def _thin(self, run: RunModel, item: _Erasure) -> None:
        if item.taken is None:
            run.delete()
        else:
            run.erase(frozenset(name for _, name in item.taken))
        self.pending.append((run, None))

    # Parts of these

    async def _rows_of(self, log: TenantId) -> list[asyncpg.Record]:
        query = "SELECT DISTINCT run_id FROM record WHERE tenant_id = $1"
        return list(await self.place.superuser.fetch(query, log))

    def was_erased(self, run: RunModel, fields: frozenset[str] | None) -> None:
        if self.backup is not None:
            taken = None if fields is None else frozenset(run.left(fields))
            item = _Erasure(log=run.tenant_id, run=run.run_id, taken=taken)
            self.backup.erased.append(item)

    async def end_keys(self) -> None:
        """A copy from before that is dark: it is of no use any more."""
        await super().end_keys()
        self.backup = None

    async def _settle(self, run: RunModel) -> None:
        """The run ends, and nobody holds it."""
        if not run.is_over:
            if not owned(run):
                await self.take_over(run, self.seats[0])
            await self.finish(run, speaks=False)
        if run.is_held:
            await self.hold_or_release(run)

    def _vacate(self, seat: Seat) -> None:
        """The process is gone, and nobody comes in its place."""
        seat.line.cut()
        self.seats.remove(seat)
        for run in self.runs:
            if run.seat is seat:
                run.disown()

    async def _all_stop(self, *, says_goodbye: bool = True) -> None:
        for seat in list(self.seats):
            self._vacate(seat)
        await self.place.move_out(says_goodbye=says_goodbye)

    async def _come_back(self) -> None:
        await self.place.open()
        self.seats.append(await self.place.seat())
        self.is_fresh = False


def _copy(run: RunModel) -> RunModel:
    return replace(
        run,
        records=list(run.records),
        maybe=[],
        late=None,
        seat=None,
        recorder=None,
        erased=deepcopy(run.erased),
    )
