"""Approvals and decisions on them as callers see them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.entry_views import CallView, Moment, View
from app.api.run_requests import Text
from app.domain.approval import ApprovalRow, ApprovalState, public_approval_id
from app.domain.run import public_run_id
from app.runs.approval_desk import ApprovalCard

_EXAMPLE_DIGEST = "0f" * 32


class ApprovalDecision(BaseModel):
    """A decision, bound to the digest of the action that was shown."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        json_schema_extra={
            "example": {
                "decision": "approve",
                "digest": _EXAMPLE_DIGEST,
                "comment": "As agreed on the phone.",
            }
        },
    )

    decision: Literal["approve", "deny"]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    comment: Annotated[Text, Field(max_length=1000)] | None = None


class ApprovalSummary(View):
    """A call that waits for a decision, or waited for one. Its arguments are scrubbed.

    `status` is `used` when the approved call was begun, `void` when it came to nothing.
    """

    id: str
    run_id: str
    agent: str | None
    status: ApprovalState
    call: CallView | None
    digest: str
    rules: list[str]
    reason: str | None
    requested_seq: int
    requested_at: Moment
    expires_at: Moment
    decided_at: Moment | None


class ApprovalView(ApprovalSummary):
    """One approval, from the verified ledger of its run.

    `in_clear`: the arguments are as the model proposed them, which is recorded; it takes the scope
    `approve` and lasts while the call waits. `digest` is what a decision has to name.
    """

    in_clear: bool
    requested_by: str
    decided_by: str | None
    comment: str | None


class ApprovalPage(View):
    """A page of approvals, newest first."""

    data: list[ApprovalSummary]
    has_more: bool
    next_cursor: str | None


def approval_view(card: ApprovalCard) -> ApprovalView:
    """A card as shown to one who asked for it."""
    return ApprovalView(
        **_summary(card.row, card),
        in_clear=card.in_clear,
        requested_by=card.asked.requested_by,
        decided_by=card.asked.decided_by,
        comment=card.comment,
    )


def approval_summary(row: ApprovalRow, card: ApprovalCard | None) -> ApprovalSummary:
    """As shown in lists; without a card when the run's ledger does not verify."""
    return ApprovalSummary(**_summary(row, card))


def approval_tag(card: ApprovalCard) -> str:
    """The entity tag of an approval: what is to be decided, and how far it is."""
    return f'"{card.asked.digest.hex()}.{card.asked.state.value}"'


def _summary(row: ApprovalRow, card: ApprovalCard | None) -> dict[str, object]:
    call = None if card is None or card.call is None else CallView.model_validate(card.call)
    return {
        "id": public_approval_id(row.approval_id),
        "run_id": public_run_id(row.run_id),
        "agent": row.agent,
        "status": row.state if card is None else card.asked.state,
        "call": call,
        "digest": row.digest.hex() if card is None else card.asked.digest.hex(),
        "rules": [] if card is None else list(card.rules),
        "reason": None if card is None else card.code,
        "requested_seq": row.seq,
        "requested_at": row.created_at,
        "expires_at": row.expires_at if card is None else card.asked.expires_at,
        "decided_at": row.decided_at,
    }
