"""The whole service with a sequencer in it and a witness that is a process of its own."""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from app.keys.signing_keys import ENROLMENT, LOG, SigningKeys
from app.main import create_app
from app.storage.database import Database
from app.storage.run_store import RunStore
from app.transparency.note import ED25519, verifier_key
from tests.support.databases import Roles
from tests.support.live_server import LiveServer, key_directory_of, serving, settings_for
from tests.support.witness_process import new_files, witness_process

DEPLOYMENT = "meshflow.test"
PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessedServer:
    """A server, and what somebody who trusts its keys and its witness pins."""

    live: LiveServer
    operator: UUID
    policy: str

    def when(self, public_run_id: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The run's integrity once it is so; AssertionError when it never is."""
        until = time.monotonic() + PATIENCE_SECONDS
        with self.live.client() as client:
            while True:
                answer = client.get(f"/v1/runs/{public_run_id}")
                assert answer.status_code == 200, answer.text
                found: dict[str, Any] = answer.json()["integrity"]
                if is_so(found):
                    return found
                assert time.monotonic() < until, found
                time.sleep(0.1)  # another process works on it and sets no event here


async def _operator(roles: Roles) -> UUID:
    database = Database(roles.app, pool_size=1)
    try:
        return await RunStore(database).ensure_tenant("!operator")
    finally:
        await database.close()


@contextmanager
def witnessed_server(
    roles: Roles, *, with_witness: bool = True, **environ: str
) -> Iterator[WitnessedServer]:
    """Serve until the block ends; without a witness the policy still asks for one."""
    operator = asyncio.run(_operator(roles))
    origin = f"{DEPLOYMENT}/ledger/{operator.hex}"
    with tempfile.TemporaryDirectory(prefix="mf-wit-") as made, ExitStack() as stack:
        directory = Path(made)
        key_directory_of(roles).mkdir(mode=0o700, exist_ok=True)
        keys = SigningKeys(key_directory_of(roles), os.urandom)
        log = verifier_key(origin, ED25519, keys.current(LOG).public_key).encode()
        enrolment = verifier_key(
            f"{DEPLOYMENT}/enrolment", ED25519, keys.current(ENROLMENT).public_key
        ).encode()
        files = stack.enter_context(new_files())
        witness = stack.enter_context(witness_process(files, [], "--log", log))
        quorum = f"witness w1 {witness.vkey}{{url}}\nquorum w1\n"
        roster = directory / "witnesses"
        roster.write_text(quorum.format(url=f" {witness.url}"), encoding="utf-8")
        more = {"MESHFLOW_WITNESSES": str(roster)} if with_witness else {}
        settings = settings_for(
            directory,
            roles,
            MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer,
            MESHFLOW_DEPLOYMENT=DEPLOYMENT,
            **more,
            **environ,
        )
        app = create_app(settings)
        url = stack.enter_context(serving(app))
        live = LiveServer(url=url, app=app, roles=roles, directory=directory)
        pins = f"log {log}\n#meshflow/v1 enrolment {enrolment}\n"
        yield WitnessedServer(live=live, operator=operator, policy=pins + quorum.format(url=""))
