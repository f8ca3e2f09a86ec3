"""Small attempts to get out of a worker, for `meshflow doctor`: what each does and what tells.

Every target is a stand-in that the doctor makes and removes: a file outside, a neighbour's file,
a listener, a process of the worker's account. So an attempt that gets out harms nobody. `{PROOF}`
is printed only after a call succeeded, where the kernel leaves no trace to look at.

Threat: Privilege escalation via tool calls
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from app.sandbox.execution import EngineName


class Oracle(StrEnum):
    """What shows that an attempt got out. All but SAID are facts outside the program."""

    READ = "read"  # the program gave back what it could not know
    APPEARED = "appeared"  # a name is there that it made
    VANISHED = "vanished"  # a name is gone
    CHANGED = "changed"  # a file's bytes or mode are not what they were
    HEARD = "heard"  # a listener was reached
    VICTIM = "victim"  # another process died, or its limits are not what they were
    LOST = "lost"  # the worker's own parent is gone
    SAID = "said"  # the program says that the call succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """One attempt. `target` is the name of what the oracle looks at, where it looks at one."""

    name: str
    text: str
    oracle: Oracle
    target: str = ""


_LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
_SAID = "print('{PROOF}')"


def _called(name: str, call: str) -> Canary:
    """A call of the C library that answers 0 or more when it succeeds."""
    return Canary(name=name, text=f"{_LIBC}if {call} >= 0:\n    {_SAID}\n", oracle=Oracle.SAID)


# For CPython: the kernel is the wall, so these are kernel calls.
NATIVE_CANARIES: Final = (
    Canary(
        name="environment of another process",
        text="print(open('/proc/{VICTIM}/environ').read())",
        oracle=Oracle.READ,
    ),
    Canary(
        name="file of the host",
        text="print(open('{HOSTFILE}').read())",
        oracle=Oracle.READ,
        target="HOSTFILE",
    ),
    Canary(
        name="workspace of another tenant",
        text="print(open('{OTHER}/secret.txt').read())",
        oracle=Oracle.READ,
    ),
    Canary(
        name="open above the workspace",
        text="import os\nhere = os.open('.', os.O_RDONLY)\n"
        "print(os.read(os.open('../../../secret.txt', os.O_RDONLY, dir_fd=here), 999).decode())",
        oracle=Oracle.READ,
    ),
    Canary(
        name="write outside",
        text="open('{OUT}/made', 'w').write('x')",
        oracle=Oracle.APPEARED,
        target="{OUT}/made",
    ),
    Canary(
        name="unlink outside",
        text="import os\nos.unlink('{OUT}/kept')",
        oracle=Oracle.VANISHED,
        target="{OUT}/kept",
    ),
    Canary(
        name="chmod outside",
        text="import os\nos.chmod('{OUT}/kept', 0o666)",
        oracle=Oracle.CHANGED,
        target="{OUT}/kept",
    ),
    Canary(
        name="truncate outside",
        text="import os\nos.truncate('{OUT}/kept', 0)",
        oracle=Oracle.CHANGED,
        target="{OUT}/kept",
    ),
    Canary(
        name="symbolic link",
        text="import os\nos.symlink('{OUT}/kept', 'link')",
        oracle=Oracle.APPEARED,
        target="{WORKSPACE}/link",
    ),
    Canary(
        name="hard link",
        text="import os\nopen('one', 'w').close()\nos.link('one', 'two')",
        oracle=Oracle.APPEARED,
        target="{WORKSPACE}/two",
    ),
    Canary(
        name="TCP",
        text="import socket\nsocket.create_connection(('127.0.0.1', {TCP}), 1)",
        oracle=Oracle.HEARD,
        target="TCP",
    ),
    Canary(
        name="UDP",
        text="import socket\n"
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', {UDP}))",
        oracle=Oracle.HEARD,
        target="UDP",
    ),
    Canary(
        name="unix socket by path",
        text="import socket\nsocket.socket(socket.AF_UNIX).connect('{UNIX}')",
        oracle=Oracle.HEARD,
        target="UNIX",
    ),
    Canary(
        name="abstract unix socket",
        text="import socket\nsocket.socket(socket.AF_UNIX).connect('\\0{ABSTRACT}')",
        oracle=Oracle.HEARD,
        target="ABSTRACT",
    ),
    Canary(
        name="netlink",
        text=f"import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n{_SAID}",
        oracle=Oracle.SAID,
    ),
    Canary(
        name="fork",
        text="import os\nif os.fork() == 0:\n    open('forked', 'w').close()\n    os._exit(0)\n"
        "os.wait()",
        oracle=Oracle.APPEARED,
        target="{WORKSPACE}/forked",
    ),
    Canary(
        name="fork and leave the session",
        text="import os\nif os.fork() == 0:\n    os.setsid()\n    open('gone', 'w').close()\n"
        "    os._exit(0)\nos.wait()",
        oracle=Oracle.APPEARED,
        target="{WORKSPACE}/gone",
    ),
    Canary(
        name="execute a program",
        text="import os, sys\n"
        "for argv in ([sys.executable, '-ISc', \"open('executed', 'w')\"],\n"
        "             ['/bin/touch', 'executed']):\n"
        "    try:\n        os.execv(argv[0], argv)\n    except OSError:\n        pass\n",
        oracle=Oracle.APPEARED,
        target="{WORKSPACE}/executed",
    ),
    Canary(
        name="program from memory",
        text=f"import os\nos.memfd_create('x')\n{_SAID}",
        oracle=Oracle.SAID,
    ),
    Canary(
        name="executable memory",
        text=f"import mmap\nmmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)\n{_SAID}",
        oracle=Oracle.SAID,
    ),
    Canary(
        name="load a library",
        text=f"import ctypes\nctypes.CDLL('{{LIBRARY}}')\n{_SAID}",
        oracle=Oracle.SAID,
        target="LIBRARY",
    ),
    Canary(
        name="trace another process",
        # PTRACE_SEIZE with PTRACE_O_EXITKILL: whoever is traced ends with its tracer.
        text=f"{_LIBC}libc.ptrace(0x4206, {{VICTIM}}, 0, 0x100000)",
        oracle=Oracle.VICTIM,
    ),
    Canary(
        name="kill another process",
        text="import os\nos.kill({VICTIM}, 9)",
        oracle=Oracle.VICTIM,
    ),
    Canary(
        name="limits of another process",
        text="import resource\nresource.prlimit({VICTIM}, resource.RLIMIT_NOFILE, (7, 7))",
        oracle=Oracle.VICTIM,
    ),
    Canary(
        name="kill the parent",
        text="import os\nos.kill(os.getppid(), 9)",
        oracle=Oracle.LOST,
    ),
    _called("mount", "libc.mount(b'none', b'.', b'tmpfs', 0, None)"),
    _called("new namespace", "libc.unshare(0x10000000)"),
    _called("io_uring", "libc.syscall(425, 1, ctypes.create_string_buffer(120))"),
    _called("shared memory of System V", "libc.shmctl(libc.shmget(0, 4096, 0o1600), 0, None)"),
    _called(
        "watch files outside", "libc.inotify_add_watch(libc.inotify_init1(0), b'{OUT}', 0xfff)"
    ),
)

# For Monty: the language is the first wall, so these are what its language has words for.
MONTY_CANARIES: Final = (
    Canary(
        name="file of the host",
        text="print(open('{HOSTFILE}').read())",
        oracle=Oracle.READ,
        target="HOSTFILE",
    ),
    Canary(
        name="environment of another process",
        text="print(open('/proc/{VICTIM}/environ').read())",
        oracle=Oracle.READ,
    ),
    Canary(
        name="workspace of another tenant",
        text="print(open('{OTHER}/secret.txt').read())",
        oracle=Oracle.READ,
    ),
    Canary(
        name="open above the workspace",
        text="import pathlib\nprint(pathlib.Path('../../../secret.txt').read_text())",
        oracle=Oracle.READ,
    ),
    Canary(
        name="write outside",
        text="open('../../../out/made', 'w').write('x')",
        oracle=Oracle.APPEARED,
        target="{OUT}/made",
    ),
    Canary(
        name="unlink outside",
        text="import os\nos.remove('{OUT}/kept')",
        oracle=Oracle.VANISHED,
        target="{OUT}/kept",
    ),
    Canary(
        name="rename outside",
        text="import os\nos.rename('../../../out/kept', 'mine')",
        oracle=Oracle.VANISHED,
        target="{OUT}/kept",
    ),
    Canary(
        name="symbolic link",
        text="import os\nos.symlink('{OUT}/kept', 'link')",
        oracle=Oracle.APPEARED,
        target="{WORKSPACE}/link",
    ),
    Canary(
        name="TCP",
        text="import socket\nsocket.create_connection(('127.0.0.1', {TCP}), 1)",
        oracle=Oracle.HEARD,
        target="TCP",
    ),
    Canary(
        name="execute a program",
        text="import os\nos.system('echo x > {OUT}/made')",
        oracle=Oracle.APPEARED,
        target="{OUT}/made",
    ),
    Canary(
        name="kill another process",
        text="import os\nos.kill({VICTIM}, 9)",
        oracle=Oracle.VICTIM,
    ),
)

# For the virtual shell: what a shell has words for.
SHELL_CANARIES: Final = (
    Canary(
        name="shell: file of the host",
        text="cat {HOSTFILE}",
        oracle=Oracle.READ,
        target="HOSTFILE",
    ),
    Canary(
        name="shell: environment of another process",
        text="cat /proc/{VICTIM}/environ",
        oracle=Oracle.READ,
    ),
    Canary(
        name="shell: workspace of another tenant",
        text="cat {OTHER}/secret.txt",
        oracle=Oracle.READ,
    ),
    Canary(
        name="shell: open above the workspace",
        text="cd ../../.. && cat secret.txt; cat ../../../secret.txt",
        oracle=Oracle.READ,
    ),
    Canary(
        name="shell: write outside",
        text="echo x > {OUT}/made",
        oracle=Oracle.APPEARED,
        target="{OUT}/made",
    ),
    Canary(
        name="shell: unlink outside",
        text="rm -f {OUT}/kept ../../../out/kept",
        oracle=Oracle.VANISHED,
        target="{OUT}/kept",
    ),
    Canary(
        name="shell: symbolic link",
        text="ln -s {OUT}/kept link",
        oracle=Oracle.APPEARED,
        target="{WORKSPACE}/link",
    ),
    Canary(
        name="shell: TCP",
        text="exec 3<>/dev/tcp/127.0.0.1/{TCP}",
        oracle=Oracle.HEARD,
        target="TCP",
    ),
    Canary(
        name="shell: kill another process",
        text="kill -9 {VICTIM}",
        oracle=Oracle.VICTIM,
    ),
)

# For each program of the operator's list: the words it is given, one a line. Whether a program does
# anything with them is its own affair; what it must not come to is the same for all.
LISTED_CANARIES: Final = (
    Canary(name="file of the host", text="{HOSTFILE}", oracle=Oracle.READ, target="HOSTFILE"),
    Canary(name="workspace of another tenant", text="{OTHER}/secret.txt", oracle=Oracle.READ),
    Canary(name="open above the workspace", text="../../../secret.txt", oracle=Oracle.READ),
    Canary(
        name="write outside",
        text="mine\n{OUT}/made",
        oracle=Oracle.APPEARED,
        target="{OUT}/made",
    ),
    Canary(
        name="change or remove outside",
        text="{OUT}/kept",
        oracle=Oracle.CHANGED,
        target="{OUT}/kept",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What is tried with one engine, and an ordinary program that has to say 42 there."""

    engine: EngineName
    ordinary: str
    canaries: tuple[Canary, ...]


ATTEMPTS: Final = (
    Attempts(engine=EngineName.NATIVE, ordinary="print(6 * 7)", canaries=NATIVE_CANARIES),
    Attempts(engine=EngineName.MONTY, ordinary="print(6 * 7)", canaries=MONTY_CANARIES),
    Attempts(engine=EngineName.VIRTUAL_SHELL, ordinary="echo 42", canaries=SHELL_CANARIES),
)
