"""Which processes there are beneath one, read from /proc."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A process as it was when looked at."""

    pid: int
    parent: int
    state: str
    command: str


def all_processes() -> list[Seen]:
    """Every process that can be seen now."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError):
                fields = (place / "stat").read_text().rpartition(")")[2].split()
                command = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(
                    Seen(
                        pid=int(place.name),
                        parent=int(fields[1]),
                        state=fields[0],
                        command=command,
                    )
                )
    return found


def beneath(pid: int) -> list[Seen]:
    """Children of a process, and theirs, zombies too."""
    everything = all_processes()
    wanted, found = {pid}, list[Seen]()
    while True:
        more = [one for one in everything if one.parent in wanted and one not in found]
        if not more:
            return found
        found += more
        wanted |= {one.pid for one in more}


def is_gone(pid: int) -> bool:
    """Whether it is no more, or only a zombie that somebody else has to reap."""
    return all(one.pid != pid or one.state == "Z" for one in all_processes())


def zygotes_of(pid: int) -> list[Seen]:
    """The zygotes that a server has; their workers are not among them."""
    return [one for one in beneath(pid) if one.parent == pid and "zygote_entry" in one.command]


def at_work(pid: int) -> list[Seen]:
    """Those beneath a process that are confined: a worker without a call yet is not."""
    return [one for one in beneath(pid) if one.state != "Z" and _is_confined(one.pid)]


def _is_confined(pid: int) -> bool:
    with suppress(OSError):
        return _filters(str(pid)) > _filters("self")  # a pod's runtime puts one on everybody
    return False


def _filters(who: str) -> int:
    """How many system call filters a process is under."""
    status = (Path("/proc") / who / "status").read_text().split()
    return int(status[status.index("Seccomp_filters:") + 1])
