"""Montys that wait, without the runner around them: one zygote, one worker for each text."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.execution import EngineName, ExecLimits, ExecResult
from app.sandbox.python_engine import installed_monty
from app.sandbox.sandbox_profile import SandboxProfile
from app.sandbox.waiting_monty import WaitingMonty
from app.sandbox.zygote_configuration import ZygoteConfiguration
from app.sandbox.zygote_link import ZygoteLink
from tests.support.escape_scene import worker_account


@asynccontextmanager
async def zygote_of_monty(mode: SandboxMode = SandboxMode.STRICT) -> AsyncIterator[ZygoteLink]:
    """A zygote as the runner starts one."""
    found = installed_monty()
    assert not found.problem, found.problem
    link = await ZygoteLink.start(
        ZygoteConfiguration(
            engine=EngineName.MONTY,
            profile=SandboxProfile(mode=mode).for_engine(EngineName.MONTY),
            account=worker_account(),
            interpreter=found.path,
        )
    )
    try:
        yield link
    finally:
        await link.close()


async def waiting_in(link: ZygoteLink, **limits: Any) -> WaitingMonty:
    """One that is ready."""
    waiting = WaitingMonty(link, ExecLimits(**limits))
    assert await waiting.warmed()
    return waiting


async def answered(link: ZygoteLink, text: str, **limits: Any) -> ExecResult | None:
    """What one that was made for this text says, whatever names are in it."""
    return await (await waiting_in(link, **limits)).run(text)
