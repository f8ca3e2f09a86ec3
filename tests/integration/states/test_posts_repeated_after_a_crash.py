"""A POST whose process died between the act and its answer is done again, and changes nothing more.

At least once: cancel, stop and erasure are acts that come to the same when they come twice. The
death is made of its trace: a key that was taken and never answered for, whose lease is over.
"""

from collections.abc import Iterator
from uuid import uuid4

import httpx2
import pytest

from app.domain.erasure import ErasureStatus, parse_erasure_id
from tests.integration.erasing.erasing_scene import erasing_beside
from tests.security.tampering_scene import Run, finished_run
from tests.support.api_matrix import Gate, patiently, says, scripted
from tests.support.databases import DatabaseServer, connect
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio
CRASHED = """
UPDATE idempotency SET status = NULL, told = NULL, run_id = NULL,
  created_at = now() - interval '1 hour'
"""


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def live(postgres: DatabaseServer, gate: Gate) -> Iterator[LiveServer]:
    overrides = scripted(*([says("42")] * 9), gate=gate)
    with live_server(postgres.new_database(), overrides) as served:
        yield served


@pytest.fixture
def plain(postgres: DatabaseServer) -> Iterator[LiveServer]:
    with live_server(postgres.new_database()) as served:
        yield served


async def _crashed(live: LiveServer) -> None:
    raw = await connect(live.roles.superuser)
    done = await raw.execute(CRASHED)
    await raw.close()
    assert done == "UPDATE 1"


def _key() -> dict[str, str]:
    return {"Idempotency-Key": f'"{uuid4()}"'}


def _submitted(client: httpx2.Client) -> str:
    return str(client.post("/v1/runs", json={"task": "6*7"}).raise_for_status().json()["id"])


def _cancelled(client: httpx2.Client, run_id: str) -> list[str]:
    for _ in patiently():
        if client.get(f"/v1/runs/{run_id}").json()["status"] == "cancelled":
            break
    page = client.get(f"/v1/runs/{run_id}/entries", params={"limit": 200}).raise_for_status()
    return [entry["kind"] for entry in page.json()["data"]]


async def test_a_cancel_that_comes_again_finds_the_run_over(live: LiveServer, gate: Gate) -> None:
    with live.client() as client:
        run_id, key = _submitted(client), _key()
        assert gate.reached.wait(120)
        first = client.post(f"/v1/runs/{run_id}/cancel", headers=key)
        kinds = _cancelled(client, run_id)
        await _crashed(live)
        second = client.post(f"/v1/runs/{run_id}/cancel", headers=key)
        third = client.post(f"/v1/runs/{run_id}/cancel", headers=key)
        assert _cancelled(client, run_id) == kinds
    assert [answer.status_code for answer in (first, second, third)] == [202, 200, 200]
    assert "Idempotency-Replayed" not in second.headers
    assert third.headers["Idempotency-Replayed"] == "true"
    assert kinds.count("run.cancel_requested") == 1


async def test_a_cancel_that_comes_again_while_the_run_goes_on_is_one_wish_more(
    live: LiveServer, gate: Gate
) -> None:
    with live.client() as client:
        driven, waiting, key = _submitted(client), _submitted(client), _key()
        assert gate.reached.wait(120)
        client.post(f"/v1/runs/{waiting}/cancel", headers=key).raise_for_status()
        await _crashed(live)
        client.post(f"/v1/runs/{waiting}/cancel", headers=key).raise_for_status()
        assert _cancelled(client, waiting).count("run.cancel_requested") == 1
        assert client.get(f"/v1/runs/{driven}").json()["finished_at"] is None


async def test_a_stop_that_comes_again_is_recorded_again_and_ends_no_run_twice(
    live: LiveServer, gate: Gate
) -> None:
    with live.client() as client:
        run_id, key = _submitted(client), _key()
        assert gate.reached.wait(120)
        first = client.post("/v1/stops", json={}, headers=key).raise_for_status().json()
        kinds = _cancelled(client, run_id)
        await _crashed(live)
        second = client.post("/v1/stops", json={}, headers=key).raise_for_status().json()
        assert _cancelled(client, run_id) == kinds
    assert (first["runs"], second["runs"]) == (1, 0)
    assert second["seq"] > first["seq"]
    assert kinds.count("run.cancel_requested") == 1


@pytest.mark.parametrize("action", ["delete_run", "anonymize_run"])
async def test_an_erasure_that_comes_again_has_a_receipt_of_its_own_and_erases_nothing_more(
    plain: LiveServer, action: str
) -> None:
    live = plain
    with live.client() as client:
        mine, other = finished_run(live), finished_run(live)
        body = {
            "action": action,
            "run_id": mine.public,
            "legal_basis": "gdpr.art17",
            "request_ref": "ticket 4711",
        }
        key = _key()
        asked = [client.post("/v1/erasures", json=body, headers=key).raise_for_status().json()]
        await _crashed(live)
        asked.append(client.post("/v1/erasures", json=body, headers=key).raise_for_status().json())
        assert asked[0]["id"] != asked[1]["id"]
        async with erasing_beside(live) as erasing:
            await erasing.at_work.eraser.execute_waiting()
            found = []
            for one in asked:
                erasure_id = parse_erasure_id(one["id"])
                assert erasure_id is not None
                found.append(await erasing.parts.desk.receipt(erasing.tenant_id, erasure_id))
            gone = [len(await erasing.rows("payload", run.run_id)) for run in (mine, other)]
        _is_as_it_was(client, other)
        proof = client.get(f"/v1/runs/{mine.public}/verification").json()
    states = [receipt.status for receipt in found]
    assert states[0] is ErasureStatus.COMPLETE
    assert states[1] in (ErasureStatus.COMPLETE, ErasureStatus.REFUSED)
    assert gone[0] < gone[1]
    assert proof["verdict"] == "valid", proof


def _is_as_it_was(client: httpx2.Client, run: Run) -> None:
    proof = client.get(f"/v1/runs/{run.public}/verification").raise_for_status().json()
    assert proof["verdict"] == "valid"
