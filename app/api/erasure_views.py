"""Requests to erase, receipts, holds and comparisons as callers see them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.api.entry_views import Moment, View
from app.audit.run_diff import Sameness, StepDiff
from app.domain.erasure import ErasureAction, ErasureReceipt, ErasureStatus, public_erasure_id
from app.domain.run import RunId, public_run_id

Code = Annotated[str, Field(pattern=r"^[a-z0-9_.:-]{1,64}$", examples=["gdpr.art17"])]
FieldName = Literal["task", "request", "reply", "call", "result", "output", "features", "note"]


class ErasureCreate(BaseModel):
    """A request to erase. `fields` only with `anonymize_run`; without them all content goes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "example": {
                "action": "anonymize_run",
                "run_id": "run_0198c5f07a7c7d2e8f60123456789abc",
                "fields": ["task", "output"],
                "legal_basis": "gdpr.art17",
                "request_ref": "privacy desk, ticket 4711",
            }
        },
    )

    action: Literal["anonymize_run", "delete_run"]
    run_id: Annotated[str, Field(pattern=r"^run_[0-9a-f]{32}$")]
    fields: Annotated[list[FieldName], Field(min_length=1, max_length=8)] | None = None
    legal_basis: Code
    request_ref: Annotated[
        str,
        Field(min_length=1, max_length=256, description="kept as a salted hash only"),
    ]


class HoldCreate(BaseModel):
    """Why nothing of the run may be erased."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"reason": "court_order"}}
    )

    reason: Code


class ErasureView(View):
    """A receipt. `pending`: gone from the database, but not yet from every old copy."""

    id: str
    action: ErasureAction
    status: ErasureStatus
    run_id: str | None
    fields: list[str] | None
    legal_basis: str
    requested_at: Moment
    executed_at: Moment | None
    due_at: Moment | None
    completed_at: Moment | None
    record_seq: int | None
    reason: str | None


class HoldView(View):
    """Whether a run may be erased."""

    run_id: str
    held: bool


class StepDiffView(View):
    """One position of two runs."""

    seq: int
    kind: str | None
    other_kind: str | None
    same: bool
    differs: list[str]
    fields: dict[str, Sameness]


class RunDiffView(View):
    """Two runs compared; no content is shown."""

    run_id: str
    other_id: str
    same: bool
    steps: list[StepDiffView]


def erasure_view(receipt: ErasureReceipt) -> ErasureView:
    """A receipt as shown."""
    request = receipt.request
    return ErasureView(
        id=public_erasure_id(request.erasure_id),
        action=request.action,
        status=receipt.status,
        run_id=None if request.run_id is None else public_run_id(request.run_id),
        fields=None if request.fields is None else list(request.fields),
        legal_basis=request.legal_basis,
        requested_at=request.requested_at,
        executed_at=receipt.executed_at,
        due_at=receipt.due_at,
        completed_at=receipt.completed_at,
        record_seq=receipt.record_seq,
        reason=receipt.reason,
    )


def diff_view(one: RunId, other: RunId, steps: tuple[StepDiff, ...]) -> RunDiffView:
    """A comparison as shown."""
    return RunDiffView(
        run_id=public_run_id(one),
        other_id=public_run_id(other),
        same=all(step.is_same for step in steps),
        steps=[
            StepDiffView(
                seq=step.seq,
                kind=step.kind,
                other_kind=step.other_kind,
                same=step.is_same,
                differs=list(step.differs),
                fields=dict(step.fields),
            )
            for step in steps
        ],
    )
