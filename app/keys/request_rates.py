"""How many requests each key may make within a minute, over all processes of a deployment.

A process counts by itself and tells the database once a second, so a request costs no statement.
Between two tellings processes do not know of each other: a key may get through what all of them
let through in a second beyond its limit, and no more. Without the database each counts alone.

Threat: Unauthorised API access
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.keys.key_ring import KeyGrant

WINDOW_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What a request was told. `remaining` is after it; a refused request is not counted."""

    limit: int
    remaining: int
    reset_seconds: int
    is_allowed: bool

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """As the draft of the HTTP API working group writes them (ratelimit-headers, draft 11)."""
        policy = f'"key";q={self.limit};w={WINDOW_SECONDS}'
        state = f'"key";r={self.remaining};t={self.reset_seconds}'
        return (b"ratelimit-policy", policy.encode()), (b"ratelimit", state.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedUse:
    """The minute by the database's clock, what is left of it, and the counts in it by key."""

    minute: int
    left_seconds: int
    used: Mapping[str, int]


class RequestRates:
    """Counts requests by key. `now_seconds` is a monotonic clock."""

    def __init__(self, *, limit_of: Callable[[str], int], now_seconds: Callable[[], float]) -> None:
        self._limit_of = limit_of
        self._now = now_seconds
        self._minute = 0
        self._ends_at = 0.0
        self._shared: dict[str, int] = {}  # what all had counted when last told
        self._since: Counter[tuple[str, str]] = Counter()  # (tenant, key), not told yet
        self._told: Mapping[tuple[str, str], int] = {}  # on its way

    def take(self, grant: KeyGrant) -> Allowance:
        """Count one request of a key, or refuse it."""
        now = self._now()
        if now >= self._ends_at:
            self._begin(now + WINDOW_SECONDS)
        limit, key = self._limit_of(grant.tenant), (grant.tenant, grant.fingerprint)
        used = self._shared.get(grant.fingerprint, 0) + self._since[key] + self._told.get(key, 0)
        is_allowed = used < limit
        if is_allowed:
            self._since[key] += 1
        return Allowance(
            limit=limit,
            remaining=max(0, limit - used - is_allowed),
            reset_seconds=max(1, round(self._ends_at - now)),
            is_allowed=is_allowed,
        )

    def telling(self) -> Mapping[tuple[str, str], int]:
        """What was counted since the last time, by tenant and key: to be told now."""
        self._told, self._since = dict(self._since), Counter()
        return self._told

    def learn(self, shared: SharedUse | None) -> None:
        """The sums that the database answered with; None: it did not, and nothing was told."""
        told, self._told = self._told, {}
        if shared is None:
            self._since.update(told)
            return
        if shared.minute != self._minute:  # the minute is the database's
            self._minute = shared.minute
            self._shared.clear()
        self._ends_at = self._now() + shared.left_seconds
        self._shared.update(shared.used)

    def _begin(self, ends_at: float) -> None:
        self._ends_at = ends_at
        self._shared.clear()
        self._since.clear()
        self._told = {}
