"""Whatever is done to the row of a kept output, a reader gets the true words or the ledger's."""

from collections.abc import Iterator

import pytest

from tests.security.tampering_scene import Run, attack, finished_run
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, live_server

OTHERS = "(SELECT {c} FROM run_result WHERE run_id <> $1 LIMIT 1)"
CHANGES = {
    "a time without end": "expires_at = 'infinity'",
    "a time before all": "expires_at = '-infinity'",
    "a time before the calendar": "expires_at = '4000-01-01 BC'",
    "a time after the calendar": "expires_at = '20000-01-01'",
    "a time that has passed": "expires_at = now() - interval '1 second'",
    "another blob": "blob = set_byte(blob, 20, get_byte(blob, 20) # 1)",
    "no blob": "blob = ''",
    "the blob of another run": f"blob = {OTHERS.format(c='blob')}",
    "the key of another run": f"wrapped = {OTHERS.format(c='wrapped')}",
    "the blob and key of another run": (
        f"blob = {OTHERS.format(c='blob')}, wrapped = {OTHERS.format(c='wrapped')}"
    ),
    "no key": "wrapped = ''",
    "a name of a key that leads elsewhere": "kek_id = '../../../etc/passwd'",
}


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with live_server(roles) as served:
        finished_run(served)
        yield served


@pytest.fixture
def run(live: LiveServer) -> Run:
    return finished_run(live)


@pytest.mark.parametrize("how", CHANGES)
def test_a_changed_kept_output_is_not_shown_and_no_failure(
    live: LiveServer, run: Run, how: str
) -> None:
    with live.client() as client:
        before = client.get(f"/v1/runs/{run.public}").json()
        attack(live.roles, f"UPDATE run_result SET {CHANGES[how]} WHERE run_id = $1", run.run_id)
        answer = client.get(f"/v1/runs/{run.public}")
    assert answer.status_code == 200, answer.text
    after = answer.json()
    assert (before["output_state"], after["output_state"]) == ("full", "scrubbed")
    assert after["output"] == before["output"]  # it held no secret
