"""The whole application on a real loopback socket, in a thread, with settings of its own."""

import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import uvicorn
from fastapi import FastAPI

from app.cli.listening import metrics_listener, shown_url
from app.main import create_app
from app.settings import Settings
from app.wiring import Overrides
from tests.support.databases import Roles

# Made-up keys; `acme` may do everything, `forms` may not instruct, `boss` decides approvals,
# `other` is another tenant.
KEYS: Mapping[str, str] = {
    "acme": "acme-key-000000000000000000000001",
    "forms": "forms-key-00000000000000000000002",
    "audit": "audit-key-00000000000000000000003",
    "other": "other-key-00000000000000000000004",
    "boss": "boss-key-000000000000000000000005",
}
KEY_ITEMS = ",".join(
    (
        f"acme:{KEYS['acme']}",
        f"acme:run:{KEYS['forms']}",
        f"acme:audit:{KEYS['audit']}",
        f"acme:approve:{KEYS['boss']}",
        f"other:{KEYS['other']}",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveServer:
    """A running server: where it is, what it stores in, and clients for its keys."""

    url: str
    app: FastAPI
    roles: Roles
    directory: Path
    metrics_url: str | None = None  # with MESHFLOW_METRICS_PORT

    @property
    def workspace(self) -> Path:
        """Where its tools may write."""
        return self.directory / "data" / "workspace"

    @property
    def keys(self) -> Path:
        """Its key directory, which every server on this database shares."""
        return key_directory_of(self.roles)

    def client(self, who: str | None = "acme") -> httpx2.Client:
        """A client that presents the key of `who`, or none."""
        headers = {} if who is None else {"Authorization": f"Bearer {KEYS[who]}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)


# A database belongs to the key directory it was first used with, as pods share one volume.
_KEY_DIRECTORIES: dict[str, "tempfile.TemporaryDirectory[str]"] = {}


def key_directory_of(roles: Roles) -> Path:
    """The one key directory of all servers on a database; gone with the test process."""
    if roles.app not in _KEY_DIRECTORIES:
        _KEY_DIRECTORIES[roles.app] = tempfile.TemporaryDirectory(prefix="mf-keys-")
    return Path(_KEY_DIRECTORIES[roles.app].name) / "keys"


def settings_for(directory: Path, roles: Roles, **environ: str) -> Settings:
    """Settings of a throw-away deployment in `directory`."""
    names = {
        "MESHFLOW_API_KEYS": KEY_ITEMS,
        "MESHFLOW_DATABASE_URL": roles.app,
        "MESHFLOW_DATA_DIR": str(directory / "data"),
        "MESHFLOW_LEDGER_KEY_DIR": str(key_directory_of(roles)),
        **environ,
    }
    return Settings.from_environ(names, uid=1000, home=directory)


@contextmanager
def live_server(
    roles: Roles, overrides: Overrides | None = None, **environ: str
) -> Iterator[LiveServer]:
    """Serve until the block ends."""
    with tempfile.TemporaryDirectory(prefix="mf-live-") as made:
        directory = Path(made)
        settings = settings_for(directory, roles, **environ)
        app = create_app(settings, overrides=overrides)
        with metrics_listener(settings.operations) as metrics:
            app.state.metrics_listener = metrics
            shown = None if metrics is None else shown_url(metrics, "127.0.0.1", is_tls=False)
            with serving(app) as url:
                yield LiveServer(
                    url=url, app=app, roles=roles, directory=directory, metrics_url=shown
                )


@contextmanager
def serving(app: FastAPI, *, send_buffer_bytes: int | None = None) -> Iterator[str]:
    """An application on a free loopback port; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer_bytes is not None:  # what is accepted inherits it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=5, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        _wait_for(url, thread)
        yield url
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


def _wait_for(url: str, thread: threading.Thread) -> None:
    with httpx2.Client(base_url=url, timeout=30, trust_env=False) as client:
        while thread.is_alive():
            try:
                client.get("/healthz")
            except httpx2.TransportError:
                continue
            return
    raise AssertionError("the server did not start")
