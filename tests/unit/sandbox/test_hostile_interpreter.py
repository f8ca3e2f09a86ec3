"""A Monty that has been taken over: what it says is bounded, and nothing of it is believed.

It is played here at the other end of the real socket, with what a zygote would do beside it.
"""

import asyncio
import os
import socket
import struct

import pytest

from app.sandbox.execution import ExecLimits
from app.sandbox.waiting_monty import WaitingMonty
from app.sandbox.worker_protocol import Done, Ended
from app.sandbox.zygote_link import CallInFlight, ZygoteLink

PATIENCE_SECONDS = 60
_LIMITS = ExecLimits(wall_seconds=10 * PATIENCE_SECONDS)  # no time of its own ends it in a test
_OK = b"\x02\x00\x00\x00\x52\x00"
_NOTHING_PRINTED = b"\x02\x00\x00\x00\x0a\x00"
_WARMED = _OK * 4


class PlayedZygote(ZygoteLink):
    """Hands the worker's end of the socket to the test, and ends calls when asked."""

    def __init__(self) -> None:
        self.worker = socket.socket()
        self.call: CallInFlight | None = None

    def begin(
        self,
        limits: ExecLimits,  # noqa: ARG002 - the one it stands for
        descriptors: list[int],
        *,
        waits: bool = False,
    ) -> CallInFlight:
        assert waits
        self.worker.close()
        self.worker = socket.socket(fileno=os.dup(descriptors[2]))
        self.worker.settimeout(0)
        answer = asyncio.get_running_loop().create_future()
        self.call = CallInFlight(number=1, answer=answer, link=self)
        return self.call

    def begun(self, number: int) -> None:
        assert number == 1

    def stop(self, number: int) -> None:
        assert self.call is not None
        if not self.call.answer.done():
            self.worker.close()
            self.call.answer.set_result(
                Done(
                    call=number,
                    ended=Ended.ASKED,
                    exit_code=0,
                    signal=9,
                    cpu_seconds=0.0,
                    wall_seconds=0.0,
                    peak_memory_bytes=0,
                    problem="",
                )
            )


async def _say(worker: socket.socket, data: bytes) -> None:
    """All of it, as long as anybody listens."""
    loop = asyncio.get_running_loop()
    try:
        await loop.sock_sendall(worker, data)
    except OSError:
        return


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 100,
        struct.pack("<I", 1 << 31),
        b"\x01\x00\x00\x00\xff",
        b"\x02\x00\x00\x00\x3a\x00" * 4,
    ],
    ids=["noise", "too-long", "cut", "errors"],
)
async def test_one_that_does_not_warm_up_is_never_ready(said: bytes) -> None:
    zygote = PlayedZygote()
    waiting = WaitingMonty(zygote, _LIMITS)
    await _say(zygote.worker, said)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert not await waiting.warmed()
    assert not waiting.is_ready
    waiting.dismiss()


@pytest.mark.parametrize(
    "said",
    [
        b"\xff" * 100,
        struct.pack("<I", 1 << 31),
        b"\x01\x00\x00\x00\xff",
        _OK,
        _NOTHING_PRINTED * (1 << 19),  # for ever, as far as anybody can know
        b"\x04\x00\x00\x00\x32\x02\x08\x09",  # a value that is not there
    ],
    ids=["noise", "too-long", "cut", "acknowledged", "flood", "no-value"],
)
async def test_what_cannot_be_believed_is_no_answer(said: bytes) -> None:
    zygote = PlayedZygote()
    waiting = WaitingMonty(zygote, _LIMITS)
    await _say(zygote.worker, _WARMED)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await waiting.warmed()
        speaking = asyncio.create_task(_say(zygote.worker, said))
        assert await waiting.run("print(1)") is None
    speaking.cancel()
    await asyncio.wait((speaking,))
    assert not waiting.is_ready


async def test_what_it_said_before_it_had_a_program_is_not_the_programs() -> None:
    zygote = PlayedZygote()
    waiting = WaitingMonty(zygote, _LIMITS)
    printed = bytes.fromhex("0a0000000a080a0608011202320a")
    await _say(zygote.worker, _WARMED + printed)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await waiting.warmed()
        ended = b"\x0a\x00\x00\x00\x32\x08\x12\x06\x08\x01\x12\x02\x12\x00"
        speaking = asyncio.create_task(_say(zygote.worker, ended))
        told = await waiting.run("1")
    await speaking
    assert told is not None
    assert told.stdout == b""
