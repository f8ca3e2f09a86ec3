"""A database for each test: a courier delivers for all tenants of its database."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.webhooks import courier
from tests.integration.webhooks.webhook_scene import Hooks, hooks_on
from tests.support.databases import DatabaseServer


@pytest.fixture
async def hooks(postgres: DatabaseServer) -> AsyncIterator[Hooks]:
    """A courier's surroundings."""
    roles = await asyncio.to_thread(postgres.new_database)
    async with hooks_on(roles) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt ends by its deadline and no turn by its lease, however busy the machine is."""
    monkeypatch.setattr(courier, "DEADLINE_SECONDS", 3600.0)
    monkeypatch.setattr(courier, "LEASE_SECONDS", 4 * 3600)
    monkeypatch.setattr(courier, "_FAREWELL_SECONDS", 60.0)
