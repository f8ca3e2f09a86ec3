"""What erasing writes says how tools were confined, as every other record does."""

import json
from collections.abc import Iterator

import pytest

from app.domain.erasure import ErasureStatus
from tests.integration.erasing.erasing_scene import Erasing, erasing_beside
from tests.security.tampering_scene import finished_run
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with live_server(roles) as served:
        yield served


async def _written(erasing: Erasing) -> set[bytes]:
    """The headers of what erasing wrote so far."""
    rows = await erasing.rows("record")
    return {
        bytes(row["header"])
        for row in rows
        if row["header"] is not None and row["kind"].startswith("erasure.")
    }


@pytest.mark.parametrize("mode", ["strict", "off-unsafe"])
async def test_records_of_erasures_say_how_tools_were_confined(live: LiveServer, mode: str) -> None:
    anonymized, deleted = finished_run(live), finished_run(live)
    async with erasing_beside(live, mode=mode) as erasing:
        before = await _written(erasing)
        for receipt in (await erasing.anonymize(anonymized), await erasing.delete(deleted)):
            assert receipt.status is ErasureStatus.COMPLETE
        written = [json.loads(header) for header in await _written(erasing) - before]
    assert [one["kind"] for one in sorted(written, key=lambda one: str(one["kind"]))] == [
        "erasure.anonymize_run",
        "erasure.delete_run",
    ]
    assert [one["sandbox"] for one in written] == [mode, mode]
