"""A run that is over holds no descriptor of its workspace any more."""

from pathlib import Path

from tests.support.api_matrix import finished, patiently
from tests.support.databases import Roles
from tests.support.live_server import live_server


def _held_below(place: Path) -> list[str]:
    held = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith(f"{place}/"):
            held.append(target)
    return held


def test_a_run_that_is_over_has_let_its_workspace_go(roles: Roles) -> None:
    with live_server(roles) as live, live.client() as client:
        run = finished(client, {"task": "Calculate 6*7 and write the result to answer.txt"})
        assert run["status"] == "succeeded"
        assert list(live.workspace.rglob("answer.txt")) != []
        for _ in patiently():
            if not _held_below(live.workspace):
                return
        raise AssertionError(_held_below(live.workspace))
