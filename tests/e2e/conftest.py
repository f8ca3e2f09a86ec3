"""One embedded database for every server of these tests, in a directory its user can enter."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded.postgres_server import EmbeddedPostgres, start_embedded_postgres
from tests.e2e.server_process import ServerProcess, serving, surroundings


@pytest.fixture(scope="session")
def stage() -> Iterator[Path]:
    """A short directory; pytest's own are closed to the database's user."""
    directory = Path(tempfile.mkdtemp(prefix="mf-e2e-")).resolve()
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def data_dir(stage: Path) -> Path:
    """MESHFLOW_DATA_DIR of every server here."""
    return stage / "data"


@pytest.fixture(scope="session")
def database(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    """The servers' own database, kept up between them so that each starts at once."""
    server = start_embedded_postgres(data_dir / "postgres")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def environ(data_dir: Path, database: EmbeddedPostgres) -> dict[str, str]:
    """What `meshflow` finds in its environment."""
    assert database.server_pid
    return surroundings(data_dir)


@pytest.fixture(scope="session")
def dev_server(environ: dict[str, str], stage: Path) -> Iterator[ServerProcess]:
    """A `meshflow serve --dev` that nobody stops before the end."""
    with serving("--dev", environ=environ, log=stage / "dev-server.log") as server:
        yield server
