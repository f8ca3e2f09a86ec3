"""Tries policies on what was really asked, and on what somebody supposes: nothing is changed by it.

Threat: Prompt injection via task input
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.audit.decision_history import DecisionHistory, Span
from app.bundles.bundle_loading import BundleLoader
from app.bundles.bundle_shelf import BundleShelf
from app.bundles.explaining import Explanation, explain
from app.bundles.golden_features import completed_features
from app.bundles.policy_document import PolicyDocument
from app.bundles.simulation import Simulation, StoredQuestion, Tally
from app.domain.errors import (
    InvalidSubmissionError,
    NotFoundError,
    PolicyRefusedError,
    RecordFormError,
)
from app.domain.features import DecisionInput
from app.domain.run import JsonObject, RunId, TenantId
from app.domain.verdict import Decision
from app.policy.bundle import PolicyBundle

Decide = Callable[[DecisionInput, PolicyBundle], Decision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What came of a simulation, of which policies, and whether all runs of the span are in it."""

    tally: Tally
    before: str
    after: str
    is_whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A recorded decision and what its policy says to the same question."""

    stored: StoredQuestion
    explanation: Explanation | None  # None: what it was asked is not there to be asked again


class PolicyTrials:
    """Simulations, checks and explanations for the tenants of one deployment."""

    def __init__(
        self,
        *,
        history: DecisionHistory,
        shelf: BundleShelf,
        loader: BundleLoader,
        decide: Decide,
        clock_ns: Callable[[], int],
    ) -> None:
        self._history = history
        self._shelf = shelf
        self._loader = loader
        self._decide = decide
        self._clock_ns = clock_ns

    async def simulate(
        self, tenant_id: TenantId, document: PolicyDocument, span: Span
    ) -> Simulated:
        """A policy beside the one in force, over what was asked. PolicyRefusedError."""
        after = self._loader.taken(document).bundle
        before = (await self._shelf.in_force(tenant_id)).bundle
        simulation = Simulation(before, after, self._decide, self._clock_ns)
        is_whole = await self._history.replay_span(tenant_id, simulation, span)
        return Simulated(
            tally=simulation.tally, before=before.digest, after=after.digest, is_whole=is_whole
        )

    async def check(
        self, tenant_id: TenantId, features: JsonObject, document: PolicyDocument | None
    ) -> Explanation:
        """What a policy, or the one in force, says to a question. InvalidSubmissionError."""
        if document is None:
            loaded = await self._shelf.in_force(tenant_id)
        else:
            loaded = self._loader.taken(document)
        try:
            question = completed_features(features, loaded.bundle.default_mode)
        except RecordFormError as error:
            raise InvalidSubmissionError("/features", str(error)) from None
        return explain(question, loaded.bundle, self._decide)

    async def explain(self, tenant_id: TenantId, run_id: RunId, seq: int) -> Explained:
        """One recorded decision, by the policy it was made under. NotFoundError: none is there."""
        questions = await self._history.questions(tenant_id, run_id)
        stored = next((question for question in questions if question.seq == seq), None)
        if stored is None:
            raise NotFoundError("no decision stands there")
        return Explained(stored=stored, explanation=await self._anew(tenant_id, stored))

    async def _anew(self, tenant_id: TenantId, stored: StoredQuestion) -> Explanation | None:
        if stored.features is None:
            return None
        try:
            bundle = await self._shelf.by_digest(tenant_id, stored.policy_digest)
            question = DecisionInput.from_json(stored.features)
        except (NotFoundError, PolicyRefusedError, RecordFormError):
            return None
        return explain(question, bundle, self._decide)
