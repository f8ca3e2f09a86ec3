"""Which endpoints get how many of the free turns, so that a dead receiver delays nobody else. Pure.

One turn to each tenant before anybody's second, never more than a part to one tenant; endpoints
that could not be reached get one turn at a time, out of a part that leaves room for all others.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.domain.run import TenantId
from app.domain.webhook import EndpointId
from app.storage.webhook_store import Due


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLimits:
    """How many deliveries are on their way at a time, from one process."""

    at_once: int = 64
    of_a_tenant: int = 8
    of_an_endpoint: int = 4
    failing: int = 32
    failing_of_a_tenant: int = 4


class FairTurns:
    """Counts what is under way and shares out what is free."""

    def __init__(self, limits: TurnLimits) -> None:
        self._limits = limits
        self._under_way: list[Due] = []

    def begin(self, item: Due) -> None:
        """A delivery to this endpoint is on its way."""
        self._under_way.append(item)

    def end(self, item: Due) -> None:
        """It is not any more."""
        self._under_way.remove(item)

    def share(self, due: Sequence[Due]) -> Mapping[TenantId, Mapping[Due, int]]:
        """So many turns for each endpoint. Whoever has the least under way is asked first."""
        count = _Counts(self._limits, self._under_way)
        waiting: dict[TenantId, deque[Due]] = defaultdict(deque)
        for item in sorted(due, key=lambda item: item.failing):
            waiting[item.tenant_id].append(item)
        given: dict[TenantId, Counter[Due]] = defaultdict(Counter)
        turn = sorted(waiting, key=lambda tenant: count.of_tenant[tenant])
        while turn:
            turn = [tenant for tenant in turn if _gives(tenant, waiting[tenant], count, given)]
        return given


class _Counts:
    def __init__(self, limits: TurnLimits, under_way: Sequence[Due]) -> None:
        self._limits = limits
        self._all = 0
        self._failing = 0
        self.of_tenant: Counter[TenantId] = Counter()
        self._failing_of: Counter[TenantId] = Counter()
        self._of_endpoint: Counter[EndpointId] = Counter()
        for item in under_way:
            self.add(item)

    def add(self, item: Due) -> None:
        self._all += 1
        self._failing += item.failing
        self.of_tenant[item.tenant_id] += 1
        self._failing_of[item.tenant_id] += item.failing
        self._of_endpoint[item.endpoint_id] += 1

    def has_room(self, item: Due) -> bool:
        limits, tenant = self._limits, item.tenant_id
        if self._all >= limits.at_once or self.of_tenant[tenant] >= limits.of_a_tenant:
            return False
        if not item.failing:
            return self._of_endpoint[item.endpoint_id] < limits.of_an_endpoint
        return (
            self._failing < limits.failing
            and self._failing_of[tenant] < limits.failing_of_a_tenant
            and self._of_endpoint[item.endpoint_id] == 0
        )


def _gives(
    tenant: TenantId,
    items: deque[Due],
    count: _Counts,
    given: dict[TenantId, Counter[Due]],
) -> bool:
    """One turn to the first endpoint of the tenant that has room; whether there was one."""
    for _ in range(len(items)):
        item = items.popleft()
        if count.has_room(item):
            count.add(item)
            given[tenant][item] += 1
            items.append(item)
            return True
    return False
