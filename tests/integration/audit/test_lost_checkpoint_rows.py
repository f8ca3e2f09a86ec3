"""A leader that died between a checkpoint's record and its row alarms nobody once another leads."""

import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.keys.signing_keys import LOG, SigningKeys
from tests.e2e.server_process import Finished, run_command, surroundings
from tests.e2e.test_sequencer_command import sequencing, value_of, wait_for
from tests.security.tampering_scene import disarm, unguarded
from tests.support.databases import DatabaseServer, Roles, connect, execute
from tests.support.live_server import LiveServer, live_server

RECORDS = "SELECT count(*) FROM record WHERE kind = 'checkpoint.tenant'"
ROWS = "SELECT count(*) FROM checkpoint WHERE anchor_seq NOTNULL"
# Whether the operator log's newest checkpoint covers every checkpoint that it took in.
COVERED = (
    "SELECT count(*) FROM checkpoint c WHERE c.anchor_seq ISNULL AND c.size >"
    " (SELECT max(seq) FROM record WHERE kind = 'checkpoint.tenant')"
)
ALL_SIGNED = (
    "SELECT count(*) FROM tenants t WHERE name = 'acme' AND"
    " (SELECT count(*) FROM record r WHERE r.tenant_id = t.tenant_id) ="
    " (SELECT max(size) FROM checkpoint c WHERE c.tenant_id = t.tenant_id)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A server that does not sequence, a sequencer's surroundings, and an auditor."""

    roles: Roles
    live: LiveServer
    environ: dict[str, str]
    directory: Path

    def finish_a_run(self) -> None:
        with self.live.client() as client:
            answer = client.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": "wait=20"})
            assert answer.json()["status"] == "succeeded"

    def sequence_until_signed(self) -> None:
        with sequencing(self.environ):
            wait_for(self.roles, ALL_SIGNED, 1)
            wait_for(self.roles, COVERED, 1)

    def audited(self, *words: str) -> Finished:
        keys = run_command("ledger", "keys", environ=self.environ)
        assert keys.code == 0, keys.err
        policy = self.directory / "policy"
        policy.write_text(f"{keys.out}quorum none\n", encoding="utf-8")
        return run_command("audit", "--policy", str(policy), "--json", *words, environ=self.environ)

    def audited_with_the_key(self) -> Finished:
        key = self.directory / "operator-key"
        if not key.exists():
            done = run_command("ledger", "operator-key", "-o", str(key), environ=self.environ)
            assert done.code == 0, done.err
        return self.audited("--operator-key", str(key))


@pytest.fixture
def deployment(postgres: DatabaseServer) -> Iterator[Deployment]:
    roles = postgres.new_database()
    with tempfile.TemporaryDirectory(prefix="mf-rows-") as made, live_server(roles) as live:
        environ = surroundings(
            Path(made) / "data",
            MESHFLOW_DATABASE_URL=roles.app,
            MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer,
            MESHFLOW_AUDIT_DATABASE_URL=roles.audit,
            MESHFLOW_LEDGER_KEY_DIR=str(live.keys),
        )
        yield Deployment(roles=roles, live=live, environ=environ, directory=Path(made))


@contextmanager
def no_row_is_written(roles: Roles) -> Iterator[None]:
    """Whoever stores a checkpoint waits until the block ends."""
    with asyncio.Runner() as runner:
        raw = runner.run(connect(roles.superuser))
        try:
            runner.run(raw.execute("BEGIN; LOCK TABLE checkpoint IN EXCLUSIVE MODE"))
            yield
        finally:
            runner.run(raw.close())


def _killed_before_the_row(made: Deployment) -> None:
    before = value_of(made.roles, RECORDS)
    with no_row_is_written(made.roles), sequencing(made.environ) as process:
        wait_for(made.roles, RECORDS, before + 1)
        process.kill()
        process.wait()
    assert value_of(made.roles, ROWS) == before


def _nothing(_: Deployment) -> None:
    """The log stays as it was signed."""


def _a_run_ends_and_the_log_key_gives_way(made: Deployment) -> None:
    """The next leader records how far the old key signed: that is more than the rows say."""
    made.finish_a_run()
    SigningKeys(made.live.keys, os.urandom).add(LOG)


@pytest.mark.parametrize("meanwhile", [_nothing, _a_run_ends_and_the_log_key_gives_way])
def test_after_the_restart_all_is_whole_and_a_row_that_is_taken_is_still_missed(
    deployment: Deployment, meanwhile: Callable[[Deployment], None]
) -> None:
    deployment.finish_a_run()
    _killed_before_the_row(deployment)
    assert deployment.audited().code == 2
    meanwhile(deployment)
    deployment.sequence_until_signed()
    for done in (deployment.audited(), deployment.audited_with_the_key()):
        assert done.code == 0, done.out + done.err
    assert value_of(deployment.roles, ROWS) == value_of(deployment.roles, RECORDS)

    disarm(deployment.roles)
    unguarded(deployment.roles, "checkpoint")
    taken = "DELETE FROM checkpoint WHERE anchor_seq = (SELECT max(anchor_seq) FROM checkpoint)"
    asyncio.run(execute(deployment.roles.superuser, taken))
    deployment.finish_a_run()
    deployment.sequence_until_signed()
    for done in (deployment.audited(), deployment.audited_with_the_key()):
        assert done.code == 2, done.out + done.err
        assert json.loads(done.out)["result"] == "incomplete"
