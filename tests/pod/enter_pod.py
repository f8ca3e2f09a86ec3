"""Runs a command as a restricted pod would: `python -m tests.pod.enter_pod COMMAND...`, by root.

New mount, pid, network, ipc and uts namespaces; a read-only root that holds this Python, this tree
and the C libraries, and no shell; tmpfs on /tmp and /workspace; uid and gid 1000 without groups or
capabilities; no_new_privs; the container runtime's default seccomp profile. The command's parent is
pid 1 and reaps.
Exits with its code. A pod of Kubernetes differs: no cgroup limit, no user database, one uts name.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys
import sysconfig
from pathlib import Path

from tests.pod.runtime_profile import RuntimeDefault

ROOT = Path(__file__).resolve().parents[2]
UID = 1000
_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_NAMESPACES = 0x00020000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 1, 2, 4, 8
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_DETACH = 2
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPBSET_DROP, _NO_CAPABILITY = 24, 64
_DEVICES = ("null", "zero", "full", "random", "urandom")
_MASKED = ("kcore", "keys", "timer_list", "sched_debug", "sysrq-trigger")
_READ_ONLY_PROC = ("bus", "fs", "irq", "sys")


def main() -> int:
    """Enter, run the command, say how it ended."""
    command = sys.argv[1:]
    if os.geteuid() != 0 or not command:
        print("needs root, and a command", file=sys.stderr)
        return 2
    profile = RuntimeDefault(os.uname().machine)
    if profile.unknown:
        print("unknown to this libseccomp:", *profile.unknown, file=sys.stderr)
    _call(_LIBC.unshare(_NEW_NAMESPACES))
    child = os.fork()
    if child == 0:
        try:
            _enter(profile, command)
        except BaseException as error:  # noqa: BLE001 - nothing of this child may go on
            print(f"the pod did not start: {error!r}", file=sys.stderr)
        os._exit(125)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF


def _enter(profile: RuntimeDefault, command: list[str]) -> None:
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    new = "/mnt"  # any directory will do: the mount is seen in this namespace alone
    _mount("tmpfs", new, "tmpfs", _NO_DEVICES | _NO_SUID, "mode=0755,size=64m")
    _furnish(Path(new))
    for path in _shown():  # after the tmpfs: a tree under /tmp is shown within it
        _show(path, new)
    _pivot(new)
    socket.sethostname("pod")
    _loopback_up()
    os.chdir(ROOT)
    _drop()
    profile.load()
    environ = {"PATH": "/nowhere", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108 - the pod's own tmpfs
    environ |= {"PYTHONDONTWRITEBYTECODE": "1", "MESHFLOW_POD": "1"}
    environ |= {"HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis"}  # noqa: S108 - as above
    first = os.fork()
    if first == 0:
        os.execve(command[0], command, environ)  # noqa: S606 - what the caller asked for
    while True:  # as the first process, the heir of all orphans
        pid, status = os.wait()
        if pid == first:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _shown() -> list[Path]:
    """What the pod sees of this machine: Python, its packages, this tree, the libraries."""
    base = Path(sys.base_prefix)
    stdlib = Path(sysconfig.get_path("stdlib", vars={"base": str(base)}))
    shown = [stdlib, Path(sys.prefix), ROOT]
    shown += [path for path in base.glob("bin/python*") if "config" not in path.name]
    shown += [path for path in base.glob("lib/libpython*.so*") if not path.is_symlink()]
    libraries = Path(f"/usr/lib/{os.uname().machine}-linux-gnu")
    shown.append(libraries if libraries.is_dir() else Path("/usr/lib"))
    return [*shown, *(path for path in (Path("/usr/share/zoneinfo"),) if path.is_dir())]


def _show(path: Path, new: str) -> None:
    """The same path in the new root, read-only. Its parents hold nothing else."""
    target = Path(f"{new}{path}")
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(str(path), str(target), None, _BIND)
    _mount(None, str(target), None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES)


def _furnish(new: Path) -> None:
    for link in ("lib", "lib64"):
        real = Path("/", link)
        if real.is_symlink():
            (new / link).symlink_to(real.readlink())
    loader = new / "usr/lib64"
    loader.mkdir(parents=True)
    for file in Path("/usr/lib64").glob("ld-linux*") if Path("/usr/lib64").is_dir() else ():
        (loader / file.name).symlink_to(file.resolve())
    (new / "etc").mkdir()
    (new / "etc/passwd").write_text(f"meshflow:x:{UID}:{UID}::/tmp:/nowhere\n", encoding="ascii")
    (new / "etc/group").write_text(f"meshflow:x:{UID}:\n", encoding="ascii")
    (new / "etc/hosts").write_text("127.0.0.1 localhost\n", encoding="ascii")
    cache = Path("/etc/ld.so.cache")
    if cache.exists():
        (new / "etc/ld.so.cache").write_bytes(cache.read_bytes())
    for name in ("dev", "proc", "tmp", "workspace", ".old"):
        (new / name).mkdir()
    for name in _DEVICES:
        (new / "dev" / name).touch()
        _mount(f"/dev/{name}", str(new / "dev" / name), None, _BIND)
    for name, size in (("tmp", "512m"), ("workspace", "512m"), ("dev/shm", "64m")):
        (new / name).mkdir(exist_ok=True)
        flags = _NO_SUID | _NO_DEVICES
        _mount("tmpfs", str(new / name), "tmpfs", flags, f"mode=1777,size={size}")


def _pivot(new: str) -> None:
    _call(_LIBC.syscall(_PIVOT_ROOT[os.uname().machine], new.encode(), f"{new}/.old".encode()))
    os.chdir("/")
    _mount("proc", "/proc", "proc", _NO_SUID | _NO_DEVICES | _NO_EXEC)
    for name in _MASKED:
        if Path("/proc", name).exists():
            _mount("/dev/null", f"/proc/{name}", None, _BIND)
    for name in _READ_ONLY_PROC:
        if Path("/proc", name).exists():
            _mount(f"/proc/{name}", f"/proc/{name}", None, _BIND)
            flags = _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC
            _mount(None, f"/proc/{name}", None, flags)
    _call(_LIBC.umount2(b"/.old", _DETACH))
    Path("/.old").rmdir()
    _mount(None, "/", None, _REMOUNT | _BIND | _READ_ONLY | _NO_SUID | _NO_DEVICES)


def _loopback_up() -> None:
    with socket.socket() as any_socket:
        get_flags, set_flags, up = 0x8913, 0x8914, 1
        asked = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(any_socket, get_flags, asked))[1]
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14x", b"lo", flags | up))


def _drop() -> None:
    """Groups, bounding set, gid and uid: with the uid go the other capability sets."""
    os.setgroups([])
    for capability in range(_NO_CAPABILITY):
        if _LIBC.prctl(_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # the kernel knows no more of them
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, data: str | None = None
) -> None:
    told = [None if text is None else text.encode() for text in (source, target, kind, data)]
    answer = _LIBC.mount(told[0], told[1], told[2], ctypes.c_ulong(flags), told[3])
    _call(answer, target)


def _call(answer: int, what: str = "") -> None:
    if answer != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


if __name__ == "__main__":
    sys.exit(main())
