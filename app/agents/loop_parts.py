"""What the loop of an agent works with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.agents.journal import Journal
from app.agents.model_retry import RetryParts
from app.agents.prompts import NO_MARKS, RunMarks
from app.policy.gate import DascGate
from app.providers.prices import ModelPrice
from app.providers.provider import ModelProvider
from app.sandbox.workspace import Workspace
from app.tools.toolbox import Toolbox


class RunFiles(Protocol):
    """The workspace of a run, and whoever keeps what is in it."""

    async def workspace(self) -> Workspace:
        """Opened when the first tool needs it; the same one every time."""

    async def keep(self) -> None:
        """Make the files durable as they are, before the call that changed them is answered for.

        Raises a LedgerError when it could not: the caller must not go on.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopParts:
    """What a run works with."""

    gate: DascGate
    provider: ModelProvider
    price: ModelPrice
    toolbox: Toolbox
    files: RunFiles
    journal: Journal
    monotonic: Callable[[], float]
    model_timeout_seconds: float
    marks: RunMarks = NO_MARKS
    retry: RetryParts
