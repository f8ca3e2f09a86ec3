"""A call that needs a person waits for one, is done once if they say so, and else never.

Threat: Privilege escalation via tool calls
"""

import pytest

from tests.integration.runs.approval_scene import DONE, PATH, TEXT, WRITES, desk
from tests.support.api_matrix import calls
from tests.support.databases import DatabaseServer, Roles


@pytest.fixture
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


def test_an_approved_call_is_made_once_and_the_ledger_says_who_allowed_it(roles: Roles) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        assert scene.files() == []
        waiting = scene.waiting(run_id)
        answer = scene.decided(waiting, "approve")
        assert answer.status_code == 200, answer.text
        assert answer.json()["status"] == "approved"
        assert scene.state(run_id, "succeeded")["output"] == DONE.text
        assert scene.files() == [TEXT]
        entries = scene.entries(run_id)
        shown = scene.approver.get(f"/v1/approvals/{waiting['id']}").json()
    kinds = [entry["kind"] for entry in entries]
    first = kinds.index("tool.decided")
    assert kinds[first : first + 9] == [
        "tool.decided",
        "approval.requested",
        "run.parked",
        "approval.decided",
        "run.woken",
        "run.resumed",
        "tool.decided",
        "tool.finished",
        "llm.requested",
    ]
    asked, decided, done = (entries[first + step] for step in (0, 3, 6))
    assert asked["decision"]["verdict"] == "require_approval"
    assert (decided["outcome"], decided["note"]) == ("approved", {"comment": "seen"})
    assert decided["actor"].startswith("key:")
    assert decided["actor"] != entries[0]["actor"]
    assert (done["decision"]["verdict"], done["outcome"]) == ("allow", "approval:granted")
    assert done["approval_id"] == decided["approval_id"] == waiting["id"]
    assert kinds.count("tool.finished") == 1
    assert (shown["status"], shown["in_clear"]) == ("used", False)


def test_a_denied_call_is_not_made_and_the_model_is_told(roles: Roles) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        assert scene.decided(scene.waiting(run_id), "deny").json()["status"] == "denied"
        scene.state(run_id, "succeeded")
        assert scene.files() == []
        told = str(scene.provider.requests[-1].messages)
        assert "approval:denied" in told
        assert scene.kinds(run_id).count("tool.finished") == 0


def test_a_policy_may_end_the_run_where_a_call_is_denied(roles: Roles) -> None:
    with desk(roles, limits={"on_deny_stops": 1}) as scene:
        run_id = scene.submitted()
        scene.decided(scene.waiting(run_id), "deny")
        run = scene.state(run_id, "blocked")
        assert run["error"] == {"code": "approval:denied"}
        assert scene.files() == []


def test_nobody_decides_what_they_asked_for_themselves(roles: Roles) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        waiting = scene.waiting(run_id)
        body = {"decision": "approve", "digest": waiting["digest"]}
        answer = scene.submitter.post(f"/v1/approvals/{waiting['id']}/decision", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "approval-refused")
        assert "capability:self_approval" in answer.json()["detail"]
        assert scene.kinds(run_id)[-1] == "approval.refused"
        assert scene.files() == []
        assert scene.decided(waiting, "approve").status_code == 200  # it still waits
        scene.state(run_id, "succeeded")
        assert scene.files() == [TEXT]


def test_a_decision_needs_the_scope_and_the_tenant(roles: Roles) -> None:
    with desk(roles) as scene, scene.live.client("other") as other:
        run_id = scene.submitted()
        waiting = scene.waiting(run_id)
        path = f"/v1/approvals/{waiting['id']}"
        body = {"decision": "approve", "digest": waiting["digest"]}
        for who, status in (("forms", 403), ("audit", 403), ("other", 404)):
            with scene.live.client(who) as client:
                assert client.post(f"{path}/decision", json=body).status_code == status
        assert other.get(path).status_code == 404
        assert other.get("/v1/approvals").json()["data"] == []
        assert scene.state(run_id, "awaiting_approval")


def test_another_digest_and_a_second_decision_change_nothing(roles: Roles) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        waiting = scene.waiting(run_id)
        other = scene.decided({**waiting, "digest": "0" * 64}, "approve")
        assert (other.status_code, other.json()["code"]) == (412, "precondition-failed")
        assert scene.files() == []
        assert scene.decided(waiting, "deny").status_code == 200
        again = scene.decided(waiting, "approve")
        assert (again.status_code, again.json()["code"]) == (409, "approval-closed")
        scene.state(run_id, "succeeded")
        late = scene.decided(waiting, "approve")
        assert late.status_code == 409
        assert scene.files() == []


