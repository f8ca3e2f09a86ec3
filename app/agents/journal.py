"""What the agent loop asks of whoever writes the ledger."""

from typing import Protocol

from app.domain.record import RunEvent
from app.domain.run import Usage


class Journal(Protocol):
    """The ledger of one run, seen from the loop.

    `record` MUST be durable when it returns; the loop acts only on what is recorded.
    """

    def hold(self, event: RunEvent) -> None:
        """Record this with whatever comes next, in the same transaction and before it."""

    def ask(self, tool: str, action: bytes, expires_seconds: int) -> None:
        """Hold the request that somebody decide on the call held last, bound to this action."""

    def digest(self, action: bytes) -> bytes:
        """The keyed digest of an action, as an approval is bound to it."""

    async def record(self, event: RunEvent, usage: Usage) -> int:
        """Make what is held and then `event` durable; the seq of `event`.

        Raises a LedgerError when it could not: the caller must not act.
        """
