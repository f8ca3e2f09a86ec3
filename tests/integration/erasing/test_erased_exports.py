"""An export of what was lawfully erased verifies offline by the statement that says so."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.erasure import ErasureStatus
from tests.e2e.server_process import run_command, surroundings
from tests.integration.erasing.erasing_scene import erasing_beside
from tests.security.tampering_scene import Run, finished_run
from tests.support.api_matrix import problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import live_server
from tests.support.witnessed_server import WitnessedServer, witnessed_server

pytestmark = pytest.mark.anyio


@pytest.fixture
def served(postgres: DatabaseServer) -> Iterator[WitnessedServer]:
    with witnessed_server(postgres.new_database()) as server:
        yield server


def exported(
    served: WitnessedServer, run: Run, directory: Path
) -> tuple[int, dict[str, Any]] | None:
    """The bundle of a run, judged by the offline verifier; None while there can be none yet."""
    with served.live.client("audit") as client:
        bundle = client.get(f"/v1/runs/{run.public}/bundle")
        if bundle.status_code == 409:
            problem_of(bundle, 409, "not-sequenced")
            bare = client.get(f"/v1/runs/{run.public}/bundle", params={"fields": "none"})
            assert bare.status_code == 200, bare.text
            return None
        assert bundle.status_code == 200, bundle.text
        policy = client.get("/v1/ledger/policy").text
    (directory / "run.tar").write_bytes(bundle.content)
    (directory / "policy").write_text(policy, encoding="utf-8")
    words = (str(directory / "run.tar"), "--policy", str(directory / "policy"), "--json")
    done = run_command("verify-bundle", *words, environ=surroundings(directory / "data"))
    return done.code, json.loads(done.out)


async def test_an_export_of_an_anonymized_run_holds_and_says_what_is_gone(
    served: WitnessedServer, tmp_path: Path
) -> None:
    run = await asyncio.to_thread(finished_run, served.live)
    async with erasing_beside(served.live) as erasing:
        assert (await erasing.anonymize(run, ["output"])).status is ErasureStatus.COMPLETE
    await asyncio.to_thread(served.when, run.public, lambda found: found["unwitnessed"] == 0)
    for _ in range(100):  # the erasure record itself has to come under a witnessed checkpoint
        judged = await asyncio.to_thread(exported, served, run, tmp_path)
        assert judged is None or judged[0] in {0, 2}, judged
        if judged is not None and judged[0] == 0:
            break
        await asyncio.sleep(0.2)
    assert judged is not None
    code, report = judged
    assert (code, report["result"]) == (0, "valid"), report
    assert report["erased"], report


def test_an_erasure_that_no_checkpoint_covers_is_not_exported_as_a_gap(
    postgres: DatabaseServer,
) -> None:
    """Nobody sequences here: a bundle could not hold the statement that explains the gap."""
    with live_server(postgres.new_database()) as live:
        run = finished_run(live)

        async def erase() -> None:
            async with erasing_beside(live) as erasing:
                assert (await erasing.anonymize(run, ["output"])).status is ErasureStatus.COMPLETE

        asyncio.run(erase())
        with live.client("audit") as client:
            path = f"/v1/runs/{run.public}/bundle"
            problem_of(client.get(path), 409, "not-sequenced")
            assert client.get(path, params={"fields": "none"}).status_code == 200
