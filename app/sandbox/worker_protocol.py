"""The messages between the server and a zygote, and between a zygote and its worker.

One message is one packet of JSON on a SOCK_SEQPACKET pair; descriptors travel beside it. The
zygote never sees a program: that stays in a descriptor which only the confined worker reads.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Final

from app.sandbox.execution import Argv, ExecLimits, Program, SourceText

MAX_PACKET_BYTES: Final = 64 * 1024
# Beside a start: workspace, program, stdin, stdout, stderr.
DESCRIPTORS: Final = 5
MAX_PROGRAM_BYTES: Final = 1024 * 1024
# What reading a packet may raise that is none: no object, no number, a number that is none, depth.
NONSENSE: Final = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


class Ended(StrEnum):
    """How a worker ended, as the zygote saw it."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    DEADLINE = "deadline"
    CPU_LIMIT = "cpu_limit"
    QUOTA = "quota"
    ASKED = "asked"
    NOT_CONFINED = "not_confined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Fork a worker for this call; one that `waits` has no deadline until its call has begun."""

    call: int
    limits: ExecLimits
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """The worker that waited has its program now: from here on its time counts."""

    call: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Kill the worker of this call, if it still runs."""

    call: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The zygote has everything loaded; `problem` says why it cannot confine, else it is empty."""

    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """The worker that is to wait has this process id; it is used for its clock alone."""

    call: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The worker of this call and all it started are gone."""

    call: int
    ended: Ended
    exit_code: int
    signal: int
    cpu_seconds: float
    wall_seconds: float
    peak_memory_bytes: int
    problem: str


def encode(message: Start | Begun | Stop | Ready | Forked | Done) -> bytes:
    """The packet of a message."""
    match message:
        case Begun(call=call) | Stop(call=call):  # a caller waits for these
            return b'{"kind": "%s", "call": %d}' % (type(message).__name__.encode(), call)
        case _:
            pass
    return json.dumps({"kind": type(message).__name__, **asdict(message)}).encode()


def decode_request(packet: bytes) -> Start | Begun | Stop:
    """What the server asks. One of NONSENSE for anything else."""
    words = json.loads(packet)
    match words.pop("kind"):
        case "Start":
            return Start(
                call=int(words["call"]),
                limits=_limits(words["limits"]),
                waits=bool(words["waits"]),
            )
        case "Begun":
            return Begun(call=int(words["call"]))
        case "Stop":
            return Stop(call=int(words["call"]))
        case _:
            raise ValueError("no such request")


def decode_answer(packet: bytes) -> Ready | Forked | Done:
    """What a zygote says. One of NONSENSE for anything else."""
    words = json.loads(packet)
    match words.pop("kind"):
        case "Ready":
            return Ready(problem=str(words["problem"]))
        case "Forked":
            return Forked(call=int(words["call"]), pid=int(words["pid"]))
        case "Done":
            return Done(
                call=int(words["call"]),
                ended=Ended(words["ended"]),
                exit_code=int(words["exit_code"]),
                signal=int(words["signal"]),
                cpu_seconds=float(words["cpu_seconds"]),
                wall_seconds=float(words["wall_seconds"]),
                peak_memory_bytes=int(words["peak_memory_bytes"]),
                problem=str(words["problem"]),
            )
        case _:
            raise ValueError("no such answer")


def encode_program(program: Program) -> bytes:
    """What the program's descriptor holds."""
    match program:
        case SourceText(text=text):
            return json.dumps({"text": text}).encode()
        case Argv(words=words):
            return json.dumps({"words": words}).encode()


def decode_program(data: bytes) -> Program:
    """The program as it was sent."""
    held = json.loads(data)
    if "text" in held:
        return SourceText(text=str(held["text"]))
    return Argv(words=tuple(str(word) for word in held["words"]))


def _limits(given: Mapping[str, float]) -> ExecLimits:
    names = {field.name for field in fields(ExecLimits)} - {"wall_seconds"}
    whole = {name: int(given[name]) for name in names}
    return ExecLimits(wall_seconds=float(given["wall_seconds"]), **whole)
