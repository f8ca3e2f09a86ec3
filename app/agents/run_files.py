"""What the agent loop asks of whoever has the files of its run."""

from typing import Protocol

from app.sandbox.workspace import Workspace


class RunFiles(Protocol):
    """The workspace of a run, and whoever keeps what is in it."""

    async def workspace(self) -> Workspace:
        """Opened when the first tool needs it; the same one every time."""

    async def keep(self) -> None:
        """Make the files durable as they are, before the call that changed them is answered for.

        Raises a LedgerError when it could not: the caller must not go on.
        """
