"""Keeps one PostgreSQL server up while anybody uses it, and takes it down with the last user.

A program of its own (standard library only, started by path), so that a killed MeshFlow leaves no
server behind: every user holds a shared lock which the kernel drops when the user dies, however it
dies. The watchdog asks for that lock exclusively; getting it means that nobody is left. A server
that ends by itself is started again, with growing pauses. The watchdog runs as the server's user
and ignores polite signals, so that a service manager which signals everything at once does not
take the ledger from a MeshFlow that is still draining.
"""

import argparse
import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

_POLL_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# A server that lived this long has started; a shorter life counts as a failed start.
_STARTED_AFTER_SECONDS = 3.0
_FAILED_STARTS_BEFORE_GIVING_UP = 6
_FAST_SHUTDOWN_SECONDS = 60.0
_IMMEDIATE_SHUTDOWN_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
_STOP_SIGNALS = (
    (signal.SIGINT, _FAST_SHUTDOWN_SECONDS),
    (signal.SIGQUIT, _IMMEDIATE_SHUTDOWN_SECONDS),
    (signal.SIGKILL, _IMMEDIATE_SHUTDOWN_SECONDS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What one watchdog looks after."""

    users_fd: int
    data_dir: Path
    socket_lock: Path
    server_argv: tuple[str, ...]


def main(argv: Sequence[str]) -> int:
    """Detach, drop power, and watch until nobody uses the server."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--users-fd", type=int, required=True)
    parser.add_argument("--alive-fd", type=int, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--socket-lock", type=Path, required=True)
    parser.add_argument("server_argv", nargs="+")
    options = parser.parse_args(argv)
    if os.fork():
        return 0  # the starter waits for this process only, so the watchdog is nobody's zombie
    for fd in (options.users_fd, options.alive_fd):
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
    for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    tie_to_parent = _parent_death_tie()
    if options.uid is not None:
        # Only now: the interpreter itself may be readable by root alone.
        os.setgroups([])
        os.setgid(options.gid)
        os.setuid(options.uid)
    os.umask(0o077)
    watch = Watch(
        users_fd=options.users_fd,
        data_dir=options.data_dir,
        socket_lock=options.socket_lock,
        server_argv=tuple(options.server_argv),
    )
    return keep_up(watch, tie_to_parent)


def keep_up(watch: Watch, tie_to_parent: Callable[[], None]) -> int:
    """Run the server until the last user is gone (0), or until it plainly cannot start (1)."""
    pause = _FIRST_PAUSE_SECONDS
    failed_starts = 0
    has_started = False
    while True:
        clear_stale_locks(watch)
        began = time.monotonic()
        server = _start(watch, tie_to_parent)
        ending = _wait_while_used(watch, server)
        if ending is None:
            return 0
        if time.monotonic() - began >= _STARTED_AFTER_SECONDS:
            has_started, failed_starts, pause = True, 0, _FIRST_PAUSE_SECONDS
        failed_starts += 1
        _log(f"the server ended ({ending}); starting it again in {pause} s")
        if not has_started and failed_starts >= _FAILED_STARTS_BEFORE_GIVING_UP:
            _log("the server cannot start; giving up")
            return 1
        if _nobody_is_left(watch, within_seconds=pause):
            return 0
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)


def clear_stale_locks(watch: Watch) -> None:
    """Stop a server whose watchdog was killed; remove lock files that name somebody else's pid.

    PostgreSQL clears the lock file of a dead process by itself, but refuses to start when the pid
    has been given to another process, as happens in every restarted container.
    """
    pid_file = watch.data_dir / "postmaster.pid"
    for lock_file in (pid_file, watch.socket_lock):
        try:
            first_line = lock_file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        except FileNotFoundError:
            continue
        pid = int(first_line) if first_line.strip().isdigit() else None
        if pid is not None and is_server_of(pid, watch.data_dir):
            _log(f"stopping server {pid}, whose watchdog is gone")
            _stop(pid, partial(_is_no_server_of, pid, watch.data_dir))
        elif pid is None or (_is_alive(pid) and Path("/proc/self").exists()):
            _log(f"removing the stale {lock_file.name}")
            lock_file.unlink(missing_ok=True)


def is_server_of(pid: int, data_dir: Path) -> bool:
    """Whether the live process is a PostgreSQL of this data directory; False where /proc is not."""
    process = Path("/proc") / str(pid)
    try:
        name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
        return name == "postgres" and (process / "cwd").readlink() == data_dir
    except OSError:
        return False


def _is_no_server_of(pid: int, data_dir: Path) -> bool:
    return not is_server_of(pid, data_dir)


def _is_alive(pid: int) -> bool:
    """Whether it is a process of this user: PostgreSQL itself ignores the pids of other users."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _start(watch: Watch, tie_to_parent: Callable[[], None]) -> int:
    watchdog = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        tie_to_parent()
        if os.getppid() == watchdog:
            os.execv(watch.server_argv[0], watch.server_argv)  # noqa: S606 - no shell is wanted
    except OSError as error:
        _log(f"the server program does not run: {error.strerror}")
    finally:
        os._exit(127)


def _wait_while_used(watch: Watch, server: int) -> str | None:
    """How the server ended by itself, or None when the last user left and it was stopped."""
    ended: list[int] = []

    def has_ended() -> bool:
        if not ended:
            pid, status = os.waitpid(server, os.WNOHANG)
            if pid:
                ended.append(os.waitstatus_to_exitcode(status))
        return bool(ended)

    while not has_ended():
        if _nobody_is_left(watch, within_seconds=_POLL_SECONDS):
            _stop(server, has_ended)
            return None
    code = ended[0]
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _nobody_is_left(watch: Watch, *, within_seconds: float) -> bool:
    """Whether the users' lock could be taken; it is then kept, so that new users wait for us."""
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            fcntl.flock(watch.users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _POLL_SECONDS))
        else:
            return True


def _stop(server: int, has_ended: Callable[[], bool]) -> None:
    for number, patience_seconds in _STOP_SIGNALS:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server, number)
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            if has_ended():
                return
            time.sleep(0.01)
        _log(f"the server is still there after signal {number.value}")


def _parent_death_tie() -> Callable[[], None]:
    """What a child calls to get SIGINT when its parent dies; nothing where the kernel cannot."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl  # looked up while the interpreter's files are still readable
    return lambda: prctl(_PR_SET_PDEATHSIG, int(signal.SIGINT), 0, 0, 0)


def _log(words: str) -> None:
    sys.stderr.write(f"meshflow watchdog: {words}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