def test_a_decision_that_comes_again_with_its_key_is_answered_again(roles: Roles) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        waiting = scene.waiting(run_id)
        key = {"Idempotency-Key": '"one-decision"'}
        assert scene.decided(waiting, "approve", **key).status_code == 200
        scene.state(run_id, "succeeded")
        again = scene.decided(waiting, "approve", **key)
        assert (again.status_code, again.headers["Idempotency-Replayed"]) == (200, "true")
        assert scene.kinds(run_id).count("approval.decided") == 1


def test_the_arguments_are_shown_in_clear_to_an_approver_and_that_is_recorded(
    roles: Roles,
) -> None:
    secret = "AKIA" + "IOSFODNN7EXAMPLQ"
    task = f"Write {secret} to {PATH}"
    replies = (calls("write_file", path=PATH, content=secret), DONE)
    with desk(roles, *replies) as scene, scene.live.client("audit") as auditor:
        run_id = scene.submitted(instructions=task)
        waiting = scene.waiting(run_id)
        assert secret not in str(waiting)
        path = f"/v1/approvals/{waiting['id']}"
        audited = auditor.get(path)
        assert secret not in audited.text
        assert audited.json()["in_clear"] is False
        assert "approval.read" not in scene.kinds(run_id)
        shown = scene.approver.get(path)
        assert shown.json()["call"]["arguments"] == {"path": PATH, "content": secret}
        assert shown.json()["in_clear"] is True
        assert shown.headers["cache-control"] == "no-store"
        assert shown.headers["etag"] == f'"{waiting["digest"]}.pending"'
        reads = [entry for entry in scene.entries(run_id) if entry["kind"] == "approval.read"]
        assert [entry["approval_id"] for entry in reads] == [waiting["id"]]
        assert secret not in str(scene.entries(run_id))
        assert scene.decided(waiting, "approve").status_code == 200
        scene.state(run_id, "succeeded")
        assert scene.files() == [secret]
        assert secret not in scene.approver.get(path).text


def test_an_approval_whose_time_is_over_is_a_denial_and_the_run_goes_on(roles: Roles) -> None:
    with desk(roles, limits={"approval_seconds": 1}) as scene:
        run_id = scene.submitted(waits=False)
        scene.state(run_id, "succeeded")
        assert scene.files() == []
        entries = scene.entries(run_id)
        decided = next(entry for entry in entries if entry["kind"] == "approval.decided")
        assert (decided["outcome"], decided["actor"]) == ("expired", "system")
        page = scene.approver.get("/v1/approvals", params={"run_id": run_id}).json()["data"]
        assert [item["status"] for item in page] == ["expired"]
        late = scene.decided(page[0], "approve")
        assert late.status_code == 409


def test_after_three_refusals_the_run_ends(roles: Roles) -> None:
    with desk(roles, WRITES, WRITES, WRITES, WRITES, DONE) as scene:
        run_id = scene.submitted()
        for _ in range(3):
            scene.decided(scene.waiting(run_id), "deny").raise_for_status()
        run = scene.state(run_id, "blocked")
        assert run["error"] == {"code": "approval:too_many_refused"}
        assert len(scene.provider.requests) == 3
        assert scene.files() == []


def test_a_run_that_is_cancelled_takes_its_approval_with_it(roles: Roles) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        waiting = scene.waiting(run_id)
        scene.submitter.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
        scene.state(run_id, "cancelled")
        assert scene.decided(waiting, "approve").status_code == 409
        assert scene.inbox() == []
        shown = scene.approver.get(f"/v1/approvals/{waiting['id']}").json()
        assert shown["status"] == "void"
        assert scene.files() == []


def test_an_approval_lives_on_where_another_process_serves(roles: Roles) -> None:
    with desk(roles) as scene:
        run_id = scene.submitted()
        waiting = scene.waiting(run_id)
    with desk(roles, DONE) as scene:
        assert scene.decided(waiting, "approve").status_code == 200
        scene.state(run_id, "succeeded")
        assert scene.files() == [TEXT]
