"""A process that may not write says so: the ledger is halted, or its own key was retired."""

import asyncio

import pytest

from tests.support.api_matrix import problem_of
from tests.support.databases import DatabaseServer, execute
from tests.support.live_server import live_server


@pytest.mark.parametrize(
    ("change", "back", "told"),
    [
        (
            "UPDATE tenants SET halted = 'w1 has seen 9 leaves' WHERE name = '!operator'",
            "UPDATE tenants SET halted = NULL",
            "w1 has seen 9 leaves",
        ),
        (
            "UPDATE writer_key SET retired_at = now()",
            "UPDATE writer_key SET retired_at = NULL",
            "was retired",
        ),
    ],
)
def test_a_process_that_may_not_write_is_unready_and_takes_nothing(
    postgres: DatabaseServer, change: str, back: str, told: str
) -> None:
    roles = postgres.new_database()
    with live_server(roles) as server, server.client() as client:
        assert client.get("/readyz").status_code == 200
        asyncio.run(execute(roles.owner, change))
        assert told in problem_of(client.get("/readyz"), 503, "unavailable")["detail"]
        refused = client.post("/v1/runs", json={"task": "1+1"})
        assert refused.status_code == 503, refused.text
        asyncio.run(execute(roles.owner, back))
        assert client.get("/readyz").status_code == 200
