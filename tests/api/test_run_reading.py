"""Lists, pages, and how much of an output a reader is shown, and for how long."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import httpx2
import pytest

from app.runs import dispatcher
from tests.support.api_matrix import finished, problem_of, says, scripted
from tests.support.databases import DatabaseServer, execute
from tests.support.live_server import KEY_ITEMS, LiveServer, live_server
from tests.unit.privacy.made_secrets import made

TOKEN = made("github-token")
OPERATE = "operate-key-00000000000000000000"
RUNS = 120


@pytest.fixture(scope="module")
def crowd(api_databases: DatabaseServer) -> Iterator[LiveServer]:
    """A server with 120 runs of one tenant and one of another."""
    with (
        live_server(api_databases.new_database()) as server,
        server.client() as client,
        server.client("other") as other,
    ):
        finished(other, {"task": "1+1"})

        def submit(_: int) -> None:
            finished(client, {"task": "1+1"})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(submit, range(RUNS - 1)))
        denied = {"task": "x", "capabilities": {"tools": ["no_such_tool"]}}
        assert client.post("/v1/runs", json=denied).status_code == 403
        yield server


def pages(client: httpx2.Client, path: str, **query: str) -> Iterator[list[dict[str, Any]]]:
    """Page after page as long as the server says that there is more."""
    name = "after_seq" if path.endswith("/entries") else "cursor"
    while True:
        response = client.get(path, params=query)
        assert response.status_code == 200, response.text
        page = response.json()
        assert set(page) == {"data", "has_more", "next_cursor"}
        yield page["data"]
        assert page["has_more"] is (page["next_cursor"] is not None)
        if not page["has_more"]:
            return
        query[name] = page["next_cursor"]


@pytest.mark.parametrize("limit", [1, 7, 40, 120, 200])
def test_pages_of_any_size_hold_every_run_once(limit: int, crowd: LiveServer) -> None:
    with crowd.client() as client:
        found = list(pages(client, "/v1/runs", limit=str(limit)))
    ids = [run["id"] for page in found for run in page]
    assert len(ids) == len(set(ids)) == RUNS
    assert ids == sorted(ids, reverse=True)
    assert {len(page) for page in found[:-1]} <= {limit}


def test_a_run_made_between_two_pages_neither_shifts_nor_repeats_any(crowd: LiveServer) -> None:
    with crowd.client("other") as client:
        for _ in range(5):
            finished(client, {"task": "1+1"})
        expected = {run["id"] for run in client.get("/v1/runs").json()["data"]}
        seen: list[str] = []
        for page in pages(client, "/v1/runs", limit="2"):
            seen += [run["id"] for run in page]
            if len(seen) < 6:
                finished(client, {"task": "1+1"})
    assert len(seen) == len(set(seen))
    assert set(seen) == expected


def test_a_page_of_50_is_the_default(crowd: LiveServer) -> None:
    with crowd.client("audit") as client:
        assert len(client.get("/v1/runs").json()["data"]) == 50


def test_lists_hold_no_content(crowd: LiveServer) -> None:
    with crowd.client() as client:
        for run in client.get("/v1/runs").json()["data"]:
            assert not {"task", "output", "metadata"} & set(run)


def test_filters_hold_on_every_page(crowd: LiveServer) -> None:
    with crowd.client() as client:
        good = [run for page in pages(client, "/v1/runs", status="succeeded") for run in page]
        bad = [run for page in pages(client, "/v1/runs", status="blocked") for run in page]
        none = [run for page in pages(client, "/v1/runs", status="expired") for run in page]
        own = [run for page in pages(client, "/v1/runs", agent="assistant") for run in page]
        nobody = [run for page in pages(client, "/v1/runs", agent="nobody") for run in page]
    assert (len(good), len(bad), len(none), len(own), len(nobody)) == (RUNS - 1, 1, 0, RUNS, 0)
    assert {run["status"] for run in good} == {"succeeded"}
    assert bad[0]["error"] == {"code": "capability:not_granted"}


def test_entries_come_in_chain_order_in_pages_of_any_size(acme: httpx2.Client) -> None:
    run = finished(acme, {"task": "Calculate 6*7"})
    path = f"/v1/runs/{run['id']}/entries"
    whole = acme.get(path, params={"limit": "200"}).json()["data"]
    assert [entry["seq"] for entry in whole] == list(range(run["entries"]))
    assert run["entries"] > 3
    for limit in range(1, run["entries"] + 2):
        found = [entry for page in pages(acme, path, limit=str(limit)) for entry in page]
        assert found == whole
    for after in range(-1, run["entries"] + 2):
        rest = acme.get(path, params={"after_seq": str(after)}).json()
        assert rest["data"] == whole[after + 1 :]
        assert rest["has_more"] is False
    assert acme.get(path, params={"after_seq": str(2**53)}).json()["data"] == []


def _read(server: LiveServer, who: str, run_id: str) -> dict[str, Any]:
    with server.client(who) as client:
        run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
        return run


def test_the_released_output_is_shown_in_full_only_to_who_may_run(
    api_databases: DatabaseServer,
) -> None:
    said = f"the token is {TOKEN}"
    with (
        live_server(api_databases.new_database(), scripted(says(said))) as server,
        server.client() as client,
    ):
        waited = finished(client, {"task": "x"})
        run_id = waited["id"]
        assert (waited["output"], waited["output_state"]) == (said, "full")
        for who in ("acme", "forms"):
            run = _read(server, who, run_id)
            assert (run["output"], run["output_state"]) == (said, "full")
        audited = _read(server, "audit", run_id)
        assert audited["output_state"] == "scrubbed"
        assert TOKEN not in audited["output"]
        assert audited["output"].startswith("the token is [SECRET:")
        path = f"/v1/runs/{run_id}"
        entries = client.get(f"{path}/entries").text
        events = client.get(f"{path}/events", params={"follow": "false"}).text
        for told in (entries, events, client.get(f"{path}/verification").text):
            assert TOKEN not in told
        assert audited["output"] in entries
        assert audited["output"] in events
        assert client.post(f"{path}/cancel").json()["output"] == said


def test_who_may_only_operate_gets_no_full_output_back_from_a_cancel(
    api_databases: DatabaseServer,
) -> None:
    items = f"{KEY_ITEMS},acme:operate:{OPERATE}"
    roles = api_databases.new_database()
    with (
        live_server(roles, scripted(says(TOKEN)), MESHFLOW_API_KEYS=items) as server,
        server.client() as client,
    ):
        run = finished(client, {"task": "x"})
        key = {"Authorization": f"Bearer {OPERATE}"}
        stopped = client.post(f"/v1/runs/{run['id']}/cancel", headers=key)
        assert stopped.json()["output_state"] == "scrubbed"
        assert TOKEN not in stopped.text


def test_with_no_time_to_keep_it_the_output_is_scrubbed_at_once(
    api_databases: DatabaseServer,
) -> None:
    roles = api_databases.new_database()
    with (
        live_server(roles, scripted(says(TOKEN)), MESHFLOW_RESULT_TTL="0") as server,
        server.client() as client,
    ):
        run = finished(client, {"task": "x"})
        assert (run["status"], run["output_state"]) == ("succeeded", "scrubbed")
        assert TOKEN not in client.get(f"/v1/runs/{run['id']}").text


def test_a_result_past_its_time_is_scrubbed_before_anybody_sweeps_it_away(
    api_databases: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "SWEEP_BEATS", 10**9)
    roles = api_databases.new_database()
    with (
        live_server(roles, scripted(says(TOKEN)), MESHFLOW_RESULT_TTL="2") as server,
        server.client() as client,
    ):
        run = finished(client, {"task": "x"})
        time.sleep(2.1)  # the time to keep it is what is tested
        now = client.get(f"/v1/runs/{run['id']}").json()
        assert (now["status"], now["output_state"]) == ("succeeded", "scrubbed")
        assert TOKEN not in now["output"]


def test_a_secret_in_the_task_is_never_shown_back(acme: httpx2.Client) -> None:
    body = {"task": f"1+1 with {TOKEN}", "metadata": {"note": TOKEN}}
    response = acme.post("/v1/runs", json=body)
    run_id = response.json()["id"]
    assert response.status_code == 202
    assert TOKEN not in response.text
    assert TOKEN not in acme.get(f"/v1/runs/{run_id}/entries").text
    assert TOKEN not in str(acme.get(f"/v1/runs/{run_id}").json()["task"])


def test_a_verification_says_what_it_proves_and_what_not(acme: httpx2.Client) -> None:
    run = finished(acme, {"task": "6*7"})
    found = acme.get(f"/v1/runs/{run['id']}/verification").json()
    assert (found["verdict"], found["break"], found["run_id"]) == ("valid", None, run["id"])
    assert found["entries"] == run["entries"]
    assert found["proves"]
    assert found["does_not_prove"]
    assert found["integrity"]["unwitnessed"] == run["entries"]  # there is no witness here
    assert isinstance(found["unwitnessed_age_seconds"], int)
    last = acme.get(f"/v1/runs/{run['id']}/entries").json()["data"][-1]
    assert found["head"] == last["chain_hash"]


def test_a_run_whose_ledger_is_broken_shows_nothing_but_the_break(
    api_databases: DatabaseServer,
) -> None:
    roles = api_databases.new_database()
    with live_server(roles) as server, server.client() as client:
        whole = finished(client, {"task": "6*7"})
        broken = finished(client, {"task": "Calculate 8*9"})
        run_id = UUID(hex=broken["id"].removeprefix("run_"))
        tamper = f"UPDATE record SET kind = 'run.started' WHERE run_id = '{run_id}' AND seq = 2"
        asyncio.run(execute(roles.superuser, "ALTER TABLE record DISABLE TRIGGER ALL", tamper))
        path = f"/v1/runs/{broken['id']}"
        for read in (path, f"{path}/entries", f"{path}/events"):
            response = client.get(read)
            problem = problem_of(response, 409, "ledger-broken")
            assert "seq 2" in problem["detail"]
            assert "72" not in response.text.replace(problem["request_id"], "")
        found = client.get(f"{path}/verification").json()
        assert (found["verdict"], found["break"]["seq"]) == ("broken", 2)
        assert (found["head"], found["proves"], found["integrity"]["state"]) == (None, [], "broken")
        assert found["unwitnessed_age_seconds"] is None
        assert client.get(f"/v1/runs/{whole['id']}").json()["status"] == "succeeded"
