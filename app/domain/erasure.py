"""The words of lawful erasure: what may be asked, by whom, and what the receipt then says."""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from app.domain.run import RunId, TenantId

ErasureId = NewType("ErasureId", UUID)

ERASURE_PREFIX = "ers_"
_PUBLIC_ID = re.compile(r"ers_[0-9a-f]{32}", re.ASCII)
LEGAL_BASIS = re.compile(r"[a-z0-9_.:-]{1,64}", re.ASCII)
# What a policy was decided on is not what anybody wrote: simulation may still count it.
KEPT_BY_ANONYMIZING = frozenset({"features"})


class ErasureAction(StrEnum):
    """How much is taken away."""

    ANONYMIZE_RUN = "anonymize_run"
    DELETE_RUN = "delete_run"
    DELETE_TENANT = "delete_tenant"


class ErasureStatus(StrEnum):
    """`pending`: gone from the database, but a key that opens old copies still exists."""

    REQUESTED = "requested"
    PENDING = "pending"
    COMPLETE = "complete"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRequest:
    """What somebody who may ask asks for. `fields` None: everything the action can take.

    `request_ref` is a salted hash: what the reference was cannot be found out again.
    """

    erasure_id: ErasureId
    tenant_id: TenantId  # whose records the erasure is told in: the operator's for a tenant
    log_id: TenantId  # whose data is taken away
    action: ErasureAction
    run_id: RunId | None
    fields: tuple[str, ...] | None
    legal_basis: str
    request_ref: bytes
    actor: str
    requested_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureReceipt:
    """A request and what became of it."""

    request: ErasureRequest
    status: ErasureStatus
    executed_at: datetime | None
    due_at: datetime | None  # when copies in backups go dark, or will at the latest
    completed_at: datetime | None
    record_run: RunId | None  # where the erasure itself is recorded
    record_seq: int | None
    reason: str | None  # why it was refused, as a code


def public_erasure_id(erasure_id: ErasureId) -> str:
    """`ers_` and 32 lower-case hex digits."""
    return f"{ERASURE_PREFIX}{erasure_id.hex}"


def parse_erasure_id(text: str) -> ErasureId | None:
    """The id behind a public one, or None when it is not in the one accepted form."""
    if _PUBLIC_ID.fullmatch(text) is None:
        return None
    return ErasureId(UUID(hex=text.removeprefix(ERASURE_PREFIX)))
