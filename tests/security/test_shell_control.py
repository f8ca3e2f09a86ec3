"""The control of the shell's corpus: what works in a real bash, so that holding it says something.

Apart from the escapes because a pod has no shell.
"""

from tests.support.escape_scene import corpus, escape_scene
from tests.support.shell_control import in_real_bash

ATTEMPTS = [row for row in corpus("shell") if row["class"] != "dos"]


def test_a_real_bash_proves_that_the_commands_work() -> None:
    with escape_scene() as scene:
        attempts = [in_real_bash(scene, row) for row in ATTEMPTS]
    worked = {attempt.row_id for attempt in attempts if attempt.succeeded}
    print(f"{len(worked)} of {len(attempts)} commands work in a real bash")
    assert len(worked) >= 150
    classes = {row["class"] for row in ATTEMPTS if row["id"] in worked}
    assert classes == {row["class"] for row in ATTEMPTS}
