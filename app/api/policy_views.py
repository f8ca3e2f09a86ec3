"""Policies, activations, simulations and explanations as a tenant's keys see them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.api.entry_views import Moment, View
from app.api.run_requests import JsonObjectIn, MomentIn, Name
from app.audit.policy_trials import Explained, Simulated
from app.bundles.explaining import Explanation
from app.bundles.policy_document import PolicyDocument
from app.bundles.policy_example import POLICY_EXAMPLE, QUESTION_EXAMPLE
from app.bundles.simulation import Difference, MatrixRow
from app.domain.policy import Activation, ActivationState, PolicyVersion, public_activation_id
from app.domain.run import public_run_id
from app.domain.verdict import Decision, Point, Verdict


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class ActivationCreate(_Closed):
    """Which version is to be in force; the newest when none is named."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, json_schema_extra={"example": {"version": 1}}
    )

    version: Annotated[int, Field(ge=1, le=2**53 - 1)] | None = None


class SimulationFilter(_Closed):
    """Which runs are asked about again, beside the time."""

    agent: Name | None = None


class SimulationCreate(_Closed):
    """A policy to try on what was asked since then. It is not stored."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "example": {"bundle": POLICY_EXAMPLE, "since": "2026-11-18T00:00:00Z", "filter": {}}
        },
    )

    bundle: PolicyDocument
    since: MomentIn | None = None
    until: MomentIn | None = None
    filter: SimulationFilter = SimulationFilter()


class PolicyCheckCreate(_Closed):
    """A question to the gate as a feature record, and the policy to ask; else the one in force."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={"example": {"features": QUESTION_EXAMPLE, "bundle": POLICY_EXAMPLE}},
    )

    features: JsonObjectIn
    bundle: PolicyDocument | None = None


class PolicySummary(View):
    """One version of a policy, without what stands in it."""

    id: str
    version: int
    digest: str
    author: str
    created_at: Moment


class PolicyVersionView(PolicySummary):
    """One version of a policy. `in_force`: which version runs that begin now are judged by."""

    document: dict[str, JsonValue]
    in_force: int | None


class PolicyList(View):
    """The newest version of each policy of the tenant, by id."""

    data: list[PolicySummary]
    has_more: Literal[False]
    next_cursor: None


class PolicyVersionPage(View):
    """Versions of a policy, the newest first."""

    data: list[PolicySummary]
    has_more: bool
    next_cursor: str | None


class ActivationView(View):
    """Somebody's wish that a version be in force, and what became of it.

    `loosened`: in what it lets more pass than what was in force, as codes: then another key with
    the scope `policy` has to confirm it.
    """

    id: str
    policy: str
    version: int
    digest: str
    state: ActivationState
    needs_second: bool
    loosened: list[str]
    requested_by: str
    requested_at: Moment
    confirmed_by: str | None
    activated_at: Moment | None


class ActivationList(View):
    """Activations of a policy, the newest first: at most 200."""

    data: list[ActivationView]
    has_more: Literal[False]
    next_cursor: None


class VerdictChange(View):
    """How often a verdict became another one, or stayed. `name`: a point, or a rule."""

    name: str
    before: Verdict
    after: Verdict
    count: int


class DecisionChange(View):
    """A decision that would be another one. `hypothetical_after`: later ones of its run.

    Had it been decided so, the run might have gone on otherwise.
    """

    run_id: str
    seq: int
    point: Point
    before: Verdict
    after: Verdict
    rules_before: list[str]
    rules_after: list[str]
    hypothetical_after: int


class SimulationView(View):
    """The policy in force beside another one, over decisions of verified runs, asked anew.

    Lists hold at most 100 items; the counts are whole. `truncated`: older runs were not looked at.
    `unlike_the_record`: decisions that their own policy answers otherwise now than is recorded.
    """

    before: str
    after: str
    runs: int
    not_replayable: int
    truncated: bool
    decisions: int
    differences: int
    weakened: int
    newly_asking: int
    unlike_the_record: int
    points: list[VerdictChange]
    rules: list[VerdictChange]
    first_divergences: list[DecisionChange]
    weakened_decisions: list[DecisionChange]
    newly_asking_runs: list[str]
    p50_micros: int
    p99_micros: int


class ObjectorView(View):
    """A rule that objected. `features`: the parts of the record without which it would not have."""

    rule: str
    reason: str
    kind: Literal["built_in", "tenant"]
    features: list[str]


