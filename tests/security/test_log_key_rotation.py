"""A log key that gave way counts no further, and one that took over no earlier; both stay read."""

from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.keys.signing_keys import LOG, SigningKey, SigningKeys
from app.transparency.checkpoint import Checkpoint, sign_checkpoint
from tests.e2e.server_process import run_command, surroundings
from tests.security.tampering_scene import (
    Run,
    as_superuser,
    assert_broken,
    assert_whole,
    disarm,
    finished_run,
)
from tests.support.databases import DatabaseServer, Roles
from tests.support.witnessed_server import DEPLOYMENT, WitnessedServer, witnessed_server


@pytest.fixture(scope="module")
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


@pytest.fixture(scope="module")
def served(roles: Roles) -> Iterator[WitnessedServer]:
    with witnessed_server(roles, with_witness=False) as server:
        yield server


def _sized(roles: Roles, run: Run) -> int | None:
    """The size of the newest checkpoint that has all of the run."""

    async def act(raw: asyncpg.Connection) -> int | None:
        found: int | None = await raw.fetchval(
            "SELECT max(c.size) FROM checkpoint c JOIN leaf l ON l.tenant_id = c.tenant_id"
            " AND l.run_id = $1 AND l.seq = 8 AND l.idx < c.size",
            run.run_id,
        )
        return found

    return as_superuser(roles, act)


def signed_run(served: WitnessedServer, roles: Roles) -> tuple[Run, int]:
    """A run that a checkpoint covers, and the size of that."""
    run = finished_run(served.live)
    while (size := _sized(roles, run)) is None:
        assert_whole(served.live, run)
    return run, size


def _keys(served: WitnessedServer) -> tuple[SigningKey, ...]:
    return SigningKeys(served.live.keys, bytes).every(LOG)


def _resign(roles: Roles, size: int, key: SigningKey, run: Run) -> str:
    """The checkpoint of a size under another key, in the place of the one that is there."""

    async def act(raw: asyncpg.Connection) -> str:
        row = await raw.fetchrow(
            "SELECT c.origin, c.root, c.note, c.tenant_id FROM checkpoint c JOIN runs r"
            " USING (tenant_id) WHERE r.run_id = $1 AND c.size = $2",
            run.run_id,
            size,
        )
        checkpoint = Checkpoint(origin=row["origin"], size=size, root=row["root"])
        await raw.execute(
            "UPDATE checkpoint SET note = $1 WHERE tenant_id = $2 AND size = $3",
            sign_checkpoint(checkpoint, key.seed).decode(),
            row["tenant_id"],
            size,
        )
        return str(row["note"])

    return as_superuser(roles, act)


def test_after_a_rotation_old_and_new_checkpoints_hold_and_nothing_else(
    served: WitnessedServer, roles: Roles, tmp_path: Path
) -> None:
    before, old_size = signed_run(served, roles)
    environ = surroundings(
        served.live.directory / "data",
        MESHFLOW_DATABASE_URL=roles.app,
        MESHFLOW_LEDGER_KEY_DIR=str(served.live.keys),
        MESHFLOW_DEPLOYMENT=DEPLOYMENT,
    )
    done = run_command("ledger", "rotate-key", "log", environ=environ)
    assert done.code == 0, done.err
    assert "has recorded the change" in done.out
    old, new = _keys(served)
    assert old.public_key.hex() in done.out
    assert new.public_key.hex() in done.out

    after, new_size = signed_run(served, roles)
    assert new_size > old_size
    for run in (before, after):
        assert_whole(served.live, run)
    with served.live.client("audit") as client:
        keys = [k for k in client.get("/v1/ledger/keys").json()["data"] if k["role"] == "log"]
        told = [(k["public_key"], k["from_index"], k["until_index"]) for k in keys]
        tar = client.get(f"/v1/runs/{after.public}/bundle").content
    assert [key for key, _, _ in told] == [old.public_key.hex(), new.public_key.hex()]
    assert told[0][1:] == (0, told[1][1])
    assert told[1][2] is None

    async def no_triggers(raw: asyncpg.Connection) -> None:
        await raw.execute("ALTER TABLE checkpoint DISABLE TRIGGER ALL")

    disarm(roles)
    as_superuser(roles, no_triggers)
    _resign(roles, new_size, old, after)
    assert_broken(served.live, after, 0, "does not count at this size")
    _resign(roles, new_size, new, after)
    assert_whole(served.live, after)

    pinned = tmp_path / "pinned"
    pinned.write_text(served.policy, encoding="utf-8")
    auditor = surroundings(tmp_path / "data", MESHFLOW_AUDIT_DATABASE_URL=roles.audit)
    look = ("audit", "--policy", str(pinned), "--json")
    # An auditor who pins the old key and can read who took over from it trusts the new one, too.
    key = tmp_path / "operator-key"
    assert run_command("ledger", "operator-key", "-o", str(key), environ=environ).code == 0
    audited = run_command(*look, "--operator-key", str(key), environ=auditor)
    assert audited.code == 0, audited.out + audited.err
    assert run_command(*look, environ=auditor).code == 3
    _resign(roles, new_size, old, after)
    audited = run_command(*look, "--operator-key", str(key), environ=auditor)
    assert "does not count at this size" in audited.out
    _resign(roles, new_size, new, after)

    bundle, policy = tmp_path / "run.tar", tmp_path / "policy"
    bundle.write_bytes(tar)
    # Who pins the old key trusts the new one by the record that both signed; nothing is witnessed.
    offline = ("verify-bundle", str(bundle), "--policy", str(policy), "--json")
    policy.write_text(served.policy, encoding="utf-8")
    checked = run_command(*offline, environ=surroundings(tmp_path / "data"))
    assert checked.code == 2, checked.out
