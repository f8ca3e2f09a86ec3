"""The control of the shell's corpus: the same payload in a real bash, in the scene, unconfined."""

import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from app.sandbox.execution import ExecResult, ExecStatus
from tests.support.escape_scene import Attempt, EscapeScene, worker_account

_SECONDS = 10.0


def in_real_bash(scene: EscapeScene, row: Mapping[str, Any]) -> Attempt:
    """Run the payload as the worker's account, with nothing between it and the machine."""
    scene.fresh()
    account = worker_account()
    out = b""
    with suppress(subprocess.TimeoutExpired):
        out = subprocess.run(
            ["/bin/bash", "-c", scene.payload(row)],
            cwd=scene.workspace,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(scene.workspace)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
            timeout=_SECONDS,
            check=False,
        ).stdout
    return scene.judged(row, ExecResult(status=ExecStatus.OK, stdout=out))
