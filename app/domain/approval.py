"""The words of approvals: a call waits for somebody's decision, and the decision is good once.

Threat: Privilege escalation via tool calls
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType
from uuid import UUID

from app.domain.run import RunId, TenantId

ApprovalId = NewType("ApprovalId", UUID)

_PUBLIC_ID = re.compile(r"apr_[0-9a-f]{32}", re.ASCII)


class ApprovalState(StrEnum):
    """Where an approval is. `used`: the approved call was begun, and it is good for nothing more.

    `void`: it came to nothing, with its run or because the call, its label or the policy changed.
    """

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    VOID = "void"
    USED = "used"


# From a state to every state that may follow it. An approved call of a tool that may be made again
# is `used` again: nothing but the same call can be.
APPROVAL_TRANSITIONS: Final[Mapping[ApprovalState, frozenset[ApprovalState]]] = {
    ApprovalState.PENDING: frozenset(
        {
            ApprovalState.APPROVED,
            ApprovalState.DENIED,
            ApprovalState.EXPIRED,
            ApprovalState.VOID,
        }
    ),
    ApprovalState.APPROVED: frozenset({ApprovalState.USED, ApprovalState.VOID}),
    ApprovalState.DENIED: frozenset(),
    ApprovalState.EXPIRED: frozenset(),
    ApprovalState.VOID: frozenset(),
    ApprovalState.USED: frozenset({ApprovalState.USED}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRow:
    """An approval as stored beside the ledger. Holds no content.

    `digest`: the keyed digest of the action that was judged; `seq`: where the run's ledger asks.
    """

    tenant_id: TenantId
    approval_id: ApprovalId
    run_id: RunId
    agent: str | None
    state: ApprovalState
    digest: bytes
    seq: int
    created_at: datetime
    expires_at: datetime
    decided_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalFilter:
    """Which approvals a list shows: those for which all that is named here holds."""

    state: ApprovalState | None = None
    agent: str | None = None
    run_id: RunId | None = None
    expires_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRules:
    """What the policy says of asking: how long, what a refusal does, and how many it takes."""

    expires_seconds: int = 900
    on_deny_stops: bool = False  # else the model is told, and the run goes on
    most_refused: int = 3


def public_approval_id(approval_id: ApprovalId) -> str:
    """`apr_` and 32 lower-case hex digits: what callers see."""
    return f"apr_{approval_id.hex}"


def parse_approval_id(text: str) -> ApprovalId | None:
    """The id behind a public one, or None when it is not in the one accepted form."""
    return ApprovalId(UUID(hex=text[4:])) if _PUBLIC_ID.fullmatch(text) else None