class ExplanationView(View):
    """What a policy says to a question, and which rules object to which of its parts."""

    verdict: Verdict
    code: str
    rules: list[str]
    obligations: list[str]
    observed: bool
    policy: str
    policy_digest: str
    objections: list[ObjectorView]


class DecisionExplanation(View):
    """A recorded decision, and what its own policy says to the same question now.

    `asked` and `explanation` are null where the feature record was erased, or is not kept.
    """

    run_id: str
    seq: int
    verdict: str
    rules: list[str]
    policy_digest: str
    asked: dict[str, JsonValue] | None
    explanation: ExplanationView | None


def summary_view(version: PolicyVersion) -> PolicySummary:
    """A version as lists show it."""
    return PolicySummary.model_validate(_summary(version))


def policy_view(version: PolicyVersion, in_force: int | None) -> PolicyVersionView:
    """A version with what stands in it."""
    document = PolicyDocument.model_validate_json(version.body)
    shown = document.model_dump(mode="json", exclude_defaults=True)
    return PolicyVersionView.model_validate(
        {**_summary(version), "document": shown, "in_force": in_force}
    )


def _summary(version: PolicyVersion) -> dict[str, object]:
    return {
        "id": version.policy_id,
        "version": version.version,
        "digest": version.digest,
        "author": version.author,
        "created_at": version.created_at,
    }


def activation_view(activation: Activation) -> ActivationView:
    """An activation as shown."""
    return ActivationView(
        id=public_activation_id(activation.activation_id),
        policy=activation.policy_id,
        version=activation.version,
        digest=activation.digest,
        state=activation.state,
        needs_second=activation.needs_second,
        loosened=[*activation.loosened],
        requested_by=activation.requested_by,
        requested_at=activation.requested_at,
        confirmed_by=activation.confirmed_by,
        activated_at=activation.activated_at,
    )


def simulation_view(found: Simulated) -> SimulationView:
    """A simulation as shown."""
    tally = found.tally
    p50, p99 = tally.cost_micros()
    return SimulationView(
        before=found.before,
        after=found.after,
        runs=tally.runs,
        not_replayable=tally.not_replayable,
        truncated=not found.is_whole,
        decisions=tally.decisions,
        differences=tally.differences,
        weakened=tally.weakened,
        newly_asking=tally.newly_asking,
        unlike_the_record=tally.unlike_the_record,
        points=[_change(row) for row in tally.matrix()],
        rules=[_change(row) for row in tally.rule_matrix()],
        first_divergences=[_difference(item) for item in tally.first_divergences],
        weakened_decisions=[_difference(item) for item in tally.weakened_decisions],
        newly_asking_runs=[public_run_id(run_id) for run_id in tally.newly_asking_runs],
        p50_micros=p50,
        p99_micros=p99,
    )


def _change(row: MatrixRow) -> VerdictChange:
    return VerdictChange(name=row.name, before=row.before, after=row.after, count=row.count)


def _difference(item: Difference) -> DecisionChange:
    return DecisionChange(
        run_id=public_run_id(item.run_id),
        seq=item.seq,
        point=item.point,
        before=item.before,
        after=item.after,
        rules_before=[*item.rules_before],
        rules_after=[*item.rules_after],
        hypothetical_after=item.then,
    )


def explanation_view(explanation: Explanation) -> ExplanationView:
    """An answer and its reasons."""
    return ExplanationView.model_validate(_explained(explanation))


def decision_explanation(found: Explained) -> DecisionExplanation:
    """The same of a recorded decision."""
    stored, explanation = found.stored, found.explanation
    return DecisionExplanation(
        run_id=public_run_id(stored.run_id),
        seq=stored.seq,
        verdict=stored.verdict,
        rules=[*stored.rules],
        policy_digest=stored.policy_digest,
        asked=stored.features,
        explanation=None if explanation is None else explanation_view(explanation),
    )


def _explained(explanation: Explanation) -> dict[str, object]:
    said: Decision = explanation.decision
    return {
        "verdict": said.verdict,
        "code": said.code,
        "rules": [*said.rules],
        "obligations": [duty.value for duty in said.obligations],
        "observed": said.is_observed,
        "policy": said.policy.policy_id,
        "policy_digest": said.policy.digest,
        "objections": [
            {
                "rule": objector.rule,
                "reason": objector.reason,
                "kind": "tenant" if objector.is_tenants else "built_in",
                "features": [*objector.parts],
            }
            for objector in explanation.objectors
        ],
    }
