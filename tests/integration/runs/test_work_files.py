"""The files of a run go where it goes: sealed after each call, found by whoever takes it over."""

import pytest

from app.providers.scripted import ScriptedProvider
from app.sandbox import workspace_copy
from tests.integration.gate.gate_scenes import elsewhere, rows
from tests.integration.runs.test_takeover import WRITE, _heir, _with, lost_run
from tests.support.api_matrix import calls, says
from tests.support.databases import Roles, connect

READ = calls("read_file", path="notes/a.txt")
KEPT = "SELECT name, blob FROM run_file WHERE run_id = $1 ORDER BY name"
PLANTED = "zqPlantedFileWord8841"
MANIFEST = "decode(repeat('00', 32), 'hex')"


def _heir_that_reads() -> ScriptedProvider:
    return ScriptedProvider([READ, says("I have read it.")])


async def _changed(roles: Roles, statement: str) -> None:
    raw = await connect(roles.superuser)
    await raw.execute(statement)
    await raw.close()


def test_a_process_with_another_workspace_finds_what_the_run_wrote(roles: Roles) -> None:
    heir = _heir_that_reads()
    write = calls("write_file", path="notes/a.txt", content=PLANTED)
    with lost_run(roles, write) as lost:
        kept = rows(roles, KEPT, lost.run_id)
        with _heir(roles, _with(heir)) as there:
            run = lost.over()
            assert [path.name for path in there.workspace.rglob("*.txt")] == ["a.txt"]
        lost.gate.open()
    assert (run["status"], run["output"]) == ("succeeded", "I have read it.")
    assert PLANTED in str(heir.requests[1].messages)
    assert len(kept) == 2
    assert not any(PLANTED.encode() in row["blob"] for row in kept)
    assert rows(roles, KEPT, lost.run_id) == [], "they went with the run's last record"


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE run_file SET blob = set_byte(blob, 20, get_byte(blob, 20) # 1)",
        f"DELETE FROM run_file WHERE name = {MANIFEST}",
        f"DELETE FROM run_file WHERE name <> {MANIFEST}",
        f"UPDATE run_file SET name = sha256(name) WHERE name <> {MANIFEST}",
    ],
)
def test_files_that_are_not_those_of_the_manifest_end_the_run(roles: Roles, harm: str) -> None:
    heir = _heir_that_reads()
    with lost_run(roles, WRITE) as lost:
        elsewhere(lambda: _changed(roles, harm))
        with _heir(roles, _with(heir)):
            run = lost.over()
    assert (run["status"], run["error"]) == ("interrupted", {"code": "owner_lost"})
    assert heir.requests == []


def test_a_run_whose_files_nobody_kept_goes_on_only_where_they_are(roles: Roles) -> None:
    heir = _heir_that_reads()
    with lost_run(roles, WRITE) as lost:
        elsewhere(lambda: _changed(roles, "DELETE FROM run_file"))
        with _heir(roles, _with(heir)):
            assert lost.over()["error"] == {"code": "owner_lost"}
    assert heir.requests == []


def test_a_run_with_more_than_a_copy_may_hold_goes_on_and_cannot_be_taken_over(
    roles: Roles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workspace_copy, "MOST_BYTES", 0)
    heir = _heir_that_reads()
    with lost_run(roles, WRITE) as lost:
        kinds = [entry["kind"] for entry in lost.entries()]
        assert kinds[-2:] == ["tool.finished", "llm.requested"], "it went on"
        with _heir(roles, _with(heir)):
            run = lost.over()
    assert (run["status"], run["error"]) == ("interrupted", {"code": "owner_lost"})
    assert heir.requests == []
