"""What root's workers give up: groups, the account, every capability, and the way back to any."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from app.sandbox.confinement import held_capabilities
from app.sandbox.kernel_calls import LinuxKernel
from tests.support.escape_scene import worker_account

ROOT = Path(__file__).parents[3]


def _status_of_dropped(*, may_change_account: bool) -> dict[str, str]:
    """What the kernel says of a process that dropped its power."""
    account = worker_account()
    given = "None"
    if account is not None and may_change_account:
        given = f"WorkerAccount(uid={account.uid}, gid={account.gid})"
    program = f"""
        import os, sys
        sys.path[:0] = {[str(ROOT), *sys.path]!r}
        from app.sandbox.confinement import drop_power
        from app.sandbox.kernel_calls import LinuxKernel
        from app.sandbox.sandbox_profile import WorkerAccount
        if os.geteuid() == 0:
            os.setgroups([12345])
        drop_power(LinuxKernel(), {given})
        print(open("/proc/self/status").read())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    lines = (line.partition(":") for line in done.stdout.splitlines())
    return {name: value.strip() for name, _, value in lines}


def test_nothing_is_left_of_the_power_of_root() -> None:
    account = worker_account()
    told = _status_of_dropped(may_change_account=True)
    held = {name: int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert held == dict.fromkeys(held, 0)
    if account is not None:  # else there was no root, and nothing to come back to
        assert told["Uid"].split() == [str(account.uid)] * 4
        assert told["Gid"].split() == [str(account.gid)] * 4
        assert told["Groups"] == ""
        assert int(told["CapBnd"], 16) == 0


def test_without_another_account_the_capabilities_go_all_the_same() -> None:
    told = _status_of_dropped(may_change_account=False)
    held = {name: int(told[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    assert held == dict.fromkeys(held, 0)
    assert told["Uid"].split() == [str(os.getuid())] * 4


def test_the_power_that_is_held_is_what_the_kernel_says() -> None:
    """Who has any is not confined: the worker asks by this before it goes on."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    told = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
    expected = int(told["CapInh"], 16) | int(told["CapPrm"], 16) | int(told["CapEff"], 16)
    assert held_capabilities(LinuxKernel()) == expected
    assert bool(expected) == (os.geteuid() == 0)
