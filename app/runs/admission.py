"""How many submissions may be on their way into the ledger at a time, in all and of one tenant.

Nothing waits here: one too many is told to come again before anything is done for it. A tenant
that sends more than its part is refused while others are let in.

Threat: Unauthorised API access
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from app.domain.errors import OverloadedError, TenantBusyError

MOST_IN_FLIGHT: Final = 2_048
MOST_OF_A_TENANT: Final = 1_024
_AGAIN_SECONDS: Final = 1  # a submission is recorded in a fraction of that, or the database is gone


class SubmissionRoom:
    """The room of one process."""

    def __init__(
        self, *, most: int = MOST_IN_FLIGHT, most_of_a_tenant: int = MOST_OF_A_TENANT
    ) -> None:
        self._most = most
        self._most_of_a_tenant = most_of_a_tenant
        self._count = 0
        self._of: Counter[str] = Counter()

    @contextmanager
    def taken(self, tenant: str) -> Iterator[None]:
        """Room for one submission. TenantBusyError, OverloadedError when there is none."""
        if self._of[tenant] >= self._most_of_a_tenant:
            raise TenantBusyError(_AGAIN_SECONDS)
        if self._count >= self._most:
            raise OverloadedError(_AGAIN_SECONDS)
        self._count += 1
        self._of[tenant] += 1
        try:
            yield
        finally:
            self._count -= 1
            self._of[tenant] -= 1
