"""One server process for a bench: MeshFlow, or what any FastAPI service with a key costs.

`baseline` answers with the body, `bare-sdk` with what the model said; `subject` and `governed` are
MeshFlow, and `admission` is MeshFlow whose model never answers. All run under the same uvicorn
flags, which are printed as the first line of output.
"""

import asyncio
import hashlib
import hmac
import json
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import uvicorn
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
from anthropic.types import MessageParam
from fastapi import Depends, FastAPI, Request
from starlette.exceptions import HTTPException

from app.api.run_requests import RunCreate
from app.main import NO_TELEMETRY, create_app
from app.providers.anthropic import anthropic_provider
from app.providers.provider import ModelProvider
from app.settings import Settings
from app.wiring import Overrides

KEY = "bench-key-00000000000000000000000000000001"
PROVIDER_KEY = "sk-bench"
MODEL = "claude-sonnet-5-5"
MESSAGES_URL = "MESHFLOW_BENCH_MESSAGES_URL"
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


def baseline(environ: Mapping[str, str]) -> FastAPI:
    """What any FastAPI service with a key and a body costs; no database, no ledger.

    With a provider's address it asks the model by the bare SDK, streamed as MeshFlow asks, through
    the same HTTP client.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, telemetry=NO_TELEMETRY)
    held = hashlib.sha256(KEY.encode()).digest()

    async def authenticated(request: Request) -> str:
        presented = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(hashlib.sha256(presented.encode()).digest(), held):
            raise HTTPException(401)
        return "default"

    if MESSAGES_URL not in environ:

        @app.post("/v1/runs", status_code=202)
        async def create(body: RunCreate, _: Annotated[str, Depends(authenticated)]) -> RunCreate:
            return body

        return app

    url = environ[MESSAGES_URL]
    client = AsyncAnthropic(
        api_key=PROVIDER_KEY,
        base_url=url,
        max_retries=0,
        open_telemetry=False,
        http_client=DefaultAsyncHttpxClient(base_url=url),
    )

    @app.post("/v1/runs")
    async def ask(body: RunCreate, _: Annotated[str, Depends(authenticated)]) -> dict[str, str]:
        said: MessageParam = {
            "role": "user",
            "content": [{"type": "text", "text": body.task or ""}],
        }
        asked = client.messages.stream(model=MODEL, max_tokens=4096, messages=[said])
        async with asked as stream:
            return {"output": await stream.get_final_text()}

    return app


def meshflow(kind: str, directory: Path, environ: Mapping[str, str]) -> FastAPI:
    """MeshFlow as it ships, with settings from the bench."""
    said = {name: value for name, value in environ.items() if name != MESSAGES_URL}
    settings = Settings.from_environ(said, uid=1000, home=directory)
    match kind:
        case "admission":
            waiting: dict[str, ModelProvider] = {"scripted": NeverAnswers()}  # type: ignore[dict-item]  # it never gives a reply
            overrides = Overrides(providers=waiting, default_model="scripted")
        case "governed":
            real = anthropic_provider(lambda: PROVIDER_KEY, base_url=environ[MESSAGES_URL])
            overrides = Overrides(providers={"anthropic": real}, default_model=MODEL)
        case _:
            overrides = Overrides()
    return create_app(settings, overrides=overrides)


def main() -> None:
    """Serve until told to stop."""
    kind, directory = sys.argv[1], Path(sys.argv[2])
    environ = {name: value for name, value in os.environ.items() if name.startswith("MESHFLOW_")}  # noqa: TID251 - the bench hands its settings over
    is_plain = kind in {"baseline", "bare-sdk"}
    app = baseline(environ) if is_plain else meshflow(kind, directory, environ)
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
