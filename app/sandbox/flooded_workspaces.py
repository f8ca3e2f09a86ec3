"""Looks, after a call, whether its workspace holds too much, and has it emptied when it does.

The caller waits for the look, and for the workspace to be empty again, never for what was in it to
be taken apart: that may take longer than the call might. Calls wait while too much is set aside.

Threat: Privilege escalation via tool calls
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from app.domain.errors import ToolError
from app.sandbox.execution import ExecLimits, LentWorkspace
from app.sandbox.workspace_quota import exceeds_quota, wipe

_log = logging.getLogger(__name__)
_MOST_SET_ASIDE: Final = 16


class FloodedWorkspaces:
    """What is being taken apart now. Belongs to one event loop."""

    def __init__(self, most: int = _MOST_SET_ASIDE) -> None:
        self._most = most
        self._under_way: set[asyncio.Future[None]] = set()

    async def room(self) -> None:
        """Until less than the most is set aside: a flood is paid for before the next."""
        while len(self._under_way) >= self._most:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    async def emptied_when_over(
        self, held: int, lent: LentWorkspace | None, limits: ExecLimits
    ) -> bool:
        """Whether the workspace held too much, or could not be counted; it was then emptied.

        Closes `held`. Without `lent` it is emptied in place, however long that takes.
        """
        is_over, take_apart = await asyncio.to_thread(_looked, held, lent, limits)
        if take_apart is not None:
            removal = asyncio.ensure_future(asyncio.to_thread(_taken_apart, take_apart))
            self._under_way.add(removal)
            removal.add_done_callback(self._under_way.discard)
        return is_over

    def close(self) -> None:
        """Wait for nothing: what is under way ends with the workspaces."""
        for removal in self._under_way:
            removal.cancel()


def _looked(
    held: int, lent: LentWorkspace | None, limits: ExecLimits
) -> tuple[bool, Callable[[], None] | None]:
    try:
        is_over = _is_over(held, limits)
        return is_over, _renewed(held, lent) if is_over else None
    finally:
        os.close(held)


def _is_over(held: int, limits: ExecLimits) -> bool:
    with suppress(OSError):
        return exceeds_quota(
            held, total_bytes=limits.workspace_bytes, entries=limits.workspace_entries
        )
    return True


def _renewed(held: int, lent: LentWorkspace | None) -> Callable[[], None] | None:
    """An empty workspace, and what takes the flooded one apart, when that is still to be done."""
    if lent is not None:
        try:
            return lent.renew(held)
        except ToolError as refused:
            _log.error("a workspace over its quota could not be set aside: %s", refused)
    _taken_apart(lambda: wipe(held))
    return None


def _taken_apart(take_apart: Callable[[], None]) -> None:
    try:
        take_apart()
    except OSError as refused:
        _log.error("a workspace over its quota could not be emptied (errno %s)", refused.errno)
