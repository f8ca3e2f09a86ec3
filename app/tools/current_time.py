"""What time it is, from the deployment's clock."""

from collections.abc import Callable
from datetime import UTC, datetime

from app.domain.label import Confidentiality, Integrity, Label
from app.domain.run import JsonObject
from app.domain.step import Effect, ToolSpec
from app.sandbox.workspace import Workspace
from app.tools.toolbox import ClosedArguments, closed_schema, parse_arguments


class _NoArguments(ClosedArguments):
    """It asks for nothing."""


class CurrentTime:
    """Tells the time in UTC; touches nothing."""

    spec = ToolSpec(
        name="current_time",
        description="The current date and time in UTC, as RFC 3339.",
        effect=Effect.NONE,
        parameters=closed_schema(_NoArguments),
        # Nobody who writes to the model has a hand in it.
        labels={"": Label(integrity=Integrity.TOOL, confidentiality=Confidentiality.PUBLIC)},
        argument_limit_bytes=1024,
        result_limit_bytes=1024,
        timeout_seconds=1.0,
    )

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    async def run(self, arguments: JsonObject, workspace: Workspace) -> str:
        """The time to the second, with Z. ToolError for arguments: it has none."""
        del workspace  # it needs none
        parse_arguments(_NoArguments, arguments)
        return self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
