"""A courier and a desk on a real database, a receiver on loopback, and runs to be told of."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import asyncpg

from app.domain.run import RunStatus, TenantId, Usage
from app.domain.webhook import (
    Delivery,
    EndpointContent,
    EndpointId,
    LiveSecret,
    SealedEndpoint,
    WebhookEvent,
)
from app.egress.egress_client import EgressClient
from app.egress.url_blocklist import UrlBlocklist
from app.egress.url_policy import HostRules, UrlPolicy
from app.keys.key_store import FileKeyStore
from app.storage.companions import Change
from app.storage.database import Database
from app.storage.webhook_store import WebhookStore
from app.webhooks.courier import RETENTION, Courier, CourierParts
from app.webhooks.endpoint_vault import EndpointVault
from app.webhooks.fair_turns import TurnLimits
from app.webhooks.webhook_key_turn import WebhookKeyTurn
from tests.integration.storage.append_scene import Author, Scene, ending, scene_on
from tests.support.databases import Roles, connect
from tests.support.egress_field import Field, egress_field
from tests.support.egress_tls import field_tls
from tests.support.webhook_receiver import Receiver, webhook_receiver

POLICY = UrlPolicy(
    hosts=HostRules(any_host=True),
    blocklist=UrlBlocklist(),
    methods=frozenset({"POST"}),
    schemes=frozenset({"https"}),
)
KEY = b"k" * 32
EVERYTHING = tuple(WebhookEvent)


@dataclass(kw_only=True)
class Clock:
    """A monotonic clock that the test moves."""

    at: float = 1000.0

    def __call__(self) -> float:
        return self.at


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """All of it, running."""

    scene: Scene
    roles: Roles
    store: WebhookStore
    vault: EndpointVault
    keys: FileKeyStore
    egress: EgressClient
    net: Field
    receiver: Receiver
    database: Database
    clock: Clock = field(default_factory=Clock)

    def courier(
        self, limits: TurnLimits | None = None, retention: timedelta = RETENTION
    ) -> Courier:
        """A courier as one more process would have it."""
        return Courier(
            CourierParts(
                store=self.store,
                vault=self.vault,
                egress=self.egress,
                policy=POLICY,
                now=lambda: datetime.now(UTC),
                monotonic=self.clock,
                unit=lambda: 0.5,
                new_claim=uuid4,
                turn_keys=self.turn_keys,
                limits=limits or TurnLimits(),
                retention=retention,
            )
        )

    async def turn_keys(self) -> int:
        """As a courier does it."""
        turn = WebhookKeyTurn(
            store=self.store, vault=self.vault, keys=self.keys, now=lambda: datetime.now(UTC)
        )
        return await turn.turn()

    async def endpoint(
        self,
        path: str = "/ok",
        *,
        tenant_id: TenantId | None = None,
        events: Sequence[WebhookEvent] = EVERYTHING,
        older: Sequence[LiveSecret] = (),
        sealed_at: datetime | None = None,
    ) -> SealedEndpoint:
        """An enabled endpoint of a tenant, without a record of it."""
        whose, endpoint_id = tenant_id or self.scene.tenant_id, EndpointId(uuid4())
        content = EndpointContent(
            url=path if "://" in path else f"https://www.allowed.example{path}",
            secrets=(LiveSecret(key=KEY, until=None), *older),
        )
        now = datetime.now(UTC)
        kek_id, sealed = await self.vault.seal(whose, endpoint_id, content, sealed_at or now)
        made = SealedEndpoint(
            tenant_id=whose,
            endpoint_id=endpoint_id,
            events=tuple(events),
            enabled=True,
            reason=None,
            version=1,
            kek_id=kek_id,
            sealed=sealed,
            created_at=now,
            updated_at=now,
        )
        return await self.store.register(made, 10_000)

    async def run(self, status: RunStatus = RunStatus.SUCCEEDED) -> Author:
        """A run that was queued, ran and ended."""
        author = await self.scene.begun()
        running = Change(status=RunStatus.RUNNING, usage=Usage())
        await self.scene.write(author, author.seal(), running)
        sealed = author.seal()
        await self.scene.write(author, sealed, ending(author, sealed, status))
        return author

    async def tenant(self, name: str) -> TenantId:
        """Another tenant."""
        return await self.scene.runs.ensure_tenant(name)

    async def told(self, endpoint: SealedEndpoint) -> list[Delivery]:
        """The log of deliveries, the oldest first."""
        place = (endpoint.tenant_id, endpoint.endpoint_id)
        return (await self.store.deliveries(*place, None, 1000))[::-1]

    async def execute(self, statement: str, *arguments: object) -> None:
        """As the superuser: time passes, or somebody interferes."""
        raw = await connect(self.roles.superuser)
        try:
            await raw.execute(statement, *arguments)
        finally:
            await raw.close()

    async def fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """As the superuser."""
        raw = await connect(self.roles.superuser)
        try:
            return list(await raw.fetch(statement, *arguments))
        finally:
            await raw.close()

    async def all_due(self) -> None:
        """Let every wait be over."""
        await self.execute("UPDATE webhook_delivery SET due_at = now() WHERE state = 'pending'")


@asynccontextmanager
async def hooks_on(roles: Roles) -> AsyncIterator[Hooks]:
    """One tenant, on a database that nobody else uses: a courier delivers whatever is due in it."""
    server_tls, trusted = field_tls()
    async with AsyncExitStack() as stack:
        scene = await stack.enter_async_context(scene_on(roles))
        around = await stack.enter_async_context(egress_field(server_tls, trusted))
        receiver = await stack.enter_async_context(webhook_receiver(server_tls))
        around.secure.port = receiver.port
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="mf-hooks-")))
        egress = EgressClient(parts=around.parts)
        stack.push_async_callback(egress.close)
        keys = FileKeyStore(directory / "keys", os.urandom)
        yield Hooks(
            scene=scene,
            roles=roles,
            store=WebhookStore(scene.database),
            vault=EndpointVault(keys),
            keys=keys,
            egress=egress,
            net=around,
            receiver=receiver,
            database=scene.database,
        )
