"""The stage of the demo: a scratch directory, real servers as processes, a copy of their database.

Everything is made here and removed here; nothing of the caller's own MeshFlow is read or written.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import httpx2

from app.cli.http_client import ApiClient, ProblemError
from app.cli.invocation import CommandError
from app.embedded.postgres_server import start_embedded_postgres
from app.keys.key_ring import new_key

COPY = "meshflow_copy"
_READY_MARK = "MeshFlow serves on "
_STOP_SECONDS = 40
_READY_SECONDS = 30
_PAUSE_SECONDS = 0.05
# What a child needs to find its interpreter and speak a language; no key of the caller's is in it.
_KEPT_NAMES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "LD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoScene:
    """One scratch deployment and its only key."""

    root: Path
    key: str
    environ: Mapping[str, str]

    @property
    def data_dir(self) -> Path:
        """MESHFLOW_DATA_DIR of every server of this scene."""
        return self.root / "data"

    def files_named(self, name: str) -> list[Path]:
        """Every file of that name in any run's workspace."""
        return sorted((self.data_dir / "workspace").rglob(name))

    @contextmanager
    def server(self, *, database_url: str | None = None) -> Iterator[ApiClient]:
        """A `meshflow serve` process of its own, spoken to over its socket; ended with SIGTERM."""
        environ = {
            **self.environ,
            "MESHFLOW_DATA_DIR": str(self.data_dir),
            "MESHFLOW_API_KEYS": f"sha256:{hashlib.sha256(self.key.encode()).hexdigest()}",
            "MESHFLOW_PROVIDER": "offline",
            "MESHFLOW_LOG_LEVEL": "warning",
        }
        if database_url is not None:
            environ["MESHFLOW_DATABASE_URL"] = database_url
        argv = [sys.executable, "-P", "-m", "app.cli.entry", "serve", "--port", "0"]
        with (self.root / "server.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own program, arguments composed here
                argv, env=environ, cwd=self.root, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            with httpx2.Client(
                base_url=self._address(process),
                headers={"Authorization": f"Bearer {self.key}"},
                trust_env=False,
                timeout=30.0,
            ) as client:
                api = ApiClient(client)
                _wait_until_ready(api)
                yield api
        finally:
            _stop(process)

    def _address(self, process: "subprocess.Popen[str]") -> str:
        if process.stdout is not None:
            for line in process.stdout:
                if line.startswith(_READY_MARK):
                    return line.removeprefix(_READY_MARK).strip()
        said = (self.root / "server.log").read_text(encoding="utf-8", errors="replace")
        raise CommandError(f"the demo's server did not start: {said[-2000:].strip()}")

    @contextmanager
    def tampered_copy(self, run_id: UUID, seq: int) -> Iterator[str]:
        """The URL of a copy of the database in which one bit of one stored text is turned.

        Done as the database's superuser, who can switch off the triggers that guard the ledger.
        """
        database = start_embedded_postgres(self.data_dir / "postgres")
        try:
            asyncio.run(_copy_and_turn_a_bit(database.superuser_url(), run_id, seq))
            yield urlsplit(database.app_url)._replace(path=f"/{COPY}").geturl()
        finally:
            database.stop()


@contextmanager
def demo_scene(environ: Mapping[str, str]) -> Iterator[DemoScene]:
    """A new scene, removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="mf-demo-")).resolve()
    try:
        root.chmod(0o711)  # for root, the database's own user has to pass through; not look
        kept = {name: environ[name] for name in _KEPT_NAMES if name in environ}
        scene = DemoScene(root=root, key=new_key(secrets.token_urlsafe), environ=kept)
        yield replace(scene, environ={**kept, "HOME": str(root)})
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _copy_and_turn_a_bit(superuser_url: str, run_id: UUID, seq: int) -> None:
    plain_url = superuser_url.replace("postgresql+asyncpg://", "postgresql://", 1)
    admin = await asyncpg.connect(plain_url)
    try:
        await admin.execute(f"CREATE DATABASE {COPY} TEMPLATE meshflow")
    finally:
        await admin.close()
    copy = await asyncpg.connect(plain_url, database=COPY)
    try:
        await copy.execute("ALTER TABLE payload DISABLE TRIGGER ALL")
        await copy.execute("ALTER TABLE payload_default DISABLE TRIGGER ALL")
        done = await copy.execute(
            "UPDATE payload SET blob = set_byte(blob, octet_length(blob) / 2,"
            " get_byte(blob, octet_length(blob) / 2) # 1)"
            " WHERE run_id = $1 AND seq = $2"
            " AND field = (SELECT min(field) FROM payload WHERE run_id = $1 AND seq = $2)",
            run_id,
            seq,
        )
    finally:
        await copy.close()
    if done != "UPDATE 1":
        raise CommandError(f"the copy could not be tampered with: {done}")


def _wait_until_ready(api: ApiClient) -> None:
    ends_at = time.monotonic() + _READY_SECONDS
    while True:
        try:
            api.get("/readyz")
        except ProblemError as error:
            if time.monotonic() > ends_at:
                raise CommandError(f"the demo's server did not get ready: {error}") from None
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise CommandError("the demo's server did not stop when it was told to") from None
    finally:
        if process.stdout is not None:
            process.stdout.close()
    if process.returncode != os.EX_OK:
        raise CommandError(f"the demo's server ended with {process.returncode}")
