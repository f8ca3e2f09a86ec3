"""The sequencer's tick: puts committed records into the logs of their tenants, each once.

It reads only transactions below the horizon, where none can still commit, so a serial number that
was taken early and committed late is never missed. Leaves, tiles, heads and the watermark are one
transaction: a crash at any point leaves either all of it or nothing.

Threat: Ledger tampering
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from app.domain.run import TenantId
from app.sequencing.integration_plan import Plan, Planner
from app.storage.log_store import read_head, read_tiles
from app.storage.sequencer_store import Growth, Horizon, Leader, NewLeaf, PendingBatch
from app.transparency.tiles import TileAddress, Tiles, edge_addresses, grown, root_from

_log = logging.getLogger("meshflow.sequencer")

# Both bound memory and the length of a transaction; a batch holds up to some hundred records.
BATCHES_AT_ONCE = 1000
RECORDS_AT_ONCE = 8000
_KNOWN_LOGS = 1024
_INLINE_RECORDS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """What one tick did. `has_more`: it stopped at its bound, not at the horizon."""

    leaves: int
    left_out: int
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edge:
    origin: str
    size: int
    tiles: Tiles


class Sequencer:
    """Integrates for one leader. Made anew with each term: what it remembers dies with it."""

    def __init__(self, leader: Leader, planner: Planner, origin_of: Callable[[bytes], str]) -> None:
        self._leader = leader
        self._planner = planner
        self._origin_of = origin_of
        self._edges: dict[bytes, _Edge] = {}

    @classmethod
    async def start(
        cls, leader: Leader, enrolment: Collection[bytes], origin_of: Callable[[bytes], str]
    ) -> "Sequencer":
        """A sequencer that knows which runs are left out."""
        return cls(leader, Planner(enrolment, await leader.left_out()), origin_of)

    async def tick(self) -> Tick:
        """Integrate what is settled. StaleTermError when somebody else leads; else durable."""
        leader = self._leader
        horizon = await leader.horizon()
        if not _continues(leader, horizon):
            return await self._search(horizon)
        batches = await leader.batches(leader.watermark, horizon.settled, BATCHES_AT_ONCE + 1)
        batches, watermark = await self._whole(batches, horizon)
        if not batches:
            if watermark != leader.watermark:
                await self._write(Plan(), horizon, watermark)
            return Tick(leaves=0, left_out=0, has_more=False)
        plan = await self._plan(batches, may_defer=False)
        await self._write(plan, horizon, watermark)
        return _told(plan, has_more=watermark < horizon.settled)

    async def _whole(
        self, batches: list[PendingBatch], horizon: Horizon
    ) -> tuple[list[PendingBatch], int]:
        """Whole transactions only, and up to where they reach."""
        few = _few(batches)
        if len(few) == len(batches):
            return batches, horizon.settled
        cut = batches[len(few)].xid
        kept = [batch for batch in few if batch.xid < cut]
        if not kept:  # one transaction beyond the bound: it is taken as a whole
            kept = await self._leader.batches(cut, cut + 1, 1 << 31)
            cut += 1
        return kept, cut

    async def _search(self, horizon: Horizon) -> Tick:
        """Find what is missing without a watermark, on a server that numbers anew.

        The new watermark is the horizon from before the search, so what commits meanwhile is met
        again in the ordinary way.
        """
        _log.warning("another server, or one that was set back: searching without a watermark")
        waiting = await self._leader.stray_batches()
        leaves = left_out = 0
        is_last = False
        while True:
            late: list[PendingBatch] = []
            before = len(waiting)
            while waiting:
                few = _few(waiting)
                waiting = waiting[len(few) :]
                plan = await self._plan(few, may_defer=not is_last)
                late += plan.deferred
                await self._write(plan, None, None)
                leaves, left_out = leaves + plan.count, left_out + len(plan.left_out)
            if not late:
                break
            is_last, waiting = len(late) == before, late
        await self._write(Plan(), horizon, horizon.settled)
        return Tick(leaves=leaves, left_out=left_out, has_more=False)

    async def _plan(self, batches: Sequence[PendingBatch], *, may_defer: bool) -> Plan:
        places = {item.place for batch in batches for item in batch.ranges}
        records = await self._leader.records(batches)
        next_seqs = await self._leader.next_seqs(places)
        if len(batches) + sum(map(len, records.values())) <= _INLINE_RECORDS:
            return self._planner.plan(batches, records, next_seqs, may_defer=may_defer)
        # Signatures of many batches take long enough to be felt by whoever shares this loop.
        return await asyncio.to_thread(
            self._planner.plan, batches, records, next_seqs, may_defer=may_defer
        )

    async def _write(self, plan: Plan, horizon: Horizon | None, watermark: int | None) -> None:
        leader = self._leader
        try:
            growths = [await self._growth(log, leaves) for log, leaves in plan.leaves.items()]
            await leader.integrate(
                growths,
                plan.left_out,
                system_identifier=(
                    leader.system_identifier if horizon is None else horizon.system_identifier
                ),
                watermark=leader.watermark if watermark is None else watermark,
            )
        except BaseException:
            self._edges.clear()  # they are those of leaves that are not stored
            raise
        for item in plan.left_out:
            _log.error("a run goes no further into its log: %s", item.reason)

    async def _growth(self, log: bytes, leaves: Sequence[NewLeaf]) -> Growth:
        edge = self._edges.pop(log, None) or await self._edge(log)
        tiles = grown(edge.size, edge.tiles, [leaf.hash for leaf in leaves])
        size = edge.size + len(leaves)
        known: dict[TileAddress, bytes] = {**edge.tiles, **tiles}
        if len(self._edges) >= _KNOWN_LOGS:
            self._edges.pop(next(iter(self._edges)))
        kept = {place: known[place] for place in edge_addresses(size)}
        self._edges[log] = _Edge(origin=edge.origin, size=size, tiles=kept)
        return Growth(
            log=log,
            origin=edge.origin,
            size=edge.size,
            leaves=leaves,
            tiles=tiles,
            root=root_from(size, known),
        )

    async def _edge(self, log: bytes) -> _Edge:
        raw, tenant_id = self._leader.raw, TenantId(UUID(bytes=log))
        head = await read_head(raw, tenant_id)
        if head is None:
            return _Edge(origin=self._origin_of(log), size=0, tiles={})
        tiles = await read_tiles(raw, tenant_id, edge_addresses(head.size))
        return _Edge(origin=head.origin, size=head.size, tiles=tiles)


def _continues(leader: Leader, horizon: Horizon) -> bool:
    """Whether the watermark is one of this server's own numbers, not set back since."""
    return (
        leader.system_identifier == horizon.system_identifier
        and leader.watermark <= horizon.settled
    )


def _few(batches: Sequence[PendingBatch]) -> Sequence[PendingBatch]:
    """The first of them, at least one, as many as are integrated at once."""
    records = 0
    for at, batch in enumerate(batches[:BATCHES_AT_ONCE]):
        records += batch.count
        if at and records > RECORDS_AT_ONCE:
            return batches[:at]
    return batches[:BATCHES_AT_ONCE]


def _told(plan: Plan, *, has_more: bool) -> Tick:
    return Tick(leaves=plan.count, left_out=len(plan.left_out), has_more=has_more)
