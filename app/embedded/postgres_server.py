"""Starts the embedded PostgreSQL of a state directory, or joins the one that already runs there.

Every process that uses the server holds a shared lock until it stops or dies; a watchdog of its own
keeps the server up until the last of them is gone. The server listens on a private Unix socket only
and asks everybody for a SCRAM password. No secret is in an argument, an environment or the log.

Threat: Ledger tampering
"""

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from app.domain.errors import ConfigurationError
from app.embedded.postgres_binaries import (
    ServerBinaries,
    choose_binaries,
    copy_for_root,
    installed_binaries,
)
from app.embedded.postgres_cluster import (
    DATABASE,
    PASSWORD_FILE,
    SERVER_ENVIRONMENT,
    SUPERUSER,
    create_cluster,
    ensure_passwords,
)
from app.embedded.server_account import choose_server_account
from app.embedded.state_directory import (
    SOCKET_NAME,
    StateDirectory,
    open_state_directory,
    try_lock,
)

_WATCHDOG = Path(__file__).with_name("postgres_watchdog.py")
_POLL_SECONDS = 0.02
_START_TIMEOUT_SECONDS = 300
_STOP_TIMEOUT_SECONDS = 90
_PROBE_TIMEOUT_SECONDS = 5
_SPAWN_TIMEOUT_SECONDS = 60
_LARGEST_LOG_BYTES = 10_000_000
_PROTOCOL_3 = 196608
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "shared_buffers": "64MB",
    "max_connections": "50",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    # Errors carry values ("invalid input syntax for type uuid: ..."), their details whole rows.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
_SETTINGS_WITHOUT_DURABILITY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


class _Presence:
    """This process's share in the server: the kernel drops it when the process dies."""

    __slots__ = ("_fd",)

    def __init__(self, users_fd: int) -> None:
        self._fd: int | None = users_fd

    def leave(self) -> bool:
        """Give the share back; False when that has happened before."""
        fd, self._fd = self._fd, None
        if fd is None:
            return False
        os.close(fd)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPostgres:
    """A server that stays up at least until `stop`. Its URLs hold passwords and are not printed."""

    owner_url: str = field(repr=False)
    app_url: str = field(repr=False)
    audit_url: str = field(repr=False)
    sequencer_url: str = field(repr=False)
    eraser_url: str = field(repr=False)
    socket_dir: Path
    data_dir: Path
    _state: StateDirectory = field(repr=False)
    _presence: _Presence = field(repr=False)

    @property
    def server_pid(self) -> int:
        """The postmaster's process id now; 0 in the moment between a crash and the restart."""
        try:
            return int((self.data_dir / "postmaster.pid").read_text().partition("\n")[0])
        except (OSError, ValueError):
            return 0

    @property
    def log_path(self) -> Path:
        """What the server and its watchdog say; never a statement, never a value."""
        return self._state.log_path

    def superuser_url(self) -> str:
        """For dumps, restores and test templates; MeshFlow itself never connects with it."""
        password = self._state.read_private(PASSWORD_FILE)[SUPERUSER]
        return _url(SUPERUSER, password, self.socket_dir, database="postgres")

    def stop(self) -> None:
        """Leave; when nobody else is left, return after the server's fast shutdown. Idempotent."""
        if self._presence.leave():
            _wait_until_gone(self._state)


def start_embedded_postgres(state_dir: Path, *, durable: bool = True) -> EmbeddedPostgres:
    """Start the server of `state_dir`, making its data on first use, or join the running one.

    Returns when the server answers. `durable=False` is for tests: a power cut may lose everything.
    ConfigurationError when no server can run there, with the reason; nothing is left running.
    """
    account = choose_server_account()
    state = open_state_directory(state_dir, account)
    with contextlib.ExitStack() as undo:
        users_fd = state.open_lock("users.lock")
        undo.callback(os.close, users_fd)
        # An exclusive holder is a watchdog that is taking its server down: wait for a clean end.
        _wait_for_lock(users_fd, fcntl.LOCK_SH, what="the database to finish shutting down")
        running = _running_server(state, durable=durable)
        if durable and running["durable"] != "yes":
            raise ConfigurationError(
                f"the database of {state.path} runs without durability, for tests: stop it first"
            )
        undo.pop_all()
    socket_dir = Path(running["socket_dir"])
    passwords = state.read_private(PASSWORD_FILE)
    return EmbeddedPostgres(
        owner_url=_url("mf_owner", passwords["mf_owner"], socket_dir),
        app_url=_url("mf_app", passwords["mf_app"], socket_dir),
        audit_url=_url("mf_audit", passwords["mf_audit"], socket_dir),
        sequencer_url=_url("mf_sequencer", passwords["mf_sequencer"], socket_dir),
        eraser_url=_url("mf_eraser", passwords["mf_eraser"], socket_dir),
        socket_dir=socket_dir,
        data_dir=Path(running["data_dir"]),
        _state=state,
        _presence=_Presence(users_fd),
    )


