"""Policies are tried on what was really asked: recomputed, counted and told run by run."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.audit.decision_history import Span
from app.audit.policy_trials import Simulated
from app.bundles.policy_document import PolicyDocument
from app.domain.errors import InvalidSubmissionError, NotFoundError
from app.domain.features import DecisionInput, Source
from app.domain.label import Integrity
from app.domain.run import RunId
from app.domain.step import Effect
from app.domain.verdict import Verdict
from app.ledger_assembly import utc_now
from tests.support.databases import DatabaseServer, execute
from tests.support.decided_runs import PolicyScene, caller, policy_scene
from tests.support.policy_words import argument, call, rule

pytestmark = pytest.mark.anyio
SEEN = argument("to", sources=frozenset({Source.SEEN}), integrity=Integrity.UNTRUSTED)
NAMED = argument("to")
RULES = [
    rule("tool.calls_made >= 3", rule_id="own.fourth", verdict="require_approval"),
    rule('arguments.exists(a, a.integrity == "untrusted")', rule_id="own.seen"),
]
RUNS: list[list[DecisionInput]] = [
    [call(NAMED), call(NAMED, calls_made=3), call(NAMED)],
    [call(SEEN), call(NAMED, tool="read_note", effect=Effect.READ)],
    [call(NAMED)],
    [],
]


@pytest.fixture
async def scene(postgres: DatabaseServer, tmp_path: Path) -> AsyncIterator[PolicyScene]:
    roles = await asyncio.to_thread(postgres.new_database)
    async with policy_scene(roles, tmp_path) as made:
        yield made


def policy(*rules: dict[str, object]) -> PolicyDocument:
    return PolicyDocument.model_validate({"tenant_rules": list(rules)})


async def in_force(scene: PolicyScene, *rules: dict[str, object]) -> PolicyDocument:
    document, desk, me = policy(*rules), scene.policies.desk, caller(scene.tenant_id)
    await desk.put(me, "default", document, lambda _: True)
    await desk.activate(me, "default", None, is_forced=True)
    return document


async def decided(scene: PolicyScene, told: Verdict | None = None) -> list[RunId]:
    bundle = (await scene.policies.shelf.in_force(scene.tenant_id)).bundle
    return [await scene.decided(questions, bundle, told=told) for questions in RUNS]


async def simulated(scene: PolicyScene, document: PolicyDocument, most: int = 100) -> Simulated:
    now = utc_now()
    span = Span(since=now - timedelta(days=7), until=now + timedelta(minutes=1), most=most)
    return await scene.policies.trials.simulate(scene.tenant_id, document, span)


async def test_the_policy_in_force_differs_nowhere_from_what_was_decided(
    scene: PolicyScene,
) -> None:
    document = await in_force(scene, *RULES)
    await decided(scene)
    found = await simulated(scene, document)
    tally = found.tally
    assert (tally.runs, tally.decisions, tally.not_replayable) == (4, 10, 0)
    assert (tally.differences, tally.unlike_the_record, tally.weakened) == (0, 0, 0)
    assert found.is_whole
    assert found.before == found.after
    assert {row.name for row in tally.rule_matrix()} == {"own.fourth", "own.seen"}


async def test_a_planted_change_differs_exactly_where_it_was_foretold(scene: PolicyScene) -> None:
    await in_force(scene, *RULES)
    runs = await decided(scene)
    # One call more is let through, what was seen is asked for, and reading is denied.
    candidate = policy(
        rule("tool.calls_made >= 4", rule_id="own.fourth", verdict="require_approval"),
        rule(
            'arguments.exists(a, a.integrity == "untrusted")',
            rule_id="own.seen",
            verdict="require_approval",
        ),
        rule('tool.effect == "read"', rule_id="own.read"),
    )
    tally = (await simulated(scene, candidate)).tally
    assert (tally.decisions, tally.differences, tally.weakened) == (10, 3, 2)
    first = {(d.run_id, d.seq, d.before, d.after, d.then) for d in tally.first_divergences}
    asks, denies, allows = Verdict.REQUIRE_APPROVAL, Verdict.DENY, Verdict.ALLOW
    assert first == {(runs[0], 2, asks, allows, 1), (runs[1], 1, denies, asks, 1)}
    assert {(d.run_id, d.seq) for d in tally.weakened_decisions} == {(runs[0], 2), (runs[1], 1)}
    assert tally.newly_asking_runs == [runs[1]]
    assert tally.newly_asking == 1
    by_point = {(row.name, row.before, row.after): row.count for row in tally.matrix()}
    assert by_point == {
        ("run.submit", allows, allows): 4,
        ("tool.call", allows, allows): 3,
        ("tool.call", allows, denies): 1,
        ("tool.call", asks, allows): 1,
        ("tool.call", denies, asks): 1,
    }
    assert tally.unlike_the_record == 0
    assert tally.cost_micros()[0] <= tally.cost_micros()[1]


async def test_recorded_verdicts_are_not_what_is_compared(scene: PolicyScene) -> None:
    """The same answers where every record says something else; and that it does is told."""
    document = await in_force(scene, *RULES)
    await decided(scene, told=Verdict.REDACT)
    found = (await simulated(scene, document)).tally
    assert (found.differences, found.decisions) == (0, 10)
    assert found.unlike_the_record == 10
    candidate = (await simulated(scene, policy())).tally
    assert candidate.differences == 2
    assert {d.before for d in candidate.weakened_decisions} == {
        Verdict.REQUIRE_APPROVAL,
        Verdict.DENY,
    }


async def test_runs_whose_features_are_gone_are_counted_and_not_guessed(
    scene: PolicyScene,
) -> None:
    document = await in_force(scene, *RULES)
    await decided(scene)
    await scene.decided(RUNS[1], with_features=False)
    tally = (await simulated(scene, document)).tally
    assert (tally.runs, tally.not_replayable, tally.decisions) == (5, 1, 10)


async def test_a_record_that_repeats_a_decision_is_asked_once(scene: PolicyScene) -> None:
    document = await in_force(scene, *RULES)
    await scene.decided(RUNS[0], repeated=True)
    tally = (await simulated(scene, document)).tally
    assert (tally.runs, tally.not_replayable, tally.decisions) == (1, 0, 4)


async def test_a_run_that_does_not_verify_is_not_asked(
    postgres: DatabaseServer, tmp_path: Path
) -> None:
    roles = await asyncio.to_thread(postgres.new_database)
    async with policy_scene(roles, tmp_path) as scene:
        document = await in_force(scene, *RULES)
        runs = await decided(scene)
        await execute(
            roles.superuser,
            "ALTER TABLE record DISABLE TRIGGER ALL",
            f"UPDATE record SET kind = 'tool.other' WHERE run_id = '{runs[1]}' AND seq = 1",
        )
        tally = (await simulated(scene, document)).tally
    assert (tally.runs, tally.not_replayable, tally.decisions) == (4, 1, 7)


async def test_more_runs_than_are_looked_at_are_told(scene: PolicyScene) -> None:
    document = await in_force(scene)
    await decided(scene)
    found = await simulated(scene, document, most=2)
    assert (found.is_whole, found.tally.runs) == (False, 2)


async def test_another_tenants_runs_are_not_looked_at(scene: PolicyScene) -> None:
    document = await in_force(scene)
    await decided(scene)
    other = replace(scene, tenant_id=await scene.parts.runs.ensure_tenant("other"))
    assert (await simulated(other, document)).tally.runs == 0


async def test_a_decision_is_explained_by_its_rules_and_the_parts_they_look_at(
    scene: PolicyScene,
) -> None:
    await in_force(scene, *RULES)
    runs = await decided(scene)
    trials, tenant_id = scene.policies.trials, scene.tenant_id
    fourth = (await trials.explain(tenant_id, runs[0], 2)).explanation
    assert fourth is not None
    assert fourth.decision.verdict is Verdict.REQUIRE_APPROVAL
    told = [(o.rule, o.reason, o.is_tenants, o.parts) for o in fourth.objectors]
    assert told == [("own.fourth", "own:rule", True, ("tool.calls_made",))]
    seen = (await trials.explain(tenant_id, runs[1], 1)).explanation
    assert seen is not None
    assert [(o.rule, o.parts) for o in seen.objectors] == [("own.seen", ("arguments.to",))]
    allowed = (await trials.explain(tenant_id, runs[2], 1)).explanation
    assert allowed is not None
    assert allowed.objectors == ()
    with pytest.raises(NotFoundError):
        await trials.explain(tenant_id, runs[2], 9)
    bare = await trials.explain(tenant_id, await scene.decided(RUNS[1], with_features=False), 1)
    assert (bare.explanation, bare.stored.verdict, bare.stored.rules) == (None, "allow", ())


async def test_a_question_can_be_put_without_a_run(scene: PolicyScene) -> None:
    trials, tenant_id = scene.policies.trials, scene.tenant_id
    await in_force(scene, *RULES)
    asked = await trials.check(tenant_id, call(SEEN).to_json(), None)
    assert (asked.decision.verdict, asked.decision.rules) == (Verdict.DENY, ("own.seen",))
    other = await trials.check(tenant_id, call(SEEN).to_json(), policy())
    assert other.decision.verdict is Verdict.ALLOW
    with pytest.raises(InvalidSubmissionError):
        await trials.check(tenant_id, {"point": "nowhere"}, None)
