"""What a workspace path may look like, and what may be said when one is refused.

Nothing said here names anything of the host: the texts are fixed.

Threat: Privilege escalation via tool calls
"""

import errno
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from app.domain.errors import ToolError

MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255
MAX_DEPTH = 32
TEMPORARY_PREFIX = ".meshflow-writing-"

_LEAVES = "the path leaves the workspace or goes through a link"
NOT_REGULAR = "that is not a regular file"
_FULL = "the workspace is full"
TEXTS = {
    errno.ENOENT: "there is no such file or directory",
    errno.EEXIST: "something of that name is in the way",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EISDIR: "that is a directory, not a file",
    errno.ELOOP: _LEAVES,
    errno.EXDEV: _LEAVES,
    errno.EAGAIN: _LEAVES,
    errno.EINVAL: "the path is not acceptable",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ENXIO: NOT_REGULAR,
    errno.ENODEV: NOT_REGULAR,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EACCES: "that is not permitted",
    errno.EPERM: "that is not permitted",
}


def parse_path(text: str) -> tuple[str, ...]:
    """The plain names of a workspace path; `.` alone gives none.

    Refuses, by ToolError, what is empty, absolute, too long or too deep, and any `..`, control
    character, reserved name or text that is not Unicode.
    """
    if not text:
        raise ToolError("the path is empty")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ToolError("the path holds a control character")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ToolError("the path is not valid Unicode") from None
    if size > MAX_PATH_BYTES:
        raise ToolError("the path is too long")
    if text.startswith("/"):
        raise ToolError("the path is absolute; give one relative to the workspace")
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if ".." in parts:
        raise ToolError("the path holds '..'; give one straight down from the workspace")
    if len(parts) > MAX_DEPTH or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise ToolError("the path is too long")
    if any(part.startswith(TEMPORARY_PREFIX) for part in parts):
        raise ToolError("the path holds a reserved name")
    return parts


def parse_file_path(text: str) -> tuple[str, ...]:
    """As `parse_path`, for what must name a file."""
    parts = parse_path(text)
    if not parts or text.endswith(("/", "/.")):
        raise ToolError("the path names a directory, not a file")
    return parts


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what the operating system says into a text that names nothing of the host."""
    try:
        yield
    except OSError as refused:
        text = TEXTS.get(refused.errno or 0, "the file system refused")
        raise ToolError(text) from None


def shown_name(name: str) -> str:
    """A name as it may be shown: what is not printable Unicode is escaped."""
    text = name.encode(errors="backslashreplace").decode()
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
