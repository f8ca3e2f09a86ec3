"""Makes what Monty's program writes read as the other interpreter's output does: a pure text step.

Monty ends its standard error with how long it took, then the last value or the error.
"""

import re
from dataclasses import replace
from typing import Final

from app.sandbox.execution import ExecResult, ExecStatus

# As Monty 1.4 writes it: a duration, a mark, then a value or "error: ...".
_END: Final = re.compile(
    rb"^[0-9.]{1,16}(?:ns|\xc2\xb5s|\xce\xbcs|ms|s) \xe2\x9d\xaf ", re.MULTILINE
)
_ERROR: Final = b"error: "
_PROGRAM: Final = b"/proc/self/fd/0"
_SHOWN_PROGRAM: Final = b"<python>"
_NOT_BEGUN: Final = b"error:\n"  # before the error of a program that cannot be read
_NOTHING: Final = b"None"


def without_marks(result: ExecResult) -> ExecResult:
    """The result with a last value on standard output and an error's own text; no time in it."""
    said, value = result.stderr.replace(_PROGRAM, _SHOWN_PROGRAM), b""
    if result.status is not ExecStatus.OK:
        said = said.removeprefix(_NOT_BEGUN)
    ends = list(_END.finditer(said))
    if ends:
        said, value = said[: ends[-1].start()], said[ends[-1].end() :].rstrip(b"\n")
    shown = b""
    if value and result.status is not ExecStatus.OK:
        said += value.removeprefix(_ERROR) + b"\n"
    elif value and value != _NOTHING:
        shown = value + b"\n"
    return replace(result, stdout=result.stdout + shown, stderr=said)
