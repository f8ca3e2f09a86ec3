"""What the loop of an agent works with."""

from collections.abc import Callable
from dataclasses import dataclass

from app.agents.journal import Journal
from app.agents.model_retry import RetryParts
from app.agents.prompts import NO_MARKS, RunMarks
from app.agents.run_files import RunFiles
from app.policy.gate import DascGate
from app.providers.prices import ModelPrice
from app.providers.provider import ModelProvider
from app.tools.toolbox import Toolbox


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
