"""What lists find a run by goes with its content; the database never held the words."""

from collections.abc import Iterator
from uuid import UUID

import httpx2
import pytest

from app.domain.erasure import ErasureStatus
from tests.integration.erasing.erasing_scene import erasing_beside
from tests.security.tampering_scene import Run
from tests.support.api_matrix import finished
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio
PLANTED = "zqPlantedLabelWord2210"


@pytest.fixture
def live(postgres: DatabaseServer) -> Iterator[LiveServer]:
    with live_server(postgres.new_database()) as served:
        yield served


def _labelled(client: httpx2.Client) -> Run:
    told = finished(client, {"task": "1+1", "metadata": {"patient": PLANTED, "ward": "7"}})
    return Run(public=told["id"], run_id=UUID(told["id"].removeprefix("run_")))


def _found(client: httpx2.Client) -> set[str]:
    listed = client.get("/v1/runs", params={"metadata.patient": PLANTED}).raise_for_status()
    return {run["id"] for run in listed.json()["data"]}


@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_run_that_is_erased_is_found_by_nothing_that_it_said(
    live: LiveServer, *, is_whole: bool
) -> None:
    with live.client() as client:
        mine, other = _labelled(client), _labelled(client)
        assert _found(client) == {mine.public, other.public}
        async with erasing_beside(live) as erasing:
            kept = await erasing.rows("run_label", mine.run_id)
            assert len(kept) == 2
            assert PLANTED.encode() not in b"".join(row["digest"] for row in kept)
            erased = await (erasing.delete(mine) if is_whole else erasing.anonymize(mine))
            assert erased.status is ErasureStatus.COMPLETE
            assert await erasing.rows("run_label", mine.run_id) == []
            assert len(await erasing.rows("run_label", other.run_id)) == 2
        assert _found(client) == {other.public}