def _running_server(state: StateDirectory, *, durable: bool) -> dict[str, str]:
    """What server.json tells of a server that answers, started here when nobody watches one."""
    has_spawned = False
    # The lock makes starts at once take turns: whoever has it prepares, the others wait here.
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        alive_fd = state.open_lock("watchdog.lock")
        try:
            if try_lock(alive_fd, fcntl.LOCK_EX):
                if has_spawned:
                    break
                _start_server(state, alive_fd, durable=durable)
                has_spawned = True
        finally:
            os.close(alive_fd)
        running = state.read_private("server.json")
        if running and answers(Path(running["socket_dir"])):
            return running
        time.sleep(_POLL_SECONDS)
    raise ConfigurationError(f"the embedded database did not start: see {state.log_path}")


def _start_server(state: StateDirectory, alive_fd: int, *, durable: bool) -> None:
    """Prepare what is missing and hand the server, and the watchdog's lock, to a new watchdog."""
    pinned_major = state.pinned_major()
    binaries = choose_binaries(
        installed_binaries(), pinned_major=pinned_major, state_dir=state.path
    )
    if state.account.differs_from_caller:
        binaries = copy_for_root(binaries, state.path)
    passwords = ensure_passwords(state, data_exists=pinned_major is not None)
    data_dir = state.data_dir(binaries.major)
    if pinned_major is None:
        create_cluster(state, binaries, passwords, durable=durable)
    socket_dir = state.socket_dir()
    state.write_private(
        "server.json",
        {
            "socket_dir": str(socket_dir),
            "data_dir": str(data_dir),
            "durable": "yes" if durable else "no",
        },
    )
    argv = _server_argv(binaries, data_dir, socket_dir, durable=durable)
    _spawn_watchdog(state, alive_fd, data_dir, socket_dir, argv)


def _server_argv(
    binaries: ServerBinaries, data_dir: Path, socket_dir: Path, *, durable: bool
) -> list[str]:
    settings = _SETTINGS | {"unix_socket_directories": str(socket_dir)}
    if not durable:
        settings |= _SETTINGS_WITHOUT_DURABILITY
    argv = [str(binaries.postgres), "-D", str(data_dir)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    return argv


def _spawn_watchdog(
    state: StateDirectory, alive_fd: int, data_dir: Path, socket_dir: Path, server_argv: list[str]
) -> None:
    account = state.account
    log_path = state.log_path
    if log_path.exists() and log_path.stat().st_size > _LARGEST_LOG_BYTES:
        log_path.replace(log_path.with_name("postgres.log.1"))
    log_fd = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    # A description of its own: sharing ours would share our lock.
    users_fd = state.open_lock("users.lock")
    argv = [sys.executable, "-I", "-S", "-B", str(_WATCHDOG)]
    argv += ["--users-fd", str(users_fd), "--alive-fd", str(alive_fd)]
    if account.differs_from_caller:
        argv += ["--uid", str(account.uid), "--gid", str(account.gid)]
    argv += ["--data-dir", str(data_dir), "--socket-lock", str(socket_dir / f"{SOCKET_NAME}.lock")]
    try:
        subprocess.run(  # noqa: S603 - our own interpreter and program, arguments composed here
            [*argv, "--", *server_argv],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            cwd="/",
            env=SERVER_ENVIRONMENT,
            pass_fds=(users_fd, alive_fd),
            start_new_session=True,  # Ctrl-C is for MeshFlow, which drains first
            timeout=_SPAWN_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        raise ConfigurationError(f"the database's watchdog did not start: see {log_path}") from None
    finally:
        os.close(users_fd)
        os.close(log_fd)


def answers(socket_dir: Path) -> bool:
    """Whether a server there takes connections now: it asks for a password, not for patience."""
    body = struct.pack("!i", _PROTOCOL_3) + b"user\0mf_app\0database\0meshflow\0\0"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PROBE_TIMEOUT_SECONDS)
        try:
            connection.connect(str(socket_dir / SOCKET_NAME))
            connection.sendall(struct.pack("!i", len(body) + 4) + body)
            return connection.recv(256)[:1] == b"R"  # "E" while it starts up or shuts down
        except OSError:
            return False


def _wait_until_gone(state: StateDirectory) -> None:
    """Return when the watchdog has ended, or at once when somebody else uses the server."""
    deadline = time.monotonic() + _STOP_TIMEOUT_SECONDS
    users_fd = state.open_lock("users.lock")
    try:
        while not _is_unwatched(state) and time.monotonic() < deadline:
            if try_lock(users_fd, fcntl.LOCK_SH):
                is_used = not try_lock(users_fd, fcntl.LOCK_EX)
                fcntl.flock(users_fd, fcntl.LOCK_UN)
                if is_used:
                    return
            time.sleep(_POLL_SECONDS)
    finally:
        os.close(users_fd)


def _is_unwatched(state: StateDirectory) -> bool:
    fd = state.open_lock("watchdog.lock")
    try:
        return try_lock(fd, fcntl.LOCK_EX)
    finally:
        os.close(fd)


def _wait_for_lock(fd: int, kind: int, *, what: str) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while not try_lock(fd, kind):
        if time.monotonic() > deadline:
            raise ConfigurationError(f"gave up waiting for {what}")
        time.sleep(_POLL_SECONDS)


def _url(role: str, password: str, socket_dir: Path, *, database: str = DATABASE) -> str:
    return (
        f"postgresql+asyncpg://{role}:{quote(password)}@/{database}?host={quote(str(socket_dir))}"
    )
