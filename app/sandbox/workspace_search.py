"""Looks through the files beneath a held directory, line by line, following nothing.

Entries, bytes and steps are bounded; what the bounds left out is counted and told, never silent.

Threat: Privilege escalation via tool calls
"""

import io
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from app.domain.errors import ToolError
from app.sandbox.held_files import READ_FLAGS, closing, read_window, require_private_file
from app.sandbox.openat2 import Opener
from app.sandbox.workspace_path import MAX_DEPTH, TEMPORARY_PREFIX, shown_name

_LIST_FLAGS = os.O_RDONLY | os.O_DIRECTORY
_TEXT_SAMPLE_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBounds:
    """The most one search may look at and give back."""

    entries: int = 2_000
    file_bytes: int = 4 * 1024 * 1024
    total_bytes: int = 16 * 1024 * 1024
    steps: int = 400_000_000  # bytes times the size of what looks for them; a step is about 8 ns
    lines: int = 500_000
    matches: int = 200
    line_bytes: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class LineMatcher:
    """What is looked for. `cost` is how many steps a byte may take."""

    finds: Callable[[bytes], bool]
    cost: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLine:
    """A line that matches; `text` may be cut."""

    path: str
    number: int
    text: str


@dataclass(slots=True, kw_only=True)
class SearchOutcome:
    """What was found, and whether that can be all: files left out are counted."""

    lines: list[FoundLine] = field(default_factory=list)
    files_read: int = 0
    files_left_out: int = 0
    is_cut: bool = False


class WorkspaceSearch:
    """One search beneath one held directory."""

    def __init__(self, opener: Opener, matcher: LineMatcher, bounds: SearchBounds) -> None:
        self._opener = opener
        self._matcher = matcher
        self._bounds = bounds
        self._entries = 0
        self._lines = 0
        self._bytes_left = min(bounds.total_bytes, bounds.steps // max(matcher.cost, 1))
        self.outcome = SearchOutcome()

    def look(self, root: int, parts: Sequence[str]) -> SearchOutcome:
        """Search a file, or all files beneath a directory. OSError or ToolError when not there."""
        with closing(self._opener(root, parts, READ_FLAGS, 0)) as opened:
            facts = os.fstat(opened)
            if stat.S_ISDIR(facts.st_mode):
                self._directory(opened, tuple(parts), MAX_DEPTH)
            else:
                require_private_file(facts)
                self._file(opened, "/".join(parts))
        return self.outcome

    def _directory(self, directory: int, above: tuple[str, ...], depth: int) -> None:
        if depth < 0:
            self.outcome.is_cut = True
            return
        for name, is_directory in self._names(directory):
            if self._is_over():
                self.outcome.is_cut = True
                return
            # Gone, replaced or refused since it was listed: then there is nothing to look at.
            with suppress(OSError, ToolError):
                flags = _LIST_FLAGS if is_directory else READ_FLAGS
                with closing(self._opener(directory, (name,), flags, 0)) as opened:
                    below = (*above, shown_name(name))
                    if is_directory:
                        self._directory(opened, below, depth - 1)
                    else:
                        require_private_file(os.fstat(opened))
                        self._file(opened, "/".join(below))

    def _names(self, directory: int) -> list[tuple[str, bool]]:
        """Files and directories by name; links and the rest are not even opened."""
        found: list[tuple[str, bool]] = []
        with os.scandir(directory) as items:
            for item in items:
                self._entries += 1
                if self._entries > self._bounds.entries:
                    self.outcome.is_cut = True
                    break
                if item.name.startswith(TEMPORARY_PREFIX):
                    continue
                with suppress(OSError):
                    mode = item.stat(follow_symlinks=False).st_mode
                    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                        found.append((item.name, stat.S_ISDIR(mode)))
        return sorted(found)

    def _is_over(self) -> bool:
        found = len(self.outcome.lines)
        return found >= self._bounds.matches or self._lines >= self._bounds.lines

    def _file(self, file: int, path: str) -> None:
        most = min(self._bounds.file_bytes, self._bytes_left)
        data = read_window(file, most + 1)
        if len(data) > most or not _is_text(data):
            # A part of a file would answer for the whole: it is left out and told.
            self._bytes_left -= min(len(data), most)
            self.outcome.files_left_out += 1
            return
        self._bytes_left -= len(data)
        self.outcome.files_read += 1
        for number, ended in enumerate(io.BytesIO(data), 1):
            if self._is_over():
                self.outcome.is_cut = True
                return
            self._lines += 1
            line = ended.removesuffix(b"\n")
            if self._matcher.finds(line):
                self.outcome.lines.append(
                    FoundLine(path=path, number=number, text=self._shown(line))
                )

    def _shown(self, line: bytes) -> str:
        most = self._bounds.line_bytes
        return line[:most].decode(errors="ignore").rstrip("\r") + "..." * (len(line) > most)


def _is_text(data: bytes) -> bool:
    if b"\0" in data[:_TEXT_SAMPLE_BYTES]:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
