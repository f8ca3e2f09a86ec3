"""The words of Monty's own protocol for a process that waits: frames out, events in; pure bytes.

Source: the schema `monty.v1` of Monty 1.4 (protocol 6): four bytes of length, then a protobuf
message. Only what one program needs is written; of what comes back anything else is `Unanswerable`.
What comes back is hostile: it is bounded, and ValueError is all that is raised.

Threat: Privilege escalation via tool calls
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from app.sandbox.execution import ExecLimits

_PROTOCOL: Final = 6
_VERSION: Final = b"1.4.0"
MOST_FRAME_BYTES: Final = 256 * 1024  # reading one may not stop the event loop
_MOST_RECURSION: Final = 1_000
_MOST_SUSPENSIONS: Final = 1_000
_LONGEST_SLEEP_SECONDS: Final = 10  # of one `sleep`, as in Monty's own command
_IMPORT: Final = 31  # of all that a program may ask of a host: a module that Monty has not
_VARINT_BYTES: Final = 10
_MOST_FRAMES_OF_A_TRACEBACK: Final = 1_100

Field: TypeAlias = tuple[int, int | bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Printed:
    """What the program wrote, by stream and in order."""

    parts: tuple[tuple[bool, bytes], ...]  # whether it is standard error, and the text


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The program ended; `value` is the message that holds its last expression."""

    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One frame of a traceback."""

    line: int
    column: int
    end_line: int
    end_column: int
    name: str | None
    source: str
    shows_caret: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The program ended with an exception."""

    kind: str
    message: str | None
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The program asks for a name or a module that there is not; `reply` says so to it."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A request that is no program was done."""


@dataclass(frozen=True, slots=True)
class Unanswerable:
    """The program wants something of a host, a file for one; or the interpreter gave up."""


Event: TypeAlias = Printed | Completed | Failed | Missing | Acknowledged | Unanswerable


def configure(
    limits: ExecLimits, *, heap_bytes: int, run_seconds: float, sleep_seconds: float
) -> bytes:
    """The frame that begins a session with these limits."""
    asked = min(limits.memory_bytes, heap_bytes)
    bounds = (
        _number(2, asked)
        + _number(4, _MOST_RECURSION)
        + _number(5, _MOST_SUSPENSIONS)
        + _number(6, int(run_seconds * 1_000_000))
        + _number(8, int(sleep_seconds * 1_000_000))
    )
    # Clock, zone, sleeping and chance come from the interpreter itself; nothing of it is asked for.
    sleeping = _bytes(1, _number(1, _LONGEST_SLEEP_SECONDS * 1_000_000))
    alone = _bytes(1, b"") + _bytes(4, _bytes(1, b"")) + _bytes(5, sleeping)
    alone += _bytes(6, b"") + _bytes(9, b"")
    session = _bytes(1, b"main.py") + _bytes(2, bounds) + _bytes(5, _VERSION)
    return _frame(_bytes(1, session + _number(9, _PROTOCOL) + _bytes(11, alone)))


def feed(program: bytes, directory: bytes) -> bytes:
    """The frame that runs a program, which believes to be in `directory`."""
    return _frame(_bytes(3, _bytes(1, program) + _bytes(5, directory)))


def reset() -> bytes:
    """The frame that ends a session: nothing of it is left."""
    return _frame(_bytes(9, b""))


def take_events(held: bytearray) -> list[Event]:
    """The whole frames at the beginning of `held`, which they are taken out of. ValueError."""
    found: list[Event] = []
    at = 0
    while len(held) - at >= 4:  # noqa: PLR2004 - the length of the length
        (size,) = struct.unpack_from("<I", held, at)
        if size > MOST_FRAME_BYTES:
            raise ValueError("a frame is too long")
        if len(held) - at - 4 < size:
            break
        found.append(_event(bytes(held[at + 4 : at + 4 + size])))
        at += 4 + size
    del held[:at]
    return found


