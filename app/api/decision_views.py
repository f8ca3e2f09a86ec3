"""Decisions of the gate as readers of entries see them, made from verified records."""

from pydantic import BaseModel, ConfigDict, ValidationError

from app.ledger.chain import VerifiedRecord


class _Shown(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LabelView(_Shown):
    """How far all that the model had seen is to be trusted, and who may learn it."""

    integrity: str
    confidentiality: str


class WeighedView(_Shown):
    """What the decision was made on, besides; gone once the features of the run are erased.

    `observed`: the mode let pass what the verdict would have stopped. `label`: of all that the
    model had seen before. `reasons` go with `rules`, in their order.
    """

    mode: str
    reasons: list[str]
    obligations: list[str]
    observed: bool
    label: LabelView
    gate: str
    catalogue: str
    micros: int


class DecisionView(_Shown):
    """What the gate said, and by which rules."""

    policy_id: str
    policy_version: int
    policy_digest: str
    verdict: str
    rules: list[str]
    weighed: WeighedView | None


class _Told(BaseModel):
    """A sealed record of facts, as far as it is shown."""

    model_config = ConfigDict(extra="ignore")


class _Weighed(_Told):
    reasons: list[str]
    obligations: list[str]
    observed: bool
    gate: str
    catalogue: str
    micros: int


class _Context(_Told):
    integrity: str
    confidentiality: str


class _Facts(_Told):
    mode: str
    context: _Context
    weighed: _Weighed


def decision_view(record: VerifiedRecord) -> DecisionView | None:
    """The decision that a record bears, or None."""
    policy = record.header["policy"]
    if not isinstance(policy, dict):
        return None
    return DecisionView.model_validate(
        {
            "policy_id": policy["id"],
            "policy_version": policy["ver"],
            "policy_digest": policy["digest"],
            "verdict": policy["verdict"],
            "rules": policy["rules"],
            "weighed": _weighed(record.fields.get("features")),
        }
    )


def _weighed(value: bytes | None) -> WeighedView | None:
    if value is None:
        return None
    try:
        facts = _Facts.model_validate_json(value)
    except ValidationError:
        return None
    label = LabelView(**facts.context.model_dump())
    return WeighedView(mode=facts.mode, label=label, **facts.weighed.model_dump())
