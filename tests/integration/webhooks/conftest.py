"""A database for each test: a courier delivers for all tenants of its database."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.webhooks.webhook_scene import Hooks, hooks_on
from tests.support.databases import DatabaseServer


@pytest.fixture
async def hooks(postgres: DatabaseServer) -> AsyncIterator[Hooks]:
    """A courier's surroundings."""
    roles = await asyncio.to_thread(postgres.new_database)
    async with hooks_on(roles) as made:
        yield made