def _event(message: bytes) -> Event:
    kind, body = 0, b""
    for number, value in fields(message):
        if number <= 19 and isinstance(value, bytes):  # noqa: PLR2004 - above are stamps
            kind, body = number, value
    match kind:
        case 1:
            return Printed(parts=tuple(_printed(body)))
        case 3:
            return _asked_of_a_host(body)
        case 4:
            return _no_such_name(body)
        case 6:
            return Completed(value=body)
        case 7:
            return _failed(body)
        case 10:
            return Acknowledged()
        case _:
            return Unanswerable()


def _printed(body: bytes) -> Iterator[tuple[bool, bytes]]:
    for number, value in fields(body):
        if number == 1 and isinstance(value, bytes):
            told = dict(fields(value))
            yield told.get(1) == 2, as_bytes(told.get(2, b""))  # noqa: PLR2004 - standard error


def _asked_of_a_host(body: bytes) -> Event:
    told = dict(fields(body))
    if _IMPORT not in told:
        return Unanswerable()
    nobody = _bytes(2, _bytes(5, b""))
    return Missing(reply=_frame(_bytes(4, _number(1, as_number(told.get(1, 0))) + nobody)))


def _no_such_name(body: bytes) -> Event:
    if 2 in dict(fields(body)):  # noqa: PLR2004 - of an object of the host
        return Unanswerable()
    return Missing(reply=_frame(_bytes(5, _bytes(3, b""))))


def _failed(body: bytes) -> Failed:
    raised = as_bytes(dict(fields(body)).get(1, b""))
    kind, message, places = "", None, []
    for number, value in fields(raised):
        match number, value:
            case 1, bytes():
                kind = value.decode()
            case 2, bytes():
                message = value.decode()
            case 3, bytes():
                places.append(_place(value))
    if len(places) > _MOST_FRAMES_OF_A_TRACEBACK:
        raise ValueError("a traceback is too long")
    return Failed(kind=kind, message=message, places=tuple(places))


def _place(body: bytes) -> Place:
    told = dict(fields(body))
    start, end = dict(fields(as_bytes(told.get(2, b"")))), dict(fields(as_bytes(told.get(3, b""))))
    return Place(
        line=as_number(start.get(1, 0)),
        column=as_number(start.get(2, 0)),
        end_line=as_number(end.get(1, 0)),
        end_column=as_number(end.get(2, 0)),
        name=None if told.get(7) else as_bytes(told.get(4, b"<module>")).decode(),
        source=as_bytes(told.get(5, b"")).decode(),
        shows_caret=not told.get(6),
    )


def fields(message: bytes) -> Iterator[Field]:
    """Each field of a protobuf message: its number and an int, or the bytes. ValueError."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        match key & 7:
            case 0:
                value: int | bytes
                value, at = varint(message, at)
            case 1 | 5 as fixed:
                size = 8 if fixed == 1 else 4
                value, at = _taken(message, at, size)
            case 2:
                size, at = varint(message, at)
                value, at = _taken(message, at, size)
            case _:
                raise ValueError("no such kind of field")
        yield key >> 3, value


def varint(message: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends. ValueError."""
    value = 0
    for place in range(_VARINT_BYTES):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:  # noqa: PLR2004 - the last one
            return value, at
    raise ValueError("a number has no end")


def as_bytes(value: int | bytes) -> bytes:
    """The bytes that a field has to be. ValueError."""
    if not isinstance(value, bytes):
        raise ValueError("a field is of another kind")  # noqa: TRY004 - hostile bytes, no mistake of ours
    return value


def as_number(value: int | bytes) -> int:
    """The number that a field has to be. ValueError."""
    if not isinstance(value, int):
        raise ValueError("a field is of another kind")  # noqa: TRY004 - hostile bytes, no mistake of ours
    return value


def _taken(message: bytes, at: int, size: int) -> tuple[bytes, int]:
    if size > len(message) - at:
        raise ValueError("a field is longer than its message")
    return message[at : at + size], at + size


def _frame(message: bytes) -> bytes:
    return struct.pack("<I", len(message)) + message


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
