"""The list of runs: narrowed by what is asked for, and turned over page by page in any process."""

from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2
import pytest

from tests.support.api_matrix import finished, problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

RUNS = 7


@pytest.fixture(scope="module")
def here(api_databases: DatabaseServer) -> Iterator[LiveServer]:
    with live_server(api_databases.new_database()) as server:
        with server.client() as client:
            for _ in range(RUNS):
                finished(client, {"task": "1+1"})
            denied = {"task": "x", "capabilities": {"tools": ["no_such_tool"]}}
            assert client.post("/v1/runs", json=denied).status_code == 403
        yield server


@pytest.fixture(scope="module")
def there(here: LiveServer) -> Iterator[LiveServer]:
    """Another process of the same deployment."""
    with live_server(here.roles) as server:
        yield server


def _listed(client: httpx2.Client, **query: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (
        client.get("/v1/runs", params=query).raise_for_status().json()["data"]
    )
    return found


def test_pages_are_turned_over_in_either_process(here: LiveServer, there: LiveServer) -> None:
    with here.client() as one, there.client() as two:
        whole = [run["id"] for run in _listed(one)]
        found: list[str] = []
        query = {"limit": "3"}
        for client in (one, two, one):
            page = client.get("/v1/runs", params=query).raise_for_status().json()
            found += [run["id"] for run in page["data"]]
            query["cursor"] = page["next_cursor"]
    assert page["has_more"] is False
    assert found == whole
    assert len(found) == RUNS + 1


def test_a_cursor_is_for_its_filters_and_its_tenant(here: LiveServer) -> None:
    with here.client() as client, here.client("other") as other:
        narrowed = {"status": "succeeded", "limit": "2"}
        cursor = client.get("/v1/runs", params=narrowed).json()["next_cursor"]
        again = client.get("/v1/runs", params={**narrowed, "limit": "3", "cursor": cursor})
        assert again.status_code == 200
        refused = (
            (client, {"cursor": cursor}),
            (client, {"cursor": cursor, "status": "failed"}),
            (client, {"cursor": cursor, **narrowed, "agent": "assistant"}),
            (client, {"cursor": cursor, **narrowed, "created_after": "2020-01-01T00:00:00Z"}),
            (other, {"cursor": cursor, **narrowed}),
            (client, {"cursor": again.json()["data"][0]["id"], **narrowed}),
            (client, {"cursor": cursor[:-1], **narrowed}),
        )
        for who, query in refused:
            answer = who.get("/v1/runs", params=query)
            problem = problem_of(answer, 422, "invalid-submission")
            assert problem["errors"][0]["pointer"] == "/query/cursor"


def test_runs_are_narrowed_by_when_they_were_made(here: LiveServer) -> None:
    with here.client() as client:
        whole = _listed(client)
        middle = whole[3]["created_at"]
        later, earlier = (
            _listed(client, **{name: middle}) for name in ("created_after", "created_before")
        )
        assert [run["id"] for run in later] == [run["id"] for run in whole[:3]]
        assert [run["id"] for run in earlier] == [run["id"] for run in whole[4:]]
        both = _listed(client, created_after=whole[-1]["created_at"], created_before=middle)
        assert [run["id"] for run in both] == [run["id"] for run in whole[4:-1]]
        moment = datetime.fromisoformat(middle).astimezone(UTC)
        elsewhere = moment.isoformat().replace("+00:00", "-00:00")
        assert _listed(client, created_after=elsewhere) == later
        assert _listed(client, status="blocked", created_before=middle) == []


@pytest.mark.parametrize("name", ["created_after", "created_before"])
@pytest.mark.parametrize(
    "moment",
    [
        "",
        "yesterday",
        "2026-11-25T12:00:00",  # of which place?
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1969-12-31T23:59:59Z",
        "infinity",
    ],
)
def test_a_time_that_is_none_is_refused(here: LiveServer, name: str, moment: str) -> None:
    with here.client() as client:
        problem_of(client.get("/v1/runs", params={name: moment}), 422, "validation")


def test_runs_are_narrowed_by_their_metadata_in_either_process(
    here: LiveServer, there: LiveServer
) -> None:
    def found(client: httpx2.Client, **query: str) -> set[str]:
        asked = {f"metadata.{key}": value for key, value in query.items()}
        return {run["id"] for run in _listed(client, **asked)}

    said = [
        {"ticket": "T-1", "count": 3, "urgent": True, "nested": {"a": 1}},
        {"ticket": "T-1", "count": 4},
        {"ticket": "T-2"},
    ]
    with here.client() as one, there.client() as two, here.client("other") as other:
        first, second, third = [
            finished(one, {"task": "1+1", "metadata": metadata})["id"] for metadata in said
        ]
        denied = {"task": "x", "capabilities": {"tools": ["no_such_tool"]}}
        refusal = one.post("/v1/runs", json={**denied, "metadata": {"ticket": "T-3"}}).json()
        for client in (one, two):
            assert found(client, ticket="T-1") == {first, second}
            assert found(client, ticket="T-1", count="4") == {second}
            assert found(client, urgent="true") == {first}
            assert found(client, ticket="T-2") == {third}
            assert found(client, ticket="T-3") == {refusal["run_id"]}
            assert found(client, ticket="t-1") == set()
            assert found(client, nested='{"a": 1}') == set()
        assert found(other, ticket="T-1") == set()
        narrowed = {"metadata.ticket": "T-1", "limit": "1"}
        cursor = one.get("/v1/runs", params=narrowed).json()["next_cursor"]
        page = two.get("/v1/runs", params={**narrowed, "cursor": cursor}).json()
        assert [run["id"] for run in page["data"]] == [first]
        for query in ({"limit": "1"}, {"metadata.ticket": "T-2"}):
            problem_of(
                one.get("/v1/runs", params={**query, "cursor": cursor}), 422, "invalid-submission"
            )


@pytest.mark.parametrize(
    "query",
    [
        {"metadata.": "x"},
        {"metadata." + "k" * 65: "x"},
        {"metadata.k": "v" * 257},
        {f"metadata.k{number}": "v" for number in range(5)},
    ],
)
def test_a_filter_that_no_run_is_indexed_by_is_refused(
    here: LiveServer, query: dict[str, str]
) -> None:
    with here.client() as client:
        problem = problem_of(client.get("/v1/runs", params=query), 422, "invalid-submission")
    assert problem["errors"][0]["pointer"] == "/query/metadata"
