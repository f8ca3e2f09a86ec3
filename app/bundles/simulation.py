"""Asks two policies the questions that were really asked, and tells where they differ.

Nothing of a recorded answer is used: both answers are computed anew from the feature record, by the
gate's own `decide`. The recorded answer is held against what its own policy says to the same
question, and that is told apart.

Source: policy section 5.7.

Threat: Prompt injection via task input
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from app.domain.errors import RecordFormError
from app.domain.features import DecisionInput
from app.domain.run import JsonObject, RunId
from app.domain.verdict import Decision, Point, Verdict, is_weaker
from app.policy.bundle import PolicyBundle

Decide = Callable[[DecisionInput, PolicyBundle], Decision]
MAX_LISTED: Final = 100
_MAX_COSTS: Final = 100_000
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredQuestion:
    """A decision as a verified record has it.

    `features`: None when they were erased, or where a record repeats an earlier decision.
    """

    run_id: RunId
    seq: int
    features: JsonObject | None
    policy_digest: str
    verdict: str
    rules: tuple[str, ...] = ()
    is_erased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One question that two policies answer differently. `then`: what the run decided after it.

    Had it been answered so, everything after it might have been otherwise.
    """

    run_id: RunId
    seq: int
    point: Point
    before: Verdict
    after: Verdict
    rules_before: tuple[str, ...]
    rules_after: tuple[str, ...]
    then: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """How often a verdict became another one, at a point or of a rule."""

    name: str
    before: Verdict
    after: Verdict
    count: int


@dataclass(slots=True, kw_only=True)
class _Costs:
    nanoseconds: list[int] = field(default_factory=list)

    def add(self, spent: int) -> None:
        if len(self.nanoseconds) < _MAX_COSTS:
            self.nanoseconds.append(spent)

    def quantile(self, share: float) -> int:
        """In microseconds."""
        if not self.nanoseconds:
            return 0
        ordered = sorted(self.nanoseconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] // 1000


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of a simulation. Lists are cut; the counts beside them are not."""

    runs: int = 0
    not_replayable: int = 0  # runs of which features are gone, or no longer of a form that is read
    decisions: int = 0
    differences: int = 0
    weakened: int = 0
    newly_asking: int = 0
    unlike_the_record: int = 0  # their own policy answers otherwise now than was recorded
    first_divergences: list[Difference] = field(default_factory=list)
    weakened_decisions: list[Difference] = field(default_factory=list)
    newly_asking_runs: list[RunId] = field(default_factory=list)
    unlike_decisions: list[tuple[RunId, int]] = field(default_factory=list)
    points: Counter[tuple[str, Verdict, Verdict]] = field(default_factory=Counter)
    rules: Counter[tuple[str, Verdict, Verdict]] = field(default_factory=Counter)
    costs: _Costs = field(default_factory=_Costs)

    def matrix(self) -> list[MatrixRow]:
        """By point."""
        return _rows(self.points)

    def rule_matrix(self) -> list[MatrixRow]:
        """By each rule that objected in one of the two."""
        return _rows(self.rules)

    def cost_micros(self) -> tuple[int, int]:
        """p50 and p99 of one answer of the candidate."""
        return self.costs.quantile(0.50), self.costs.quantile(0.99)


class Simulation:
    """Two policies side by side, over any number of runs."""

    def __init__(
        self,
        before: PolicyBundle,
        after: PolicyBundle,
        decide: Decide,
        clock_ns: Callable[[], int],
    ) -> None:
        self._before = before
        self._after = after
        self._decide = decide
        self._clock_ns = clock_ns
        self.tally = Tally()

    def answers(self, question: DecisionInput) -> tuple[Verdict, Verdict]:
        """What both say to one question; it is not counted."""
        before, after = self._decide(question, self._before), self._decide(question, self._after)
        return before.verdict, after.verdict

    def add_broken(self) -> None:
        """A run that does not verify: nothing of it is asked again."""
        self.tally.runs += 1
        self.tally.not_replayable += 1

    def add_run(self, questions: Sequence[StoredQuestion], own: PolicyBundle | None) -> None:
        """All decisions of one run in order. `own`: the policy that the run was begun under."""
        tally = self.tally
        tally.runs += 1
        kept = [question for question in questions if question.features is not None]
        asked = [(question, _revived(question)) for question in kept]
        is_gone = not kept or any(question.is_erased for question in questions)
        if is_gone or any(revived is None for _, revived in asked):
            tally.not_replayable += 1
            return
        found: list[Difference] = []
        asks_before = asks_after = False
        for place, (stored, question) in enumerate(asked):
            if question is None:
                continue
            old = self._decide(question, self._before)
            begun = self._clock_ns()
            new = self._decide(question, self._after)
            tally.costs.add(self._clock_ns() - begun)
            self._count(question.point, old, new)
            self._hold_against(stored, question, own)
            asks_before = asks_before or old.verdict is Verdict.REQUIRE_APPROVAL
            asks_after = asks_after or new.verdict is Verdict.REQUIRE_APPROVAL
            if old.verdict is not new.verdict:
                found.append(_difference(stored, old, new, len(asked) - place - 1))
        self._note(found)
        if asks_after and not asks_before:
            tally.newly_asking += 1
            _keep(tally.newly_asking_runs, questions[0].run_id)

    def _count(self, point: Point, old: Decision, new: Decision) -> None:
        tally = self.tally
        tally.decisions += 1
        tally.points[point.value, old.verdict, new.verdict] += 1
        for rule in {*old.rules, *new.rules}:
            tally.rules[rule, old.verdict, new.verdict] += 1

    def _hold_against(
        self, stored: StoredQuestion, question: DecisionInput, own: PolicyBundle | None
    ) -> None:
        if own is None or own.digest != stored.policy_digest:
            return
        if self._decide(question, own).verdict.value != stored.verdict:
            self.tally.unlike_the_record += 1
            _keep(self.tally.unlike_decisions, (stored.run_id, stored.seq))

    def _note(self, found: Sequence[Difference]) -> None:
        tally = self.tally
        tally.differences += len(found)
        if found:
            _keep(tally.first_divergences, found[0])
        for difference in found:
            if is_weaker(difference.after, difference.before):
                tally.weakened += 1
                _keep(tally.weakened_decisions, difference)


def _revived(question: StoredQuestion) -> DecisionInput | None:
    if question.features is None:
        return None
    try:
        return DecisionInput.from_json(question.features)
    except RecordFormError:
        return None


def _difference(stored: StoredQuestion, old: Decision, new: Decision, then: int) -> Difference:
    return Difference(
        run_id=stored.run_id,
        seq=stored.seq,
        point=new.point,
        before=old.verdict,
        after=new.verdict,
        rules_before=old.rules,
        rules_after=new.rules,
        then=then,
    )


def _rows(counted: Counter[tuple[str, Verdict, Verdict]]) -> list[MatrixRow]:
    return [
        MatrixRow(name=name, before=before, after=after, count=count)
        for (name, before, after), count in sorted(counted.items())
    ]


def _keep(items: list[_Item], item: _Item) -> None:
    if len(items) < MAX_LISTED:
        items.append(item)
