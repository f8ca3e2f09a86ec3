"""Webhook endpoints over HTTP: made, read, changed, removed; told of runs and of checkpoints."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.wiring import Overrides
from tests.integration.gate.gate_scenes import rows
from tests.support.api_matrix import finished, patiently, problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server
from tests.support.webhook_receiver import HookField, Received, hook_field_beside

PATH = "/v1/webhook-endpoints"
ENDS = ["run.succeeded", "run.blocked"]


@pytest.fixture(scope="module")
def net() -> Iterator[HookField]:
    with hook_field_beside() as made:
        yield made


@pytest.fixture(scope="module")
def server(api_databases: DatabaseServer, net: HookField) -> Iterator[LiveServer]:
    roles = api_databases.new_database()
    overrides = Overrides(egress=net.net.parts)
    with live_server(roles, overrides, MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer) as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[httpx2.Client]:
    with server.client() as made:
        yield made
        for endpoint in made.get(PATH).json()["data"]:
            path = f"{PATH}/{endpoint['id']}"
            assert made.delete(path, headers={"If-Match": "*"}).status_code == 204


def made(client: httpx2.Client, path: str, events: list[str] | None = None) -> dict[str, Any]:
    """A new endpoint with its secret."""
    body = {"url": f"https://www.allowed.example{path}", "events": events or ENDS}
    response = client.post(PATH, json=body)
    assert response.status_code == 201, response.text
    endpoint: dict[str, Any] = response.json()
    assert response.headers["location"] == f"{PATH}/{endpoint['id']}"
    return endpoint


def verified(secret: str, one: Received) -> dict[str, Any]:
    """The event as an independent receiver reads it."""
    told: dict[str, Any] = Webhook(secret).verify(one.body, dict(one.headers))
    return told


def test_a_run_is_told_and_verifies_and_bears_no_content(
    client: httpx2.Client, net: HookField
) -> None:
    endpoint = made(client, "/run")
    run = finished(client, {"task": "What is 6*7? Planted: Mrs Grantham"})
    (one,) = net.received(1, "/run")
    told = verified(endpoint["secret"], one)
    assert told["type"] == "run.succeeded"
    assert told["data"]["run_id"] == run["id"]
    assert told["data"]["status"] == "succeeded"
    entries = client.get(f"/v1/runs/{run['id']}/entries").json()["data"]
    assert told["data"]["seq"] == entries[-1]["seq"]
    assert told["data"]["chain_hash"] == entries[-1]["chain_hash"]
    assert b"Grantham" not in one.body
    assert one.headers["content-type"] == "application/json"
    page = _settled(client, endpoint["id"])
    assert [item["id"] for item in page] == [one.headers["webhook-id"]]
    assert (page[0]["run_id"], page[0]["response_status"]) == (run["id"], 200)


def _settled(client: httpx2.Client, endpoint_id: str) -> list[dict[str, Any]]:
    """The log of deliveries once nothing of it is pending."""
    for _ in patiently():
        page = client.get(f"{PATH}/{endpoint_id}/deliveries").json()
        if page["data"] and all(item["state"] != "pending" for item in page["data"]):
            break
    data: list[dict[str, Any]] = page["data"]
    return data


def test_checkpoints_of_the_own_log_are_told_as_they_are_signed(
    client: httpx2.Client, net: HookField
) -> None:
    """Whoever keeps them is a witness: a later tree must follow from what was told."""
    endpoint = made(client, "/log", ["log.checkpoint"])
    finished(client, {"task": "1+1"})
    told = verified(endpoint["secret"], net.received(1, "/log")[0])
    data = told["data"]
    assert told["type"] == "log.checkpoint"
    origin, size, root = data["checkpoint"].split("\n")[:3]
    assert (origin, int(size)) == (data["origin"], data["size"])
    assert len(root) > 40
    with_audit = client.get("/v1/ledger/checkpoint")
    newest = with_audit.text
    assert newest.split("\n")[0] == origin
    assert int(newest.split("\n")[1]) >= data["size"]


def test_the_secret_is_shown_once(client: httpx2.Client) -> None:
    endpoint = made(client, "/once")
    assert endpoint["secret"].startswith("whsec_")
    for path in (f"{PATH}/{endpoint['id']}", PATH, f"{PATH}/{endpoint['id']}/deliveries"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "secret" not in answer.text.replace("old_secret_until", "")
        assert endpoint["secret"] not in answer.text


def test_both_secrets_sign_while_they_overlap_and_only_the_new_one_after(
    client: httpx2.Client, net: HookField
) -> None:
    endpoint = made(client, "/rotated")
    path, old = f"{PATH}/{endpoint['id']}", endpoint["secret"]
    rotated = client.post(f"{path}/rotate-secret").json()
    new = rotated["secret"]
    assert new != old
    assert rotated["old_secret_until"] is not None
    client.post(f"{path}/test")
    (one,) = net.received(1, "/rotated")
    assert verified(old, one) == verified(new, one)
    leaked = client.post(f"{path}/rotate-secret", params={"overlap_seconds": 0}).json()
    assert leaked["old_secret_until"] is None
    client.post(f"{path}/test")
    two = net.received(2, "/rotated")[1]
    verified(leaked["secret"], two)
    for gone in (old, new):
        with pytest.raises(WebhookVerificationError):
            verified(gone, two)


def test_of_three_secrets_two_are_live(client: httpx2.Client, net: HookField) -> None:
    endpoint = made(client, "/three")
    path = f"{PATH}/{endpoint['id']}"
    second = client.post(f"{path}/rotate-secret").json()["secret"]
    third = client.post(f"{path}/rotate-secret").json()["secret"]
    client.post(f"{path}/test")
    (one,) = net.received(1, "/three")
    assert len(one.headers["webhook-signature"].split(" ")) == 2
    assert verified(second, one) == verified(third, one)
    with pytest.raises(WebhookVerificationError):
        verified(endpoint["secret"], one)


def test_what_was_signed_is_no_good_with_another_id_time_or_body(
    client: httpx2.Client, net: HookField
) -> None:
    endpoint = made(client, "/replayed")
    client.post(f"{PATH}/{endpoint['id']}/test")
    (one,) = net.received(1, "/replayed")
    forgeries = [
        Received(path="", headers={**one.headers, "webhook-id": "whd_other"}, body=one.body),
        Received(
            path="",
            headers={
                **one.headers,
                "webhook-timestamp": str(int(one.headers["webhook-timestamp"]) + 1),
            },
            body=one.body,
        ),
        Received(
            path="", headers={**one.headers, "webhook-timestamp": "1000000000"}, body=one.body
        ),
        Received(path="", headers=one.headers, body=one.body + b" "),
    ]
    for forged in forgeries:
        with pytest.raises(WebhookVerificationError):
            verified(endpoint["secret"], forged)


def test_a_change_names_the_version_that_it_means(client: httpx2.Client) -> None:
    endpoint = made(client, "/changed")
    path = f"{PATH}/{endpoint['id']}"
    tag = client.get(path).headers["etag"]
    problem_of(client.patch(path, json={"enabled": False}), 428, "precondition-required")
    problem_of(client.delete(path), 428, "precondition-required")
    changed = client.patch(path, json={"enabled": False}, headers={"If-Match": tag})
    assert (changed.status_code, changed.json()["enabled"]) == (200, False)
    assert changed.headers["etag"] != tag
    for attempt in (tag, '"none"', f"W/{changed.headers['etag']}", ""):
        told = client.patch(path, json={"enabled": True}, headers={"If-Match": attempt})
        problem_of(told, 412, "precondition-failed")
        problem_of(client.delete(path, headers={"If-Match": attempt}), 412, "precondition-failed")
    several = f'"none", {changed.headers["etag"]}'
    again = client.patch(path, json={"events": ["run.failed"]}, headers={"If-Match": several})
    assert again.json()["events"] == ["run.failed"]
    assert client.get(path).headers["etag"] == again.headers["etag"]
    assert client.delete(path, headers={"If-Match": again.headers["etag"]}).status_code == 204
    problem_of(client.get(path), 404, "not-found")
    problem_of(client.delete(path, headers={"If-Match": "*"}), 404, "not-found")


def test_a_disabled_endpoint_takes_no_test_and_no_redelivery(
    client: httpx2.Client, net: HookField
) -> None:
    endpoint = made(client, "/disabled")
    path = f"{PATH}/{endpoint['id']}"
    client.post(f"{path}/test")
    net.received(1, "/disabled")
    (delivery,) = _settled(client, endpoint["id"])
    client.patch(path, json={"enabled": False}, headers={"If-Match": "*"})
    problem_of(client.post(f"{path}/test"), 422, "invalid-submission")
    again = f"{path}/deliveries/{delivery['id']}/redeliver"
    problem_of(client.post(again), 422, "invalid-submission")
    client.patch(path, json={"enabled": True}, headers={"If-Match": "*"})
    assert client.post(again).status_code == 202
    first, second = net.received(2, "/disabled", again=True)[:2]
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == delivery["id"]


def test_deliveries_are_listed_page_by_page(client: httpx2.Client) -> None:
    endpoint = made(client, "/pages")
    path = f"{PATH}/{endpoint['id']}"
    ids = [client.post(f"{path}/test").json()["id"] for _ in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        query = {"limit": "2"} if cursor is None else {"limit": "2", "cursor": cursor}
        page = client.get(f"{path}/deliveries", params=query).json()
        seen += [item["id"] for item in page["data"]]
        cursor = page["next_cursor"]
    assert seen == sorted(ids, reverse=True)
    assert cursor is None
    bad = client.get(f"{path}/deliveries", params={"cursor": "whd_x"})
    problem_of(bad, 422, "invalid-submission")


def test_an_endpoint_of_another_tenant_is_none(
    client: httpx2.Client, server: LiveServer, net: HookField
) -> None:
    endpoint = made(client, "/mine")
    path = f"{PATH}/{endpoint['id']}"
    client.post(f"{path}/test")
    net.received(1, "/mine")
    (delivery,) = _settled(client, endpoint["id"])
    with server.client("other") as other:
        assert other.get(PATH).json()["data"] == []
        theirs = made(other, "/theirs")
        mixed = f"{PATH}/{theirs['id']}/deliveries/{delivery['id']}/redeliver"
        for told in (
            other.get(path),
            other.get(f"{path}/deliveries"),
            other.patch(path, json={"enabled": False}, headers={"If-Match": "*"}),
            other.delete(path, headers={"If-Match": "*"}),
            other.post(f"{path}/test"),
            other.post(f"{path}/rotate-secret"),
            other.post(f"{path}/deliveries/{delivery['id']}/redeliver"),
            other.post(mixed),
        ):
            problem_of(told, 404, "not-found")
        other.delete(f"{PATH}/{theirs['id']}", headers={"If-Match": "*"})
    assert client.get(path).json()["enabled"] is True


def test_a_tenant_has_so_many_endpoints_and_no_more(server: LiveServer) -> None:
    with server.client("other") as client:
        body = {"url": "https://www.allowed.example/many", "events": ENDS}
        made_now = [client.post(PATH, json=body) for _ in range(51)]
        assert [one.status_code for one in made_now] == [201] * 50 + [422]
        for endpoint in client.get(PATH).json()["data"]:
            client.delete(f"{PATH}/{endpoint['id']}", headers={"If-Match": "*"})
        assert client.get(PATH).json()["data"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"url": "https://www.allowed.example/", "events": []},
        {"url": "https://www.allowed.example/", "events": ["run.exploded"]},
        {"url": "https://www.allowed.example/", "events": ["webhook.test"]},
        {"url": "", "events": ENDS},
        {"url": "https://www.allowed.example/", "events": ENDS, "secret": "whsec_mine"},
        {"events": ENDS},
    ],
)
def test_what_does_not_fit_is_refused(client: httpx2.Client, body: dict[str, object]) -> None:
    problem_of(client.post(PATH, json=body), 422, "validation")


def test_every_change_is_recorded_with_who_made_it(
    client: httpx2.Client, server: LiveServer
) -> None:
    of_log = (
        "SELECT r.header FROM record r JOIN tenants t USING (tenant_id)"
        " WHERE r.kind = 'webhook.changed' AND t.name = 'acme' ORDER BY r.seq"
    )
    before = len(rows(server.roles, of_log))
    endpoint = made(client, "/recorded")
    path = f"{PATH}/{endpoint['id']}"
    client.patch(path, json={"enabled": False}, headers={"If-Match": "*"})
    client.post(f"{path}/rotate-secret")
    client.delete(path, headers={"If-Match": "*"})
    problem_of(client.patch(path, json={}, headers={"If-Match": "*"}), 404, "not-found")
    found = rows(server.roles, of_log)[before:]
    fingerprint = client.get("/v1/whoami").json()["fingerprint"]
    assert len(found) == 4
    assert all(f"key:{fingerprint}".encode() in row["header"] for row in found)
