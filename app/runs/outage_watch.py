"""Says whether this process may take a silent one for dead, or was cut off itself.

After an outage of the database nobody has beaten for a while. Whoever comes back first would take
the runs of all others, and they are alive: it waits until they had the time to come back, too.
"""


class OutageWatch:
    """One process's heartbeats, by its own monotonic clock.

    `outage_seconds`: between two heartbeats, from so much on the others may look silent because of
    the very thing that kept this one from beating.
    """

    def __init__(self, *, lease_seconds: float, outage_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._outage_seconds = outage_seconds
        self._beaten_at: float | None = None
        self._judges_at = 0.0

    def beaten(self, now: float) -> None:
        """A heartbeat was written."""
        before, self._beaten_at = self._beaten_at, now
        if before is not None and now - before > self._outage_seconds:
            self._judges_at = now + self._lease_seconds / 2

    def may_judge(self, now: float) -> bool:
        """Whether who is silent is so for a reason of its own; never before the first heartbeat."""
        if self._beaten_at is None or now - self._beaten_at > self._outage_seconds:
            return False
        return now >= self._judges_at
