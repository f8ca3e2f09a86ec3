"""The running server shows nothing of itself to other processes of its own user."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.support.escape_scene import worker_account

ROOT = Path(__file__).parents[3]
SECRET = "made-up-key-0123456789-abcdef"


def _peer(code: str, *, closed: bool) -> str:
    """What a child without power sees of its parent, which is of the same user."""
    account = worker_account()
    drop = (
        ""
        if account is None
        else (
            f"os.setgroups([]); os.setresgid({account.gid}, {account.gid}, {account.gid}); "
            f"os.setresuid({account.uid}, {account.uid}, {account.uid})"
        )
    )
    program = f"""
        import ctypes, os, sys
        sys.path.insert(0, {str(ROOT)!r})
        from app.sandbox.runner_assembly import close_process_to_peers
        {drop or "pass"}
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # as a process that was started by this user
        if {closed!r}:
            close_process_to_peers()
        parent = os.getpid()
        if os.fork() == 0:
            try:
                {code}
            except OSError as refused:
                print("refused", refused.errno)
            sys.stdout.flush()
            os._exit(0)
        os.wait()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={"MESHFLOW_API_KEYS": SECRET},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


LOOKS = {
    "environ": "print(open(f'/proc/{parent}/environ').read())",
    "maps": "print(open(f'/proc/{parent}/maps').read())",
    "mem": "open(f'/proc/{parent}/mem', 'rb'); print('opened')",
    "fd": "print(os.listdir(f'/proc/{parent}/fd'))",
    "root": "print(os.listdir(f'/proc/{parent}/root/'))",
    "cwd": "print(os.readlink(f'/proc/{parent}/cwd'))",
}


def test_a_process_of_the_same_user_reads_nothing_of_a_closed_one() -> None:
    for name, code in LOOKS.items():
        told = _peer(code, closed=True)
        assert told.startswith("refused"), (name, told)


def test_without_the_switch_the_same_process_reads_it_all() -> None:
    """The control: otherwise the test above would prove nothing."""
    assert SECRET in _peer(LOOKS["environ"], closed=False)
    for name, code in LOOKS.items():
        assert not _peer(code, closed=False).startswith("refused"), name


def test_a_closed_process_cannot_be_traced() -> None:
    attach = "print('traced', ctypes.CDLL(None).ptrace(0x4206, parent, 0, 0))"  # and stops nobody
    assert "traced -1" in _peer(attach, closed=True)
    assert "traced 0" in _peer(attach, closed=False)


def test_the_server_closes_itself_before_it_reads_a_key() -> None:
    """What reads the environment is replaced by a look at the process: it is closed by then."""
    program = f"""
        import ctypes, sys
        sys.path[:0] = {[str(ROOT), *sys.path]!r}
        from app.cli import entry
        seen = []
        def look(environ):
            seen.append(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
            raise SystemExit(0)
        entry.this_invocation = look
        try:
            entry.main(["serve"])
        except SystemExit:
            print(seen)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PATH": os.defpath},
    )
    assert done.stdout.strip() == "[0]"
