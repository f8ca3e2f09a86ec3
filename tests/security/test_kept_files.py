"""Files that a program removes and keeps: they fill a disk that no look at its names would show.

Each attack is shown to keep them where there are no walls, and is ended for it where there are.
"""

import os

import pytest

from app.domain.sandbox_mode import SandboxMode
from app.sandbox.call_ends import REMOVED_TOO_MUCH
from app.sandbox.execution import EndedBy, ExecResult, ExecStatus
from app.sandbox.syscall_tables import ARCHITECTURES
from app.sandbox.tool_runner import ToolRunner
from tests.support.escape_scene import lent, request_for, runner_for

MIB = 1024 * 1024
_EXIT = ARCHITECTURES[os.uname().machine].numbers["exit"]
# Eight files of half a MiB, where two MiB are allowed, kept until somebody ends it.
_PYTHON = """
import ctypes, os, threading, time
FLAGS = os.O_CREAT | os.O_RDWR
def filled(opened):
    os.write(opened, bytes(512 * 1024))
    return opened
def removed(name="f"):
    opened = filled(os.open(name, FLAGS))
    os.unlink(name)
    return opened
def done():
    os.write(1, b"kept")
    time.sleep({SLEEP})
"""
_MAPPED = """
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
for i in range(8):
    opened = removed()
    assert libc.mmap(None, 1, 1, 1, opened, 0) != ctypes.c_void_p(-1).value
    os.close(opened)
done()
"""
_WITHOUT_FIRST_THREAD = f"""
def go():
    kept = [removed() for i in range(8)]
    done()
    os._exit(0)
threading.Thread(target=go).start()
ctypes.CDLL(None).syscall({_EXIT}, 0)
"""
_REPLACED = """
kept = []
for i in range(8):
    kept.append(filled(os.open("f", FLAGS)))
    os.close(os.open("g", FLAGS))
    os.rename("g", "f")
done()
"""
ATTACKS = {
    "descriptors": "kept = [removed() for i in range(8)]\ndone()",
    "mappings": _MAPPED,
    "never-named": (
        "kept = [filled(os.open('.', os.O_TMPFILE | os.O_RDWR)) for i in range(8)]\ndone()"
    ),
    "replaced": _REPLACED,
    "first-thread-dead": _WITHOUT_FIRST_THREAD,
    "directory-gone": (
        "os.mkdir('d')\nkept = [removed('d/f') for i in range(8)]\nos.rmdir('d')\ndone()"
    ),
}


async def _told(runner: ToolRunner, text: str) -> ExecResult:
    with lent() as (workspace, directory, _):
        return await runner.run(
            request_for(
                text, directory, workspace=workspace, workspace_bytes=2 * MIB, file_bytes=MIB
            )
        )


async def _both(text: str) -> tuple[ExecResult, ExecResult]:
    """What becomes of it without walls, where it ends by itself, and within."""
    told = []
    for mode, seconds in ((SandboxMode.OFF_UNSAFE, "0"), (SandboxMode.STRICT, "60")):
        runner = runner_for(mode)
        try:
            told.append(await _told(runner, text.replace("{SLEEP}", seconds)))
        finally:
            await runner.close()
    return told[0], told[1]


@pytest.mark.parametrize("name", sorted(ATTACKS))
async def test_a_program_that_keeps_what_it_removed_is_ended_for_it(name: str) -> None:
    free, confined = await _both(_PYTHON + ATTACKS[name])
    assert (free.status, free.stdout) == (ExecStatus.OK, b"kept"), free
    assert confined.ended_by is EndedBy.WORKSPACE_QUOTA, confined
    assert (confined.status, confined.reason) == (ExecStatus.KILLED, REMOVED_TOO_MUCH)


async def test_no_thread_has_descriptors_of_its_own() -> None:
    """They would be 64 more for each."""
    number = ARCHITECTURES[os.uname().machine].numbers["clone"]
    text = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"print(libc.syscall({number}, 0x10900, 0, 0, 0, 0), ctypes.get_errno())"
    )
    runner = runner_for()
    try:
        told = await _told(runner, text)
    finally:
        await runner.close()
    assert told.stdout == b"-1 1\n"


async def test_what_is_within_the_quota_may_be_kept_without_a_name() -> None:
    """Temporary files go on working: three of half a MiB, one of them mapped, and a named one."""
    text = _PYTHON.replace("{SLEEP}", "1") + (
        "import mmap, tempfile\nkept = [removed() for i in range(2)]\n"
        "with tempfile.TemporaryFile(dir='.') as held:\n    held.write(bytes(512 * 1024))\n"
        "    held.flush()\n    seen = mmap.mmap(held.fileno(), 0)\n"
        "    shared = [mmap.mmap(-1, 4096) for i in range(9)]\n    done()\n"
    )
    runner = runner_for()
    try:
        told = await _told(runner, text)
    finally:
        await runner.close()
    assert (told.status, told.stdout) == (ExecStatus.OK, b"kept"), told
