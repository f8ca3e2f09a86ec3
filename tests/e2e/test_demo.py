"""`meshflow demo`, as somebody who has just installed MeshFlow runs it."""

import tempfile
from pathlib import Path

from tests.e2e.server_process import run_command, surroundings


def test_the_demo_holds_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob("mf-demo-*"))
    own = "demo-must-not-see-this-key-00001"
    told = surroundings(tmp_path / "data", MESHFLOW_API_KEYS=own, ANTHROPIC_API_KEY=own)
    done = run_command("demo", environ=told, timeout=120)
    assert done.code == 0, done.out + done.err
    assert "NOT SO" not in done.out
    for sentence in (
        "the gate refused write_file",
        "notes.txt does not exist",
        "the copy is broken, at seq 4",
        "the original is still valid",
    ):
        assert f"[ok] {sentence}" in done.out
    assert own not in done.out + done.err
    assert set(Path(tempfile.gettempdir()).glob("mf-demo-*")) == before
    assert not (tmp_path / "data").exists()
