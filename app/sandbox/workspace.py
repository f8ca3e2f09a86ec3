"""The one directory a run may touch: held by descriptor, addressed by name only from there.

Every path is resolved by `openat2` beneath the held descriptor. No host path is kept, so none can
be shown; errors are ToolError with fixed texts. Links are never followed, not even inside.

Threat: Privilege escalation via tool calls
"""

import errno
import os
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.domain.errors import ConfigurationError, ToolError
from app.sandbox.directory_identity import is_same, overlaps
from app.sandbox.held_files import (
    READ_FLAGS,
    closing,
    give_to,
    hand_over,
    read_window,
    require_private_file,
)
from app.sandbox.openat2 import HOLD_DIRECTORY, Opener, open_beneath
from app.sandbox.sandbox_profile import WorkerAccount
from app.sandbox.set_aside import SetAside
from app.sandbox.workspace_path import (
    TEMPORARY_PREFIX,
    TEXTS,
    parse_file_path,
    parse_path,
    shown_name,
    told_plainly,
)
from app.sandbox.workspace_search import (
    LineMatcher,
    SearchBounds,
    SearchOutcome,
    WorkspaceSearch,
)
from app.sandbox.workspace_usage import count_usage, weight

_ID_DIGITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceQuota:
    """The most one run's workspace may hold; checked before each write."""

    total_bytes: int = 64 * 1024 * 1024
    entries: int = 2_000
    file_bytes: int = 16 * 1024 * 1024


class EntryKind(StrEnum):
    """What a listed name stands for; what a link points to is never looked at."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a listed directory. `size` is in bytes and only of regular files."""

    name: str
    kind: EntryKind
    size: int


def _kind(mode: int) -> EntryKind:
    if stat.S_ISREG(mode):
        return EntryKind.FILE
    if stat.S_ISDIR(mode):
        return EntryKind.DIRECTORY
    return EntryKind.LINK if stat.S_ISLNK(mode) else EntryKind.OTHER


