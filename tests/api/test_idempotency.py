"""What is posted with an Idempotency-Key is done once, whatever comes again and wherever."""

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import httpx2
import pytest

from app.runs.idempotency_desk import IdempotencyDesk, SentRequest
from app.wiring import Overrides
from tests.integration.erasing.erasing_scene import erasing_beside
from tests.integration.gate.gate_scenes import rows
from tests.security.tampering_scene import Run
from tests.support.api_matrix import Operation, operations, problem_of
from tests.support.databases import DatabaseServer, connect
from tests.support.live_server import KEYS, LiveServer, live_server
from tests.support.webhook_receiver import hook_field_beside

TASK = {"task": "6*7"}
DENIED = {"task": "x", "capabilities": {"tools": ["no_such_tool"]}}


def new_key() -> dict[str, str]:
    """A header with a key that nobody has used."""
    return {"Idempotency-Key": f'"{uuid4()}"'}


def count_runs(live: LiveServer) -> int:
    return int(rows(live.roles, "SELECT count(*) AS n FROM runs WHERE kind = 'agent'")[0]["n"])


@pytest.fixture(scope="module")
def here(api_databases: DatabaseServer) -> Iterator[LiveServer]:
    """A server whose runs these tests count, and that finds an endpoint for its webhooks."""
    with (
        hook_field_beside() as field,
        live_server(api_databases.new_database(), Overrides(egress=field.net.parts)) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def there(here: LiveServer) -> Iterator[LiveServer]:
    """Another process of the same deployment."""
    with live_server(here.roles) as server:
        yield server


def test_a_submission_that_comes_again_is_answered_with_the_first_run(
    here: LiveServer, there: LiveServer
) -> None:
    key = new_key()
    with here.client() as client:
        first = client.post("/v1/runs", json=TASK, headers=key)
        before = count_runs(here)
        again = client.post("/v1/runs", json=TASK, headers=key)
    with there.client() as client:
        elsewhere = client.post("/v1/runs", json=TASK, headers={**key, "Prefer": "wait=20"})
    assert (first.status_code, again.status_code, elsewhere.status_code) == (202, 202, 200)
    assert "idempotency-replayed" not in first.headers
    for answer in (again, elsewhere):
        assert answer.headers["idempotency-replayed"] == "true"
        assert answer.headers["location"] == first.headers["location"]
        told, original = answer.json(), first.json()
        assert set(told) == set(original)
        for name in ("id", "task", "created_at", "policy", "model"):
            assert told[name] == original[name]
        for name in ("log", "run", "seq", "record_hash", "chain_hash"):
            assert told["receipt"][name] == original["receipt"][name]
    assert elsewhere.json()["status"] == "succeeded"
    assert count_runs(here) == before


def test_a_refusal_that_comes_again_is_the_same_refusal(here: LiveServer) -> None:
    key = new_key()
    with here.client() as client:
        first = problem_of(client.post("/v1/runs", json=DENIED, headers=key), 403, "policy-denied")
        before = count_runs(here)
        answer = client.post("/v1/runs", json=DENIED, headers=key)
    again = problem_of(answer, 403, "policy-denied")
    assert answer.headers["idempotency-replayed"] == "true"
    assert again["receipt"].pop("batch") is None  # the signature was given once
    assert first["receipt"].pop("batch")
    assert {**again, "request_id": ""} == {**first, "request_id": ""}
    assert first["rules"]
    assert count_runs(here) == before


def test_the_same_bytes_count_and_nothing_that_means_the_same(here: LiveServer) -> None:
    key = {**new_key(), "Content-Type": "application/json"}
    bodies = (
        b'{"task":"6*7", "metadata":{"a":1}}',
        b'{"task": "6*7", "metadata":{"a":1}}',
        b'{"metadata":{"a":1},"task":"6*7"}',
        b'{"task":"6*8", "metadata":{"a":1}}',
    )
    with here.client() as client:
        assert client.post("/v1/runs", content=bodies[0], headers=key).status_code == 202
        before = count_runs(here)
        for body in bodies[1:]:
            answer = client.post("/v1/runs", content=body, headers=key)
            problem_of(answer, 422, "idempotency-key-reused")
            assert "idempotency-replayed" not in answer.headers
        answer = client.post("/v1/stops", json={"agent": "nobody"}, headers=key)
        problem_of(answer, 422, "idempotency-key-reused")
        answer = client.post("/v1/runs?a=1", content=bodies[0], headers=key)
        problem_of(answer, 422, "idempotency-key-reused")
        assert client.post("/v1/runs", content=bodies[0], headers=key).status_code == 202
    assert count_runs(here) == before


def test_the_same_body_to_another_path_is_another_request(here: LiveServer) -> None:
    key = new_key()
    with here.client() as client:
        one, two = (_submitted(client, new_key()).public for _ in range(2))
        assert client.post(f"/v1/runs/{one}/cancel", headers=key).status_code == 200
        answer = client.post(f"/v1/runs/{two}/cancel", headers=key)
        problem_of(answer, 422, "idempotency-key-reused")
        again = client.post(f"/v1/runs/{one}/cancel", headers=key)
        assert (again.status_code, again.json()["id"]) == (200, one)


def test_another_tenant_has_keys_of_its_own_and_another_scope_is_another_request(
    here: LiveServer,
) -> None:
    key = new_key()
    with here.client() as acme, here.client("forms") as forms, here.client("other") as other:
        mine = acme.post("/v1/runs", json=TASK, headers=key).json()
        theirs = other.post("/v1/runs", json=TASK, headers=key)
        assert theirs.status_code == 202
        assert "idempotency-replayed" not in theirs.headers
        assert theirs.json()["id"] != mine["id"]
        # The same task has more authority under the first key than under this one.
        answer = forms.post("/v1/runs", json=TASK, headers=key)
        problem_of(answer, 422, "idempotency-key-reused")
    with here.client("audit") as audit:
        problem_of(audit.post("/v1/runs", json=TASK, headers=key), 403, "forbidden")


@pytest.mark.parametrize(
    "sent",
    [
        ["unquoted"],
        ['""'],
        ['"' + "k" * 256 + '"'],
        ['"' + '\\"' * 256 + '"'],
        ['"open'],
        ['"a" "b"'],
        ['"a", "b"'],
        ['"a";b=1'],
        ['"\\a"'],
        ['"a\tb"'],
        [":YWJj:"],
        ["1"],
        ['"a"', '"a"'],
        ['"k\xe9y"'],
    ],
)
def test_what_is_no_key_is_refused_and_nothing_is_done(here: LiveServer, sent: list[str]) -> None:
    headers = [("Idempotency-Key", item) for item in sent]
    before = count_runs(here)
    with here.client() as client:
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        answer = client.post("/v1/runs", json=TASK, headers=encoded)
    problem = problem_of(answer, 400, "idempotency-key-malformed")
    assert "unquoted" not in json.dumps(problem)
    assert count_runs(here) == before


@pytest.mark.parametrize("key", ["k" * 255, '\\"' * 255, "\\\\", " ", "~!@#$%^&*()"])
def test_a_key_has_up_to_255_characters(here: LiveServer, key: str) -> None:
    headers = {"Idempotency-Key": f'"{key}"'}
    with here.client() as client:
        first = client.post("/v1/runs", json=TASK, headers=headers)
        again = client.post("/v1/runs", json=TASK, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]


def test_a_request_that_was_refused_unrecorded_leaves_its_key_free(here: LiveServer) -> None:
    key = new_key()
    with here.client() as client:
        wrong = {"task": "6*7", "agent": "nobody-like-that"}
        problem_of(client.post("/v1/runs", json=wrong, headers=key), 422, "invalid-submission")
        unknown = client.post(f"/v1/runs/run_{'0' * 32}/cancel", headers=key)
        problem_of(unknown, 404, "not-found")
        answer = client.post("/v1/runs", json=TASK, headers=key)
    assert answer.status_code == 202
    assert "idempotency-replayed" not in answer.headers


def test_twins_in_two_processes_make_one_run(here: LiveServer, there: LiveServer) -> None:
    before = count_runs(here)
    rounds, twins = 10, 8
    with (
        here.client() as one,
        there.client() as two,
        ThreadPoolExecutor(max_workers=twins) as threads,
    ):
        for _ in range(rounds):
            key, gate = new_key(), threading.Barrier(twins)

            asked = [threads.submit(_post, (one, two)[n % 2], key, gate) for n in range(twins)]
            answers = [future.result() for future in asked]
            for answer in answers:
                if answer.status_code != 202:
                    problem_of(answer, 409, "idempotency-in-flight")
                    assert answer.headers["retry-after"] == "1"
            admitted = [answer for answer in answers if answer.status_code == 202]
            assert len({answer.json()["id"] for answer in admitted}) == 1
            assert sum("idempotency-replayed" not in answer.headers for answer in admitted) == 1
    assert count_runs(here) == before + rounds


def _post(client: httpx2.Client, key: dict[str, str], gate: threading.Barrier) -> httpx2.Response:
    gate.wait(60)
    return client.post("/v1/runs", json=TASK, headers=key)


@pytest.mark.anyio
async def test_while_the_first_is_not_answered_a_second_is_told_to_come_again(
    here: LiveServer, there: LiveServer
) -> None:
    body, key = b'{"task":"6*7"}', "not answered yet"
    headers = {"Idempotency-Key": f'"{key}"', "Content-Type": "application/json"}
    with here.client() as one, there.client() as two:
        desk: IdempotencyDesk = here.app.state.services.idempotency
        grant = here.app.state.doorkeeper.source.ring.find(KEYS["acme"])
        caller = here.app.state.doorkeeper.caller(grant)
        sent = SentRequest(key=key, method="POST", path="/v1/runs", query=b"", body=body)
        claim = desk.claim(caller, sent)
        before = count_runs(here)
        async with desk.alone(claim):
            await _told_to_come_again(one, body, headers)
        # The other process learns of it when it comes to write.
        raw = await connect(here.roles.superuser)
        async with raw.transaction():
            held = "SELECT idempotency_held($1, $2)"
            assert await raw.fetchval(held, caller.tenant_id, list(claim.keys)) is True
            await _told_to_come_again(two, body, headers)
        await raw.close()
        assert count_runs(here) == before
        first = two.post("/v1/runs", content=body, headers=headers)
        again = one.post("/v1/runs", content=body, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"]


async def _told_to_come_again(client: httpx2.Client, body: bytes, headers: dict[str, str]) -> None:
    answer = await asyncio.to_thread(client.post, "/v1/runs", content=body, headers=headers)
    problem_of(answer, 409, "idempotency-in-flight")
    assert answer.headers["retry-after"] == "1"
    assert "idempotency-replayed" not in answer.headers


def _submitted(client: httpx2.Client, key: dict[str, str]) -> Run:
    headers = {**key, "Prefer": "wait=20"}
    answer = client.post("/v1/runs", json=TASK, headers=headers)
    assert answer.status_code == 200, answer.text
    public = str(answer.json()["id"])
    return Run(public=public, run_id=UUID(public.removeprefix("run_")))


@pytest.mark.anyio
async def test_of_a_run_that_was_anonymized_the_key_tells_nothing_and_begins_nothing(
    here: LiveServer,
) -> None:
    key = new_key()
    with here.client() as client:
        run = _submitted(client, key)
        async with erasing_beside(here) as erasing:
            await erasing.anonymize(run, ["output"])
            (row,) = await erasing.rows("idempotency", run.run_id)
        before = count_runs(here)
        answer = client.post("/v1/runs", json=TASK, headers=key)
    problem_of(answer, 409, "idempotency-erased")
    assert row["request_digest"] is None
    assert count_runs(here) == before


@pytest.mark.anyio
async def test_of_a_run_that_was_deleted_nothing_is_left_and_the_key_is_free(
    here: LiveServer,
) -> None:
    key = new_key()
    with here.client() as client:
        run = _submitted(client, key)
        async with erasing_beside(here) as erasing:
            await erasing.delete(run)
            assert await erasing.rows("idempotency", run.run_id) == []
        answer = client.post("/v1/runs", json=TASK, headers=key)
    assert answer.status_code == 202
    assert answer.json()["id"] != run.public
    assert "idempotency-replayed" not in answer.headers


@pytest.mark.anyio
async def test_a_repetition_while_the_run_is_deleted_tells_the_run_or_nothing_or_a_new_one(
    here: LiveServer,
) -> None:
    key = new_key()
    with here.client() as client:
        run = _submitted(client, key)
        over, answers = threading.Event(), list[httpx2.Response]()

        def repeat() -> None:
            while not over.is_set():
                answers.append(client.post("/v1/runs", json=TASK, headers=key))

        repeating = asyncio.create_task(asyncio.to_thread(repeat))
        try:
            async with erasing_beside(here) as erasing:
                await erasing.delete(run)
        finally:
            over.set()
            await repeating
        last = client.post("/v1/runs", json=TASK, headers=key)
    assert last.status_code == 202
    told = [answer.json()["id"] if answer.is_success else None for answer in [*answers, last]]
    for answer in answers:
        assert answer.status_code in {202, 404, 409}, answer.text
        if answer.status_code == 409:  # its rows have gone between two looks
            assert answer.json()["code"] in {"ledger-broken", "idempotency-in-flight"}
    new = told[-1]
    assert new != run.public
    assert set(told) <= {run.public, None, new}
    assert run.public not in told[told.index(new) :], "what was deleted came back"


def test_neither_key_nor_body_can_be_found_in_the_row(here: LiveServer) -> None:
    with here.client() as client:
        client.post("/v1/runs", json=TASK, headers={"Idempotency-Key": '"zqKey4711"'})
    for row in rows(here.roles, "SELECT * FROM idempotency"):
        assert set(row) == {
            "tenant_id",
            "key_digest",
            "request_digest",
            "run_id",
            "status",
            "told",
            "created_at",
        }
        told = json.dumps({name: str(value) for name, value in row.items()})
        assert "zqKey4711" not in told
        assert "6*7" not in told


# Nothing waits here, and no policy stands here: see test_approvals.py and test_policies.py.
ELSEWHERE = {"approvals_decide", "policies_activate", "policies_confirm"}
ASKS = {"policies_simulate", "policies_check"}  # they change nothing, and name nothing
ENDPOINT = {"url": "https://www.allowed.example/", "events": ["run.failed"]}


def _posts(client: httpx2.Client) -> list[Operation]:
    document = client.get("/openapi.json").json()
    return [operation for operation in operations(document) if operation.method == "POST"]


def test_every_post_takes_the_header_and_is_done_once(here: LiveServer) -> None:
    with here.client() as client:
        run_id = _submitted(client, new_key()).public
        posts = _posts(client)
        assert len(posts) >= 8
        endpoint = client.post("/v1/webhook-endpoints", json=ENDPOINT).json()["id"]
        delivery = client.post(f"/v1/webhook-endpoints/{endpoint}/test").json()["id"]
        webhook = (endpoint, delivery)
        for operation in posts:
            what = operation.operation_id
            names = [item["name"] for item in operation.described.get("parameters", [])]
            assert names.count("idempotency-key") == 1, what
            assert {"400", "409", "422"} <= set(operation.described["responses"]), what
            refused = operation.send(
                client, run_id, [("Idempotency-Key", "unquoted")], webhook=webhook
            )
            problem_of(refused, 400, "idempotency-key-malformed")
            if what in ELSEWHERE:
                continue
            key = list(new_key().items())
            first, again = (operation.send(client, run_id, key, webhook=webhook) for _ in range(2))
            assert first.is_success, (what, first.text)
            assert "idempotency-replayed" not in first.headers, what
            assert again.status_code == first.status_code, what
            assert again.headers["idempotency-replayed"] == "true", what
            told, original = again.json(), first.json()
            same = [name for name in ("id", "run_id", "seq", "runs") if name in original]
            assert same or what in ASKS, what
            assert told.get("secret") is None, what
            assert all(told[name] == original[name] for name in same), what
            other = operation.send(client, run_id, key, {"other": "1"}, webhook=webhook)
            problem_of(other, 422, "idempotency-key-reused")
