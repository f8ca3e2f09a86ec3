"""A workspace among things that must not be reached, the corpus of paths to them, and a swapper.

    counts = asyncio.run(path_counts())      # for the bench
    race = race_reads(open_beneath, 100_000)

What decides is content and existence outside a run's directory, never the answer of a tool.
"""

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import ToolError
from app.domain.run import JsonObject
from app.sandbox.openat2 import Opener, open_beneath
from app.sandbox.workspace import Workspace, WorkspaceRoot, open_workspace_root
from app.tools.files import ListFiles, ReadFile, SearchFiles, WriteFile

CORPUS = Path(__file__).parents[1] / "security" / "corpus" / "paths.jsonl"
CANARY = b"canary-7f3a91"
TENANT, OTHER_TENANT = "a" * 32, "c" * 32
RUN, OTHER_RUN = "b" * 32, "d" * 32


@dataclass(frozen=True, kw_only=True)
class Ground:
    """A workspace among things that must not be reached."""

    tmp: Path
    root: WorkspaceRoot
    workspace: Workspace

    @property
    def inside(self) -> Path:
        """The run's own directory."""
        return self.tmp / "work" / TENANT / RUN

    @property
    def outside(self) -> Path:
        """Where the canary is."""
        return self.tmp / "outside"

    def everything_else(self) -> dict[str, bytes | str]:
        """All that lies outside this run's directory, with content."""
        found: dict[str, bytes | str] = {}
        for place in sorted(self.tmp.rglob("*")):
            if place == self.inside or place.is_relative_to(self.inside):
                continue
            plain = place.is_file() and not place.is_symlink()
            found[str(place)] = place.read_bytes() if plain else str(place.lstat().st_mode)
        return found


@contextmanager
def ground(tmp: Path, opener: Opener = open_beneath) -> Iterator[Ground]:
    """The tree in an empty directory, with a workspace that is opened in this way."""
    (tmp / "work").mkdir()
    (tmp / "work" / "secret").write_bytes(CANARY)
    for place in (tmp / "outside", tmp / "outside" / "sub"):
        place.mkdir()
        (place / "secret").write_bytes(CANARY)
    root = open_workspace_root(tmp / "work", forbidden=[], opener=opener)
    for tenant, run in ((TENANT, OTHER_RUN), (OTHER_TENANT, RUN)):
        other = root.for_run(tenant, run)
        other.write_file("secret", CANARY)
        other.close()
    workspace = root.for_run(TENANT, RUN)
    workspace.write_file("real/secret", b"inside")
    try:
        yield Ground(tmp=tmp, root=root, workspace=workspace)
    finally:
        workspace.close()
        root.close()


# --- the corpus -----------------------------------------------------------------------------------


def corpus() -> list[dict[str, Any]]:
    """Every row. A path is a text, or pieces: a text, or a text and how often it stands."""
    return [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]


def path_of(row: dict[str, Any], on: Ground) -> str:
    """The path of a row on this ground."""
    told = row["payload"]["path"]
    pieces = [told] if isinstance(told, str) else told
    return _named("".join(one if isinstance(one, str) else one[0] * one[1] for one in pieces), on)


def _named(text: str, on: Ground) -> str:
    words = {
        "OUT_WITHOUT_SLASH": str(on.outside)[1:],
        "OUT": on.outside,
        "TMP": on.tmp,
        "TENANT": TENANT,
        "RUN": RUN,
        "OTHERTENANT": OTHER_TENANT,
        "OTHERRUN": OTHER_RUN,
    }
    for name, value in words.items():
        text = text.replace("{" + name + "}", str(value))
    return text


def plant(row: dict[str, Any], on: Ground) -> None:
    """Put the row's traps into the workspace (a name) or elsewhere (a whole path)."""
    for kind, *told in row["payload"]["plant"]:
        name, *more = (_named(word, on) for word in told)
        place = on.inside / name
        match kind:
            case "link":
                place.symlink_to(more[0])
            case "hard":
                os.link(more[0], place, follow_symlinks=False)
            case "dir":
                place.mkdir()
            case "file":
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(CANARY)
            case "rename":
                place.rename(on.inside / more[0])
            case "fifo":
                os.mkfifo(place)
            case "socket":
                _plant_socket(place)
            case "device":
                _plant_device(place)
            case _:
                raise AssertionError(kind)


