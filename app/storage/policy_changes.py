"""What an append brings with it to change a tenant's policies: versions, and which is in force."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from app.domain.run import Json, RunId

POLICY_OPS = frozenset({"policy.put", "policy.activate", "policy.confirm"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PutPolicy:
    """Companion: the next version of a policy. Refused unless it is the next one, and new."""

    policy_id: str
    version: int
    digest: str
    body: bytes
    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivatePolicy:
    """Companion: a version is to be in force; at once, unless another key has to confirm it.

    `base`: the digest of what is in force as this was judged. Refused when that is another by now.
    """

    activation_id: UUID
    policy_id: str
    version: int
    base: str | None
    needs_second: bool
    loosened: Sequence[str]
    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPolicy:
    """Companion: another key confirms what waits for it. Refused for the key that asked for it."""

    activation_id: UUID
    policy_id: str
    base: str | None
    by: str
    at: datetime


PolicyChange = PutPolicy | ActivatePolicy | ConfirmPolicy


def policy_change_json(run_id: RunId, item: PolicyChange) -> dict[str, Json]:
    """The companion as `policy_keep` takes it."""
    about: dict[str, Json] = {
        "run_id": str(run_id),
        "policy_id": item.policy_id,
        "by": item.by,
        "at": item.at.isoformat(),
    }
    match item:
        case PutPolicy():
            return {
                **about,
                "op": "policy.put",
                "version": item.version,
                "digest": item.digest,
                "body": b64encode(item.body).decode("ascii"),
            }
        case ActivatePolicy():
            return {
                **about,
                "op": "policy.activate",
                "activation_id": str(item.activation_id),
                "version": item.version,
                "base": item.base,
                "needs_second": item.needs_second,
                "loosened": [*item.loosened],
            }
        case ConfirmPolicy():
            return {
                **about,
                "op": "policy.confirm",
                "activation_id": str(item.activation_id),
                "base": item.base,
            }
