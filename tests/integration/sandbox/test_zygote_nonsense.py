"""A zygote that says what is no answer is lost: its calls end, and nobody waits for it."""

import asyncio
import socket
import subprocess
import sys

import pytest

from app.sandbox.execution import ExecLimits
from app.sandbox.worker_protocol import NONSENSE, decode_answer
from app.sandbox.zygote_link import ZygoteLink

pytestmark = pytest.mark.anyio
PATIENCE_SECONDS = 120
NO_ANSWERS = (
    b"no JSON",
    b"\xff",
    b"7",
    b'"text"',
    b"[]",
    b"null",
    b"{}",
    b'{"kind": "Start"}',
    b'{"kind": []}',
    b'{"kind": "Done", "call": "one"}',
    b'{"kind": "Done", "call": null}',
    b'{"kind": "Forked", "call": Infinity, "pid": 1}',
    b'{"kind": "Forked", "call": 1, "pid": NaN}',
    b"[" * 60_000,
)


@pytest.mark.parametrize("packet", NO_ANSWERS, ids=lambda packet: packet[:24].decode("latin-1"))
async def test_what_is_no_answer_ends_every_call_that_waits(packet: bytes) -> None:
    with pytest.raises(NONSENSE):
        decode_answer(packet)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(0)
    waits = [sys.executable, "-c", "import sys; sys.stdin.read()"]  # a pod has no other program
    process = subprocess.Popen(waits, stdin=subprocess.PIPE)  # noqa: ASYNC220 - to be waited for
    assert process.stdin is not None
    with theirs, process.stdin:
        link = ZygoteLink(process, ours)
        call = link.begin(ExecLimits(), [])
        theirs.send(packet)
        assert await asyncio.wait_for(call.answer, PATIENCE_SECONDS) is None
        assert link.is_lost
        assert link.begin(ExecLimits(), []).answer.result() is None
    await link.close()
    assert process.returncode == 0
