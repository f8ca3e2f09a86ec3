"""Policies are kept by digest, and what loosens them takes two keys, whatever a process says."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from app.bundles.policy_document import PolicyDocument
from app.domain.errors import (
    IllegalTransitionError,
    NotFoundError,
    PolicyRefusedError,
    PreconditionFailedError,
    SecondPersonError,
)
from app.domain.policy import ActivationState, PolicyVersion
from app.domain.verdict import Verdict
from app.ledger.chain import VerifiedChain
from app.policy.decide import decide
from app.storage.policy_changes import ActivatePolicy, ConfirmPolicy
from tests.support.databases import DatabaseServer, Roles
from tests.support.decided_runs import PolicyScene, caller, policy_scene
from tests.support.policy_words import call, rule

pytestmark = pytest.mark.anyio
FIRST, SECOND = "1" * 16, "2" * 16
NO_FOURTH = rule("tool.calls_made >= 3")


@pytest.fixture
async def fresh(postgres: DatabaseServer) -> Roles:
    return await asyncio.to_thread(postgres.new_database)


@pytest.fixture
async def scene(fresh: Roles, tmp_path: Path) -> AsyncIterator[PolicyScene]:
    async with policy_scene(fresh, tmp_path) as made:
        yield made


def policy(**members: object) -> PolicyDocument:
    return PolicyDocument.model_validate(members)


async def put(
    scene: PolicyScene, document: PolicyDocument, *, newest: int, who: str = FIRST
) -> tuple[PolicyVersion, bool]:
    return await scene.policies.desk.put(
        caller(scene.tenant_id, who), "default", document, lambda version: version == newest
    )


async def records(scene: PolicyScene) -> list[str]:
    """Kinds of the verified administration run that have to do with policies."""
    page = await scene.parts.admin_log.read_on(scene.tenant_id, None, scene.parts.enrolment_keys)
    assert page is not None
    chain = getattr(page, "chain", None)
    assert isinstance(chain, VerifiedChain), page
    return [record.kind for record in chain.records if record.kind.startswith("policy.")]


async def test_a_version_is_kept_once_and_reads_back(scene: PolicyScene) -> None:
    desk, tenant_id = scene.policies.desk, scene.tenant_id
    first, is_new = await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=0)
    assert (first.version, is_new) == (1, True)
    again, is_new = await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=1)
    assert (again, is_new) == (first, False)
    second, is_new = await put(scene, policy(), newest=1)
    assert (second.version, is_new) == (2, True)
    assert [v.version for v in await desk.versions(tenant_id, "default", None, 10)] == [2, 1]
    assert [v.digest for v in await desk.all_of(tenant_id)] == [second.digest]
    assert (await desk.version(tenant_id, "default", 1)).body == first.body
    assert await records(scene) == ["policy.written", "policy.written"]


async def test_a_change_names_the_version_that_it_means(scene: PolicyScene) -> None:
    await put(scene, policy(), newest=0)
    with pytest.raises(PreconditionFailedError):
        await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=0)
    with pytest.raises(NotFoundError):
        await scene.policies.desk.newest(scene.tenant_id, "office")


async def test_a_policy_that_breaks_its_golden_case_is_not_stored(scene: PolicyScene) -> None:
    case = {"name": "fourth", "features": call(calls_made=3).to_json(), "verdict": "deny"}
    with pytest.raises(PolicyRefusedError):
        await put(scene, policy(golden=[case]), newest=0)
    assert await scene.policies.desk.all_of(scene.tenant_id) == []


async def test_what_tightens_is_in_force_at_once_by_one_key(scene: PolicyScene) -> None:
    await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=0)
    me = caller(scene.tenant_id)
    made = await scene.policies.desk.activate(me, "default", None)
    assert (made.state, made.needs_second, made.loosened) == (ActivationState.ACTIVE, False, ())
    bundle = (await scene.policies.shelf.in_force(scene.tenant_id)).bundle
    assert bundle.digest == made.digest
    assert decide(call(calls_made=3), bundle).verdict is Verdict.DENY
    assert await records(scene) == ["policy.written", "policy.activated"]


async def test_what_loosens_waits_for_another_key(scene: PolicyScene) -> None:
    desk, shelf, tenant_id = scene.policies.desk, scene.policies.shelf, scene.tenant_id
    first, second = caller(tenant_id, FIRST), caller(tenant_id, SECOND)
    await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=0)
    strict = await desk.activate(first, "default", 1)
    await put(scene, policy(), newest=1)
    asked = await desk.activate(first, "default", 2)
    assert (asked.state, asked.loosened) == (ActivationState.PENDING, ("rule:own.rule",))
    assert (await shelf.in_force(tenant_id)).bundle.digest == strict.digest
    with pytest.raises(SecondPersonError):
        await desk.confirm(first, "default", asked.activation_id)
    done = await desk.confirm(second, "default", asked.activation_id)
    assert (done.state, done.confirmed_by) == (ActivationState.ACTIVE, second.actor)
    assert (await shelf.in_force(tenant_id)).bundle.digest == asked.digest
    with pytest.raises(IllegalTransitionError):
        await desk.confirm(second, "default", asked.activation_id)
    states = [(a.version, a.state) for a in await desk.activations(tenant_id, "default")]
    assert states == [(2, ActivationState.ACTIVE), (1, ActivationState.SUPERSEDED)]
    kinds = ["policy.written", "policy.activated", "policy.written", "policy.requested"]
    assert await records(scene) == [*kinds, "policy.activated"]


async def test_what_was_really_asked_and_would_pass_now_is_a_loosening(scene: PolicyScene) -> None:
    desk = scene.policies.desk
    # By its form the second is no looser: only a rule's parameter stays, and the rule is there.
    await put(scene, policy(tenant_rules=[rule("tool.calls_made >= 3")]), newest=0)
    await desk.activate(caller(scene.tenant_id), "default", 1)
    bundle = (await scene.policies.shelf.in_force(scene.tenant_id)).bundle
    await scene.decided([call(calls_made=3)], bundle)
    await put(scene, policy(tenant_rules=[rule("tool.calls_made >= 4")]), newest=1)
    asked = await desk.activate(caller(scene.tenant_id), "default", 2)
    assert set(asked.loosened) == {"rule:own.rule", "decisions:1"}


async def test_a_golden_case_that_becomes_milder_is_a_loosening(scene: PolicyScene) -> None:
    desk = scene.policies.desk
    case = {"name": "fourth", "features": call(calls_made=3).to_json()}
    strict = policy(tenant_rules=[NO_FOURTH], golden=[{**case, "verdict": "deny"}])
    await put(scene, strict, newest=0)
    await desk.activate(caller(scene.tenant_id), "default", 1)
    milder = rule("tool.calls_made >= 3", verdict="require_approval")
    await put(scene, policy(tenant_rules=[milder]), newest=1)
    asked = await desk.activate(caller(scene.tenant_id), "default", 2)
    assert set(asked.loosened) == {"rule:own.rule", "golden:fourth"}


async def test_what_comes_into_force_ends_what_waited(scene: PolicyScene) -> None:
    desk, tenant_id = scene.policies.desk, scene.tenant_id
    await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=0)
    await desk.activate(caller(tenant_id), "default", 1)
    await put(scene, policy(), newest=1)
    asked = await desk.activate(caller(tenant_id), "default", 2)
    await put(scene, policy(tenant_rules=[NO_FOURTH, rule("true", rule_id="own.2")]), newest=2)
    await desk.activate(caller(tenant_id), "default", 3)
    with pytest.raises(IllegalTransitionError):
        await desk.confirm(caller(tenant_id, SECOND), "default", asked.activation_id)


async def test_the_operators_word_needs_no_second_key_and_is_recorded_as_such(
    scene: PolicyScene,
) -> None:
    desk = scene.policies.desk
    await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=0)
    await desk.activate(caller(scene.tenant_id), "default", 1)
    await put(scene, policy(), newest=1)
    forced = await desk.activate(caller(scene.tenant_id), "default", 2, is_forced=True)
    assert forced.state is ActivationState.ACTIVE
    assert (await records(scene))[-1] == "policy.forced"


async def test_the_database_itself_lets_nobody_confirm_alone(scene: PolicyScene) -> None:
    """A process that lost its senses asks: the function and its tables refuse."""
    await put(scene, policy(), newest=0)
    me, now = caller(scene.tenant_id).actor, (await records(scene), uuid4())[1]
    asked = ActivatePolicy(
        activation_id=now,
        policy_id="default",
        version=1,
        base=None,
        needs_second=True,
        loosened=["mode"],
        by=me,
        at=(await scene.policies.desk.newest(scene.tenant_id, "default")).created_at,
    )
    log = scene.parts.admin_log
    await log.append(scene.tenant_id, "policy.requested", {}, [asked])
    mine = ConfirmPolicy(activation_id=now, policy_id="default", base=None, by=me, at=asked.at)
    with pytest.raises(IllegalTransitionError):
        await log.append(scene.tenant_id, "policy.activated", {}, [mine])
    elsewhere = ConfirmPolicy(
        activation_id=now, policy_id="default", base="0" * 64, by="key:2", at=asked.at
    )
    with pytest.raises(IllegalTransitionError):
        await log.append(scene.tenant_id, "policy.activated", {}, [elsewhere])
    found = await scene.policies.desk.activations(scene.tenant_id, "default")
    assert [one.state for one in found] == [ActivationState.PENDING]


async def test_nobody_has_the_right_to_change_a_version(scene: PolicyScene, fresh: Roles) -> None:
    await put(scene, policy(), newest=0)
    raw = await asyncpg.connect(fresh.superuser.replace("+asyncpg", ""))
    try:
        await raw.execute("SET ROLE mf_writer")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await raw.execute("UPDATE policy_version SET author = 'x'")
        await raw.execute("RESET ROLE")
        with pytest.raises(asyncpg.CheckViolationError):
            await raw.execute("UPDATE policy_version SET body = 'x'")
        with pytest.raises(asyncpg.CheckViolationError):
            await raw.execute(
                "INSERT INTO policy_activation SELECT tenant_id, gen_random_uuid(), policy_id,"
                " version, 'active', true, '{mode}', 'key:1', now(), NULL, now()"
                " FROM policy_version"
            )
    finally:
        await raw.close()


async def test_a_run_finds_the_policy_it_began_under_by_its_digest(scene: PolicyScene) -> None:
    desk, shelf, tenant_id = scene.policies.desk, scene.policies.shelf, scene.tenant_id
    first, _ = await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=0)
    await desk.activate(caller(tenant_id), "default", 1)
    await put(scene, policy(tenant_rules=[NO_FOURTH, rule("true", rule_id="own.2")]), newest=1)
    await desk.activate(caller(tenant_id), "default", 2)
    assert (await shelf.by_digest(tenant_id, first.digest)).version == 1
    assert (await shelf.by_digest(tenant_id, scene.built_in.digest)) == scene.built_in
    with pytest.raises(NotFoundError):
        await shelf.by_digest(tenant_id, "f" * 64)
    other = await scene.parts.runs.ensure_tenant("other")
    with pytest.raises(NotFoundError):
        await shelf.by_digest(other, first.digest)


async def test_a_callers_policy_stands_beside_the_tenants_and_only_objects(
    scene: PolicyScene, fresh: Roles, tmp_path: Path
) -> None:
    desk, shelf, tenant_id = scene.policies.desk, scene.policies.shelf, scene.tenant_id
    me = caller(tenant_id)
    await put(scene, policy(tenant_rules=[NO_FOURTH]), newest=0)
    await desk.activate(me, "default", 1)
    strict = policy(
        default_mode="strict", tenant_rules=[rule("tool.calls_made >= 1", rule_id="own.first")]
    )
    await desk.put(me, "office", strict, lambda version: version == 0)
    await desk.activate(me, "office", 1)
    own = await shelf.for_submission(tenant_id, None)
    assert decide(call(calls_made=1), own.bundle).verdict is Verdict.ALLOW
    joint = await shelf.for_submission(tenant_id, "office")
    assert joint.bundle.default_mode.value == "strict"
    assert decide(call(calls_made=3), joint.bundle).rules == ("own.rule", "own.first")
    assert decide(call(calls_made=1), joint.bundle).verdict is Verdict.DENY
    assert decide(call(), joint.bundle).verdict is Verdict.ALLOW
    await desk.keep(me, joint)
    await desk.keep(me, joint)  # as two submissions of one moment do
    async with policy_scene(fresh, tmp_path / "other") as elsewhere:
        found = await elsewhere.policies.shelf.by_digest(tenant_id, joint.bundle.digest)
        assert decide(call(calls_made=1), found).verdict is Verdict.DENY
    assert [version.policy_id for version in await desk.all_of(tenant_id)] == ["default", "office"]
    with pytest.raises(NotFoundError):
        await shelf.for_submission(tenant_id, "nobodys")
