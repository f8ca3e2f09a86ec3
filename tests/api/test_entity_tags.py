"""A poller that knows a run as it is told so in one line, and never a stale or foreign one."""

import asyncio

import httpx2
import pytest

from app.api.entity_tags import is_known, run_tag
from tests.support.api_matrix import finished, problem_of, says, scripted
from tests.support.databases import DatabaseServer, execute
from tests.support.live_server import live_server


def test_a_run_that_has_not_changed_is_not_sent_again(acme: httpx2.Client) -> None:
    run = finished(acme, {"task": "1+1"})
    first = acme.get(f"/v1/runs/{run['id']}")
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    assert first.headers["cache-control"] == "no-store"
    for known in (tag, f'"x", {tag}', tag.removeprefix("W/"), "*"):
        again = acme.get(f"/v1/runs/{run['id']}", headers={"If-None-Match": known})
        if again.headers["etag"] != tag:
            continue  # a witness has seen it meanwhile: it reads differently now
        assert (again.status_code, again.content) == (304, b"")
    other = acme.get(f"/v1/runs/{run['id']}", headers={"If-None-Match": f'"x{tag}"'})
    assert other.status_code == 200


def test_a_tag_changes_with_the_run_and_with_the_reader(api_databases: DatabaseServer) -> None:
    with (
        live_server(api_databases.new_database(), scripted(says("done"))) as server,
        server.client() as client,
        server.client("audit") as auditor,
    ):
        begun = client.post("/v1/runs", json={"task": "x"})
        address = begun.headers["location"]
        early = client.get(address).headers["etag"]
        while client.get(address).json()["status"] != "succeeded":
            pass
        late = client.get(address, headers={"If-None-Match": early})
        assert late.status_code == 200 or late.headers["etag"] == early
        assert client.get(address).headers["etag"] != auditor.get(address).headers["etag"]


def test_a_tag_never_stands_in_for_a_broken_run(api_databases: DatabaseServer) -> None:
    roles = api_databases.new_database()
    with live_server(roles) as server, server.client() as client:
        run = finished(client, {"task": "1+1"})
        tag = client.get(f"/v1/runs/{run['id']}").headers["etag"]
        asyncio.run(execute(roles.superuser, "UPDATE runs SET model = 'other'"))
        for known in (tag, "*"):
            broken = client.get(f"/v1/runs/{run['id']}", headers={"If-None-Match": known})
            problem_of(broken, 409, "ledger-broken")
        nobody = client.get("/v1/runs/run_" + "0" * 32, headers={"If-None-Match": "*"})
        problem_of(nobody, 404, "not-found")


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        (None, False),
        ("", False),
        ('W/"a"', True),
        ('"a"', True),
        (' "b" ,W/"a" ', True),
        ("a", False),
        ('W/"aa"', False),
        ("*", True),
        (" * ", True),
        ('"a"' + " " * 5000, False),
    ],
)
def test_tags_are_compared_weakly(sent: str | None, known: bool) -> None:
    assert is_known(sent, 'W/"a"') is known


def test_a_tag_says_nothing_without_the_key() -> None:
    assert run_tag(b"k" * 32, b"shown") != run_tag(b"l" * 32, b"shown")
    assert run_tag(b"k" * 32, b"shown") != run_tag(b"k" * 32, b"other")
