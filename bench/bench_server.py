"""One server process for a bench: `subject` is MeshFlow, `baseline` FastAPI + auth + body.

Both run under the same uvicorn flags, which are printed as the first line of output.
"""

import asyncio
import hashlib
import hmac
import json
import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Request
from starlette.exceptions import HTTPException

from app.api.run_requests import RunCreate
from app.main import NO_TELEMETRY, create_app
from app.providers.provider import ModelProvider
from app.settings import Settings
from app.wiring import Overrides

KEY = "bench-key-00000000000000000000000000000001"
LOOP, HTTP, BACKLOG = "uvloop", "httptools", 2048
FLAGS: dict[str, object] = {
    "loop": LOOP,
    "http": HTTP,
    "workers": 1,
    "access_log": False,
    "server_header": False,
    "backlog": BACKLOG,
}


class NeverAnswers:
    """A provider that keeps a run waiting, so that a bench of admission measures admission."""

    name = "scripted"

    async def complete(self, cleared: object) -> object:
        """Wait for the end of the bench."""
        await asyncio.Event().wait()
        raise AssertionError(cleared)

    async def warm_up(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        """Nothing."""


def baseline() -> FastAPI:
    """What any FastAPI service with a key and a body costs; no database, no ledger."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, telemetry=NO_TELEMETRY)
    held = hashlib.sha256(KEY.encode()).digest()

    async def authenticated(request: Request) -> str:
        presented = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(hashlib.sha256(presented.encode()).digest(), held):
            raise HTTPException(401)
        return "default"

    @app.post("/v1/runs", status_code=202)
    async def create(body: RunCreate, _: Annotated[str, Depends(authenticated)]) -> RunCreate:
        return body

    return app


def subject(directory: Path, *, admission_only: bool) -> FastAPI:
    """MeshFlow as it ships, with settings from the bench."""
    environ = {name: value for name, value in os.environ.items() if name.startswith("MESHFLOW_")}  # noqa: TID251 - the bench hands its settings over
    settings = Settings.from_environ(environ, uid=1000, home=directory)
    providers: dict[str, ModelProvider] | None = None
    default_model = None
    if admission_only:
        providers = {"scripted": NeverAnswers()}  # type: ignore[dict-item]  # it never gives a reply
        default_model = "scripted"
    overrides = Overrides(providers=providers, default_model=default_model)
    return create_app(settings, overrides=overrides)


def main() -> None:
    """Serve until told to stop."""
    kind, directory = sys.argv[1], Path(sys.argv[2])
    admission_only = kind == "admission"
    app = baseline() if kind == "baseline" else subject(directory, admission_only=admission_only)
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    print(json.dumps({"port": listener.getsockname()[1], "flags": FLAGS}), flush=True)
    config = uvicorn.Config(
        app,
        log_config=None,
        loop=LOOP,
        http=HTTP,
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