class Workspace:
    """One run's directory. Blocking; safe to use from several threads.

    Holds one descriptor until `close`. An operation under way when `close` is called goes on with
    a descriptor of its own; one that starts afterwards is refused.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        opener: Opener,
        quota: WorkspaceQuota,
        token_hex: Callable[[int], str],
        names: tuple[str, str],
        owner: WorkerAccount | None,
        root: "WorkspaceRoot",
    ) -> None:
        self._descriptor = descriptor
        self._opener = opener
        self._quota = quota
        self._token_hex = token_hex
        self._owner = owner
        self._root = root
        self.tenant_hex, self.run_hex = names
        self._closed = False
        self._guard = threading.Lock()  # for the descriptor: its number must not be reused in use
        self._writing = threading.Lock()  # one write at a time, or two pass the same quota

    def close(self) -> None:
        """Let go of the directory; what is in it stays. May be called again."""
        with self._guard:
            if not self._closed:
                self._closed = True
                os.close(self._descriptor)

    @contextmanager
    def lend(self) -> Iterator[int]:
        """A descriptor of the directory, for a confined worker; closed with the block."""
        with self._held() as own:
            yield own

    def renew(self, flooded: int) -> Callable[[], None] | None:
        """See LentWorkspace. From then on this is the empty directory, for whoever asks next."""
        with told_plainly():
            take_apart = self._root.set_aside.take(self.tenant_hex, self.run_hex, flooded)
            if take_apart is not None:
                fresh = self._root.open_run(self.tenant_hex, self.run_hex)
                with closing(fresh), self._guard:
                    if not self._closed:
                        os.dup2(fresh, self._descriptor, inheritable=False)
            return take_apart

    def read_file(self, path: str, limit_bytes: int, *, offset: int = 0) -> bytes:
        """At most `limit_bytes` of a regular file from `offset`; b'' past its end. ToolError."""
        parts = parse_file_path(path)
        with (
            told_plainly(),
            self._held() as root,
            closing(self._opener(root, parts, READ_FLAGS, 0)) as file,
        ):
            require_private_file(os.fstat(file))
            return read_window(file, limit_bytes, offset)

    def write_file(self, path: str, data: bytes) -> None:
        """Put `data` under that name, making directories on the way; whole or not at all.

        The content is on disk before the name changes; the name itself may be lost in a power
        cut, then the old content stands. A killed process may leave one reserved, counted name.
        Raises ToolError, also when the quota would be passed: then nothing has changed.
        """
        parts = parse_file_path(path)
        if len(data) > self._quota.file_bytes:
            raise ToolError(f"a file may hold at most {self._quota.file_bytes} bytes")
        with told_plainly(), self._writing, self._held() as root:
            parent, missing = self._deepest(root, parts[:-1])
            try:
                replaced = None if missing else self._replaceable(parent, parts[-1])
                self._require_room(root, data, replaced, missing)
                for name in missing:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=parent)
                        give_to(self._owner, name, parent)
                    below = self._opener(parent, (name,), HOLD_DIRECTORY, 0)
                    os.close(parent)
                    parent = below
                self._replace(parent, parts[-1], data)
            finally:
                os.close(parent)

    def list_files(self, path: str) -> tuple[Entry, ...]:
        """The names in a directory, sorted, without following any; at most the entry quota."""
        parts = parse_path(path)
        found: list[Entry] = []
        with told_plainly(), self._held() as root:
            flags = os.O_RDONLY | os.O_DIRECTORY
            with (
                closing(self._opener(root, parts, flags, 0)) as directory,
                os.scandir(directory) as names,
            ):
                for item in names:
                    if item.name.startswith(TEMPORARY_PREFIX):
                        continue
                    if len(found) >= self._quota.entries:
                        break
                    with suppress(FileNotFoundError):  # gone since it was listed
                        facts = item.stat(follow_symlinks=False)
                        kind = _kind(facts.st_mode)
                        size = facts.st_size if kind is EntryKind.FILE else 0
                        found.append(Entry(name=shown_name(item.name), kind=kind, size=size))
        return tuple(sorted(found, key=lambda entry: entry.name))

    def search_files(self, path: str, matcher: LineMatcher) -> SearchOutcome:
        """The matching lines of a file or of all beneath a directory, within bounds. ToolError."""
        parts = parse_path(path)
        with told_plainly(), self._held() as root:
            return WorkspaceSearch(self._opener, matcher, SearchBounds()).look(root, parts)

    @contextmanager
    def _held(self) -> Iterator[int]:
        """A descriptor of this directory that nobody else closes."""
        with self._guard:
            if self._closed:
                raise ToolError("the workspace is closed")
            own = os.dup(self._descriptor)
        with closing(own):
            yield own

    def _deepest(self, root: int, parts: Sequence[str]) -> tuple[int, Sequence[str]]:
        """The deepest directory of `parts` that exists, as a descriptor, and what is missing."""
        held = os.dup(root)
        for done, name in enumerate(parts):
            try:
                below = self._opener(held, (name,), HOLD_DIRECTORY, 0)
            except FileNotFoundError:
                return held, parts[done:]
            except BaseException:
                os.close(held)
                raise
            os.close(held)
            held = below
        return held, ()

    @staticmethod
    def _replaceable(parent: int, name: str) -> os.stat_result | None:
        """What stands under the name now, when it may be replaced; None when nothing does."""
        try:
            facts = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(facts.st_mode):
            raise ToolError(TEXTS[errno.EISDIR])
        require_private_file(facts)
        return facts

    def _require_room(
        self,
        root: int,
        data: bytes,
        replaced: os.stat_result | None,
        missing: Sequence[str],
    ) -> None:
        """Refuse a write after which the workspace would hold more than its quota."""
        usage = count_usage(self._opener, root, self._quota.entries)
        entries = usage.entries + len(missing) + (replaced is None)
        if entries > self._quota.entries:
            raise ToolError(f"the workspace may hold at most {self._quota.entries} entries")
        total = usage.total_bytes + len(data) - (0 if replaced is None else weight(replaced))
        if total > self._quota.total_bytes:
            raise ToolError(f"the workspace may hold at most {self._quota.total_bytes} bytes")

    def _replace(self, parent: int, name: str, data: bytes) -> None:
        """Write under a name of our own, then rename within the held directory: never through."""
        temporary = TEMPORARY_PREFIX + self._token_hex(16)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOCTTY
        file = self._opener(parent, (temporary,), flags, 0o600)
        try:
            with closing(file):
                if self._owner is not None:
                    os.fchown(file, self._owner.uid, self._owner.gid)
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(file, rest) :]
                os.fsync(file)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise


class WorkspaceRoot:
    """Where every run's workspace lies; holds one descriptor until `close`."""

    def __init__(
        self,
        descriptor: int,
        *,
        opener: Opener,
        quota: WorkspaceQuota,
        token_hex: Callable[[int], str],
        owner: WorkerAccount | None = None,
    ) -> None:
        self._descriptor = descriptor
        self._opener = opener
        self._quota = quota
        self._token_hex = token_hex
        self._owner = owner
        self.set_aside = SetAside(descriptor, opener=opener, token_hex=token_hex)

    def for_run(self, tenant_hex: str, run_hex: str) -> Workspace:
        """Open `<tenant>/<run>`, made 0700 when missing; the caller closes it.

        Both names are 32 lower-case hex digits: random ids, because a confined worker can still
        ask whether a path exists. Raises ToolError when it cannot be had.
        """
        if not (_is_id(tenant_hex) and _is_id(run_hex)):
            raise ToolError("the workspace could not be opened")
        with told_plainly():
            held = self.open_run(tenant_hex, run_hex)
        return Workspace(
            held,
            opener=self._opener,
            quota=self._quota,
            token_hex=self._token_hex,
            names=(tenant_hex, run_hex),
            owner=self._owner,
            root=self,
        )

    def open_run(self, tenant_hex: str, run_hex: str) -> int:
        """A descriptor of the run's directory, made when missing. OSError."""
        held = os.dup(self._descriptor)
        try:
            for name in (tenant_hex, run_hex):
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=held)
                above, held = held, self._opener(held, (name,), HOLD_DIRECTORY, 0)
                with closing(above):
                    hand_over(self._owner, name, above, is_run=name == run_hex)
        except BaseException:
            os.close(held)
            raise
        return held

    def close(self) -> None:
        """Let go of the directory; workspaces already open stay open."""
        self.set_aside.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _is_id(text: str) -> bool:
    return len(text) == _ID_DIGITS and not set(text) - set("0123456789abcdef")