def _plant_socket(place: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # a socket's path may not be long
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(place.name)
    finally:
        os.chdir(here)


def _plant_device(place: Path) -> None:
    try:
        os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:  # only root makes devices; the link to one must be refused as well
        place.symlink_to("/dev/zero")


_CALLS: tuple[tuple[str, Callable[[str], JsonObject]], ...] = (
    ("read_file", lambda path: {"path": path}),
    ("list_files", lambda path: {"path": path}),
    ("search_files", lambda path: {"path": path, "query": "canary"}),
    ("search_files", lambda path: {"path": path, "query": "c[a]nary", "is_pattern": True}),
    ("write_file", lambda path: {"path": path, "content": "overwritten"}),
    ("write_file", lambda path: {"path": f"{path}/x", "content": "overwritten"}),
    # What was planted lies in reach of these, whatever the path is.
    ("list_files", lambda _: {"path": "."}),
    ("search_files", lambda _: {"path": ".", "query": "canary"}),
)
_TOOLS = {tool.spec.name: tool for tool in (ReadFile(), ListFiles(), SearchFiles(), WriteFile())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a file tool said to a call."""

    tool: str
    arguments: JsonObject
    refused: bool
    text: str


async def answers(on: Ground, path: str) -> list[Answer]:
    """Every file tool on the path, then on the workspace as a whole."""
    found = []
    for name, arguments_for in _CALLS:
        arguments = arguments_for(path)
        try:
            text, refused = await _TOOLS[name].run(arguments, on.workspace), False
        except ToolError as told:
            text, refused = f"{told} {told.__cause__ or ''}", True
        found.append(Answer(tool=name, arguments=arguments, refused=refused, text=text))
    return found


def layer_of(answer: Answer) -> str:
    """Which check refused: the words of the path, the opening, or what was opened."""
    if not answer.refused:
        return "none"
    text = answer.text
    if text.startswith(("the path leaves", "a part of the path is not", "there is no such")):
        return "opening"
    if text.startswith(("that is", "the file has more than one name", "the file is not UTF-8")):
        return "kind"
    return "path"


async def leaks(row: dict[str, Any], opener: Opener) -> list[str]:
    """What of a row reached outside with this way of opening; the canary anywhere counts."""
    with tempfile.TemporaryDirectory(prefix="mf-paths-") as made, ground(Path(made), opener) as on:
        plant(row, on)
        before = on.everything_else()
        path = path_of(row, on)
        found = [
            f"{row['id']}: {one.tool} gave the canary"
            for one in await answers(on, path)
            if CANARY.decode() in one.text
        ]
        if on.everything_else() != before:
            found.append(f"{row['id']}: something outside was changed")
        return found


# --- without a guard ------------------------------------------------------------------------------


def joined(on: Ground, path: str) -> str:
    """What comes of joining and opening: it `reads` the canary, `writes` outside, or `holds`.

    An absolute path is taken as what joining makes of it.
    """
    place = f"{on.inside}/{path}" if not path.startswith("/") else path
    with suppress(OSError, ValueError, RuntimeError):  # the last: a circle of links
        if Path(place).is_file() and Path(place).read_bytes() == CANARY:
            return "reads"
        real = Path(place).resolve()
        within = real.is_relative_to(on.tmp) and not real.is_relative_to(on.inside)
        if within and not real.exists() and real.parent.is_dir():
            Path(place).write_bytes(b"overwritten")
            return "writes" if real.exists() else "holds"
    return "holds"


def resolved(on: Ground, path: str) -> bytes:
    """The usual way: resolve, see that it begins as the workspace does, open. May raise."""
    if len(path) > 5_000:  # realpath looks at each of half a million names
        raise ToolError("too long")
    base = os.path.realpath(on.inside)
    place = os.path.realpath(os.path.join(base, path))  # noqa: PTH118 - as it is usually written
    if not place.startswith(base) or not stat.S_ISREG(os.stat(place).st_mode):  # noqa: PTH116 - as above
        raise ToolError("outside")
    with open(place, "rb") as file:  # noqa: PTH123 - as above
        return file.read(100)


# --- the race -------------------------------------------------------------------------------------

# Exchanges a directory with a link to the outside, and a file with one, as fast as it can.
_SWAPPER = """
import ctypes, os, sys
os.chdir(sys.argv[1])
exchange = ctypes.CDLL(None, use_errno=True).renameat2
def swap(one, other):
    assert exchange(-100, one, -100, other, 2) == 0, os.strerror(ctypes.get_errno())
print("ready", flush=True)
while os.getppid() == int(sys.argv[2]):
    swap(b"dir", b"dir-link")
    swap(b"file", b"file-link")
"""
RACED = ("dir/secret", "file")


@contextmanager
def swapper(on: Ground) -> Iterator[None]:
    """While the block runs, `dir` and `file` are now inside, now links to the outside."""
    for name in ("dir", "file"):
        (on.inside / f"{name}-link").symlink_to(
            on.outside if name == "dir" else on.outside / "secret"
        )
    (on.inside / "dir").mkdir()
    (on.inside / "dir" / "secret").write_bytes(b"inside")
    (on.inside / "file").write_bytes(b"inside")
    command = [sys.executable, "-c", _SWAPPER, str(on.inside), str(os.getpid())]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
            assert process.poll() is None, "the swapper died: the race proved nothing"
        finally:
            process.kill()


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """How many opens there were, and what they gave."""

    opens: int
    inside: int
    refused: int
    leaked: int


Read = Callable[[Ground, str], bytes]


def guarded(on: Ground, path: str) -> bytes:
    """As the tools read."""
    return on.workspace.read_file(path, 100)


def race(tmp: Path, read: Read, opens: int, *, opener: Opener, leaks_wanted: int = 0) -> Race:
    """Read against the swapper, at least so often, and on until the race was seen to be alive.

    Alive: it gave content of inside, refused, and leaked as often as a control has to.
    """
    counts = {b"inside": 0, b"refused": 0, CANARY: 0}
    done = 0
    give_up = time.monotonic() + 120 + opens / 250
    with ground(tmp, opener) as on, swapper(on):
        while (
            done < opens
            or not (counts[b"inside"] and counts[b"refused"])
            or (counts[CANARY] < leaks_wanted)
        ):
            assert time.monotonic() < give_up, f"the race never ran: {done} opens, {counts}"
            for path in RACED:
                done += 1
                counts[_read(read, on, path)] += 1
    return Race(
        opens=done,
        inside=counts[b"inside"],
        refused=counts[b"refused"],
        leaked=counts[CANARY],
    )


def _read(read: Read, on: Ground, path: str) -> bytes:
    try:
        return read(on, path)
    except (ToolError, OSError):
        return b"refused"


# --- for the bench --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PathCounts:
    """What came of every row and of every race."""

    attempts: int
    escapes: list[str]
    control_succeeded: int
    race_opens: int
    race_leaks: int
    race_control_leaks: int


async def path_counts(openers: Sequence[Opener], opens: int) -> PathCounts:
    """Every row and the race with each way of opening, and both without a guard."""
    rows = corpus()
    escapes, controls, races = [], 0, []
    for row in rows:
        for opener in openers:
            escapes += await leaks(row, opener)
        with tempfile.TemporaryDirectory(prefix="mf-paths-") as made, ground(Path(made)) as on:
            plant(row, on)
            controls += joined(on, path_of(row, on)) != "holds"
    for opener in openers:
        with tempfile.TemporaryDirectory(prefix="mf-race-") as made:
            races.append(race(Path(made), guarded, opens, opener=opener))
    with tempfile.TemporaryDirectory(prefix="mf-race-") as made:
        control = race(Path(made), resolved, opens, opener=open_beneath)
    return PathCounts(
        attempts=len(rows),
        escapes=escapes,
        control_succeeded=controls,
        race_opens=sum(one.opens for one in races),
        race_leaks=sum(one.leaked for one in races),
        race_control_leaks=control.leaked,
    )
