"""Lays out the private directory of one embedded database: locks, passwords, socket, data.

    users.lock      held shared by every process that uses the server; the dead let go of it
    watchdog.lock   held by the one start that prepares a server, then by its watchdog for life
    server.json     where the running server listens and whether it is durable
    passwords.json  one password a login, mode 0600
    postgres.log    what server and watchdog say; never a statement, never a value
    pg<major>       the data directory, owned by the user that runs the server
    run             the socket, when the path is short enough for one

Threat: Ledger tampering
"""

import fcntl
import hashlib
import json
import os
import re
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import ConfigurationError
from app.embedded.server_account import ServerAccount, require_reachable

SOCKET_NAME = ".s.PGSQL.5432"
# sun_path with its closing zero: 108 bytes on Linux, 104 on the BSD family.
_LONGEST_SOCKET_PATH = 107 if sys.platform == "linux" else 103
# PostgreSQL splits the directory setting at commas, and URLs give other characters a meaning.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")
_DATA_DIR = re.compile(r"pg(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDirectory:
    """An existing state directory that only the caller, and for root the server's group, enters."""

    path: Path
    account: ServerAccount

    def data_dir(self, major: int) -> Path:
        """Where the data of one major version lives."""
        return self.path / f"pg{major}"

    @property
    def log_path(self) -> Path:
        """What server and watchdog write to."""
        return self.path / "postgres.log"

    def pinned_major(self) -> int | None:
        """The newest major that has data here, None on a first start."""
        majors = [
            int(match.group(1))
            for entry in self.path.iterdir()
            if (match := _DATA_DIR.fullmatch(entry.name)) and (entry / "PG_VERSION").is_file()
        ]
        return max(majors, default=None)

    def open_lock(self, name: str) -> int:
        """A new open file description of a lock file, closed over exec, not locked yet."""
        return os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write_private(self, name: str, content: dict[str, str]) -> None:
        """Durably put a 0600 file in place, whole or not at all."""
        scratch = self.path / f".{name}.new"
        scratch.unlink(missing_ok=True)
        fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(self.path / name)

    def read_private(self, name: str) -> dict[str, str]:
        """What write_private put there; empty when there is none, ConfigurationError when torn."""
        try:
            parsed: object = json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            raise ConfigurationError(f"{self.path / name} is damaged: restore it from a backup")
        return {str(key): str(value) for key, value in parsed.items()}

    def socket_dir(self) -> Path:
        """A private directory short enough for a socket, made if missing.

        ConfigurationError when somebody else owns that place or may look into it.
        """
        digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
        private_name = f"meshflow-{self.account.uid}-{digest}"
        for directory in (
            self.path / "run",
            Path(tempfile.gettempdir()).resolve() / private_name,
            Path("/tmp").resolve() / private_name,  # noqa: S108 - verified below, and short
        ):
            if fits_a_socket(directory):
                _make_private(directory, self.account)
                return directory
        raise ConfigurationError(f"no directory is short enough for the socket of {self.path}")


def open_state_directory(state_dir: Path, account: ServerAccount) -> StateDirectory:
    """Make or check the directory; no directory that existed before, but itself, is changed."""
    path = Path(os.path.realpath(state_dir))
    if account.differs_from_caller:
        require_reachable(path.parent, account)
    _make_parents(path.parent, mode=0o755 if account.differs_from_caller else 0o700)
    path.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigurationError(
                f"{path} belongs to another user or can be written by others: it cannot hold a "
                "database. Set MESHFLOW_DATA_DIR to a directory of your own"
            )
        mode = 0o700
        if account.differs_from_caller:
            # The server has to pass through to its data; only its own group may, and only pass.
            os.fchown(fd, 0, account.gid)
            mode = 0o710
        os.fchmod(fd, mode)
    finally:
        os.close(fd)
    return StateDirectory(path=path, account=account)


def fits_a_socket(directory: Path) -> bool:
    """Whether a socket in `directory` has a path the kernel, PostgreSQL and a URL all take."""
    length = len(os.fsencode(directory / SOCKET_NAME))
    return length <= _LONGEST_SOCKET_PATH and _PLAIN_PATH.fullmatch(str(directory)) is not None


def try_lock(fd: int, kind: int) -> bool:
    """Take a flock (LOCK_EX or LOCK_SH) if that needs no waiting."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_parents(directory: Path, *, mode: int) -> None:
    missing = [part for part in (directory, *directory.parents) if not part.exists()]
    for part in reversed(missing):
        try:
            part.mkdir(mode=mode)
        except FileExistsError:
            continue
        part.chmod(mode)  # mkdir obeys the umask; this directory is ours, made a line ago


def _make_private(directory: Path, account: ServerAccount) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        raise ConfigurationError(f"{directory} is not a directory of the database") from None
    try:
        found = os.fstat(fd)
        if found.st_uid == os.geteuid() and account.differs_from_caller:
            os.fchown(fd, account.uid, account.gid)
            found = os.fstat(fd)
        if found.st_uid != account.uid or stat.S_IMODE(found.st_mode) != 0o700:  # noqa: PLR2004 - a mode is best read as its number
            raise ConfigurationError(
                f"{directory}, where the database's socket belongs, is not private to the user "
                f"'{account.name}': remove it if it is not yours to keep"
            )
    finally:
        os.close(fd)
