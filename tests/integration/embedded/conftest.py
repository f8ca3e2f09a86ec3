"""State directories for the embedded server's tests, and what takes every server down again."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded.postgres_server import start_embedded_postgres
from tests.integration.embedded.server_scene import Holders, processes_of, wait_for


@pytest.fixture
def playground() -> Iterator[Path]:
    """A short directory that the server's user can enter (pytest's own are closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="mf-")).resolve()
    directory.chmod(0o755)
    yield directory
    wait_for(lambda: not processes_of(directory), what="the test's servers to be gone")
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def pristine() -> Iterator[Path]:
    """A state directory whose server has started and stopped once: copied, never used."""
    directory = Path(tempfile.mkdtemp(prefix="mf-")).resolve()
    directory.chmod(0o755)
    start_embedded_postgres(directory / "state", durable=False).stop()
    yield directory / "state"
    shutil.rmtree(directory)


@pytest.fixture
def state_dir(pristine: Path, playground: Path) -> Path:
    """A copy of the pristine state with owners and modes kept: a start without initdb."""
    copy = playground / "state"
    subprocess.run(["cp", "-a", str(pristine), str(copy)], check=True)
    return copy


@pytest.fixture
def holders(state_dir: Path) -> Iterator[Holders]:
    """Kills what is left before `state_dir`, which it depends on for that, is taken away."""
    assert state_dir.is_dir()
    started = Holders()
    yield started
    started.kill_all()
