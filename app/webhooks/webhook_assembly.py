"""Builds what a process does for webhooks: the desk for its callers, and the courier."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.administration.admin_log import AdminLog
from app.egress.egress_client import EgressClient
from app.egress.url_policy import UrlPolicy
from app.keys.key_store import KeyStore
from app.storage.database import Database
from app.storage.webhook_store import WebhookStore
from app.webhooks.courier import Courier, CourierParts
from app.webhooks.endpoint_desk import DeskParts, EndpointDesk
from app.webhooks.endpoint_vault import EndpointVault
from app.webhooks.webhook_key_turn import WebhookKeyTurn

_UNIT_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSurroundings:
    """What webhooks share with the rest of their process."""

    database: Database
    keys: KeyStore
    egress: EgressClient
    policy: UrlPolicy
    admin_log: AdminLog
    now: Callable[[], datetime]
    monotonic: Callable[[], float]
    entropy: Callable[[int], bytes]
    new_id: Callable[[], UUID]


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhooks:
    """Both, of one process."""

    desk: EndpointDesk
    courier: Courier


def build_webhooks(around: WebhookSurroundings) -> Webhooks:
    """Nothing of it has reached for the database or the network."""
    store, vault = WebhookStore(around.database), EndpointVault(around.keys)

    def unit() -> float:
        return int.from_bytes(around.entropy(_UNIT_BYTES), "big") / (1 << 8 * _UNIT_BYTES)

    turn = WebhookKeyTurn(store=store, vault=vault, keys=around.keys, now=around.now)
    courier = Courier(
        CourierParts(
            store=store,
            vault=vault,
            egress=around.egress,
            policy=around.policy,
            now=around.now,
            monotonic=around.monotonic,
            unit=unit,
            new_claim=around.new_id,
            turn_keys=turn.turn,
        )
    )
    desk = EndpointDesk(
        DeskParts(
            store=store,
            vault=vault,
            egress=around.egress,
            policy=around.policy,
            admin_log=around.admin_log,
            nudge=courier.nudge,
            now=around.now,
            entropy=around.entropy,
            new_id=around.new_id,
        )
    )
    return Webhooks(desk=desk, courier=courier)
