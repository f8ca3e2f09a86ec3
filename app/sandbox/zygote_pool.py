"""Keeps zygotes warm: one for each tenant and engine, replaced in time, never shared by tenants.

Threat: Privilege escalation via tool calls
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.domain.errors import ConfinementError
from app.sandbox.execution import EngineName
from app.sandbox.zygote_link import ZygoteLink

StartZygote = Callable[[EngineName], Awaitable[ZygoteLink]]
_Place = tuple[str, EngineName]


@dataclass(slots=True, kw_only=True, eq=False)
class Lease:
    """A zygote while calls use it. Given back with `ZygotePool.give_back`."""

    link: ZygoteLink
    calls: int = 0
    in_flight: int = 0
    is_retired: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """How long a zygote serves, and how many are kept."""

    calls_per_zygote: int = 200
    zygotes: int = 8


class ZygotePool:
    """Belongs to one event loop. `close` ends every zygote."""

    def __init__(self, start: StartZygote, limits: PoolLimits) -> None:
        self._start = start
        self._limits = limits
        self._leases: dict[_Place, Lease] = {}  # in the order of last use
        self._retired: set[Lease] = set()
        self._guards: dict[_Place, asyncio.Lock] = {}
        self._spare: dict[EngineName, asyncio.Task[ZygoteLink]] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def take(self, tenant_hex: str, engine: EngineName) -> Lease:
        """A zygote of this tenant alone. ConfinementError when none can be had."""
        place = (tenant_hex, engine)
        guard = self._guards.setdefault(place, asyncio.Lock())
        async with guard:
            lease = self._leases.pop(place, None)
            if lease is not None and (
                lease.link.is_lost or lease.calls >= self._limits.calls_per_zygote
            ):
                self._retire(lease)
                lease = None
            if lease is None:
                lease = Lease(link=await self._fresh(engine))
            if self._is_closed:
                self._retire(lease)
                raise ConfinementError("the worker pool is closed")
            self._leases[place] = lease
            lease.calls += 1
            lease.in_flight += 1
        self._make_room()
        return lease

    def give_back(self, lease: Lease) -> None:
        """The call is over; a zygote that was retired meanwhile ends with its last call."""
        lease.in_flight -= 1
        if lease.is_retired and not lease.in_flight:
            self._end(lease)

    def link_of(self, tenant_hex: str, engine: EngineName) -> ZygoteLink | None:
        """The zygote that the tenant's next call would have, if there is one already."""
        lease = self._leases.get((tenant_hex, engine))
        return None if lease is None else lease.link

    def warm(self, engine: EngineName) -> None:
        """Start a zygote that belongs to nobody yet, so that the next new tenant need not wait."""
        if not self._is_closed and engine not in self._spare:
            self._spare[engine] = asyncio.ensure_future(self._start(engine))

    async def close(self) -> None:
        """End every zygote and what runs in it. May be called again."""
        self._is_closed = True
        leases = [*self._leases.values(), *self._retired]
        self._leases.clear()
        self._retired.clear()
        spares = list(self._spare.values())
        self._spare.clear()
        for task in spares:
            task.cancel()
        links = [lease.link for lease in leases]
        ended = await asyncio.gather(*spares, return_exceptions=True)
        links += [found for found in ended if isinstance(found, ZygoteLink)]
        await asyncio.gather(*(link.close() for link in links), *self._endings)

    async def _fresh(self, engine: EngineName) -> ZygoteLink:
        spare = self._spare.pop(engine, None)
        if spare is None:
            return await self._start(engine)
        try:
            link = await asyncio.shield(spare)
        except asyncio.CancelledError:
            self._spare.setdefault(engine, spare)
            raise
        self.warm(engine)
        return link if not link.is_lost else await self._start(engine)

    def _make_room(self) -> None:
        """End the zygotes that were idle longest while there are too many."""
        for place, lease in list(self._leases.items()):
            if len(self._leases) <= self._limits.zygotes:
                return
            if not lease.in_flight:
                del self._leases[place]
                self._retire(lease)

    def _retire(self, lease: Lease) -> None:
        lease.is_retired = True
        if lease.in_flight:
            self._retired.add(lease)
        else:
            self._end(lease)

    def _end(self, lease: Lease) -> None:
        self._retired.discard(lease)
        ending = asyncio.ensure_future(lease.link.close())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
