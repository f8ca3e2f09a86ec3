"""A run whose process fell silent is ended by another one, with what it had used until then."""

from uuid import UUID, uuid4

import asyncpg

from tests.integration.gate.gate_scenes import elsewhere
from tests.support.api_matrix import Gate, calls, patiently, says, scripted
from tests.support.databases import Roles, connect
from tests.support.live_server import live_server
from tests.support.second_reply import FromTheSecond


async def _orphaned(roles: Roles, run_id: UUID) -> None:
    """Make a process that was silent for an hour the owner of a run."""
    raw: asyncpg.Connection = await connect(roles.superuser)
    try:
        silent = uuid4()
        await raw.execute(
            "INSERT INTO writer_key (writer_id, public_key, seen_at)"
            " VALUES ($1, $2, now() - interval '1 hour')",
            silent,
            bytes(32),
        )
        await raw.execute("UPDATE runs SET owner = $1 WHERE run_id = $2", silent, run_id)
    finally:
        await raw.close()


def test_a_run_that_lost_its_process_keeps_what_its_records_say_that_it_used(
    roles: Roles,
) -> None:
    gate = Gate()
    script = scripted(
        calls("calculator", expression="6*7"), says("never heard"), gate=FromTheSecond(gate)
    )
    with live_server(roles, script) as lost, lost.client() as client:
        public = client.post("/v1/runs", json={"task": "Calculate 6*7"}).json()["id"]
        assert gate.reached.wait(60)
        elsewhere(lambda: _orphaned(roles, UUID(public.removeprefix("run_"))))
        with live_server(roles):
            for _ in patiently():
                run = client.get(f"/v1/runs/{public}").raise_for_status().json()
                if run["status"] != "running":
                    break
        assert (run["status"], run["error"]) == ("interrupted", {"code": "owner_lost"})
        assert run["usage"] == {"input_tokens": 10, "output_tokens": 5, "steps": 1}
        assert run["cost_micros"] == 105
        gate.open()  # the former owner writes nothing more
        found = client.get(f"/v1/runs/{public}/verification").json()
        last = client.get(f"/v1/runs/{public}/entries").json()["data"][-1]
    assert (found["verdict"], found["entries"]) == ("valid", run["entries"])
    assert (last["kind"], last["outcome"]) == ("run.finished", "interrupted:owner_lost")