def open_workspace_root(
    path: Path,
    *,
    forbidden: Sequence[Path],
    quota: WorkspaceQuota | None = None,
    opener: Opener = open_beneath,
    token_hex: Callable[[int], str] = secrets.token_hex,
    owner: WorkerAccount | None = None,
) -> WorkspaceRoot:
    """Hold the workspace directory, or raise ConfigurationError with the reason.

    With an `owner`, which only root may name, what is made in a run's workspace is its.
    Refused: missing, not a directory, unwritable (found out by making a directory), `/`, and one
    that contains or lies in any of `forbidden` after links are resolved. Those need not exist.
    """
    try:
        place = path.resolve(strict=True)
        keep_out = [kept.resolve() for kept in forbidden]
    except (OSError, RuntimeError, ValueError):  # RuntimeError: links in a circle
        raise ConfigurationError(f"MESHFLOW_WORKSPACE_DIR does not exist: {path}") from None
    if not place.is_dir():
        raise ConfigurationError(f"MESHFLOW_WORKSPACE_DIR is not a directory: {path}")
    if is_same(place, Path("/")):
        raise ConfigurationError("MESHFLOW_WORKSPACE_DIR must not be the root of the file system")
    for kept in keep_out:
        if overlaps(place, kept):
            raise ConfigurationError(f"MESHFLOW_WORKSPACE_DIR {path} overlaps {kept}")
    try:
        descriptor = os.open(place, HOLD_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise ConfigurationError(f"MESHFLOW_WORKSPACE_DIR cannot be opened: {path}") from None
    probe = TEMPORARY_PREFIX + token_hex(16)
    try:
        os.mkdir(probe, 0o700, dir_fd=descriptor)
        os.rmdir(probe, dir_fd=descriptor)
    except OSError:
        os.close(descriptor)
        raise ConfigurationError(f"MESHFLOW_WORKSPACE_DIR is not writable: {path}") from None
    return WorkspaceRoot(
        descriptor,
        opener=opener,
        quota=quota or WorkspaceQuota(),
        token_hex=token_hex,
        owner=owner,
    )
