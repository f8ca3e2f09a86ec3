"""An auditor with rights to read alone finds what a database's owner changed anywhere in a log."""

import asyncio
import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import app as package
from app.storage import schema
from app.transparency.note import ED25519, VerifierKey, verifier_key
from tests.e2e.server_process import ENTRY, Finished, run_command, surroundings
from tests.security.tampering_scene import (
    Run,
    disarm,
    finished_run,
    tenant_of,
    unguarded,
)
from tests.security.test_log_tampering import LOG_TABLES, changed_rows, nobody_leads, tampered
from tests.support.databases import DatabaseServer, Roles, connect
from tests.support.witnessed_server import DEPLOYMENT, WitnessedServer, witnessed_server

MINE = "tenant_id = $1 AND run_id = $2"
OURS = "tenant_id = $1 AND $2::uuid IS NOT NULL"
THEIRS = "tenant_id <> $1 AND $2::uuid IS NOT NULL"
FLIPPED = "set_byte({c}, 3, get_byte({c}, 3) # 1)"
FORGED = "replace(note, E'\\n\\n', E'\\nx\\n\\n')"
FIRST_ANCHOR = "SELECT min(anchor_seq) FROM checkpoint WHERE tenant_id = $1"
ALL_OF_A_TENANT = (
    *("checkpoint", "leaf", "tile", "log_head"),
    *("payload", "record", "batch", "run_key", "run_result", "runs"),
)
ATTACKS = [
    ("record", f"{MINE} AND seq = 3", "ts = ts + interval '1 second'", "column 'ts'"),
    ("record", f"{MINE} AND seq = 3", f"header = {FLIPPED.format(c='header')}", "record hash"),
    ("record", f"{MINE} AND seq = 3", f"chain = {FLIPPED.format(c='chain')}", "chain hash"),
    ("record", f"{MINE} AND seq = 3", None, "the log holds a record that is gone"),
    ("record", f"{MINE} AND seq = 8", None, "was cut"),
    ("record", MINE, None, "the log holds a record that is gone"),
    ("payload", f"{MINE} AND seq = 0", None, "a payload is gone"),
    ("payload", f"{MINE} AND seq = 0 AND field <> 7", "field = 99", "never committed to"),
    ("runs", MINE, "entries = NULL, status = 'running'", "do not agree"),
    ("runs", MINE, None, "the run's row is gone"),
    ("leaf", f"{MINE} AND seq = 8", None, "the log has 17 leaves"),
    ("leaf", f"{MINE} AND seq = 2", "seq = 77", "the log holds a record that is gone"),
    ("tile", OURS, f"data = {FLIPPED.format(c='data')}", "is not what the leaves make it"),
    ("tile", OURS, None, "is missing"),
    ("log_head", OURS, f"root = {FLIPPED.format(c='root')}", "another root"),
    ("log_head", OURS, None, "the head of the log is gone"),
    ("checkpoint", OURS, f"root = {FLIPPED.format(c='root')}", "is stored as another one"),
    ("checkpoint", OURS, f"note = {FORGED}", "signature does not hold"),
    ("checkpoint", OURS, "anchor_seq = 99999", "the operator log does not hold it"),
    ("checkpoint", OURS, "size = size + 100000", "the log ends before it"),
    ("checkpoint", OURS, f"anchor_seq = ({FIRST_ANCHOR})", "named by several checkpoints"),
    ("cosignature", THEIRS, "size = size + 0, line = replace(line, '=', '')", "does not hold"),
    ("batch", OURS, f"sig = {FLIPPED.format(c='sig')}", "signature of a batch"),
    ("batch", OURS, f"tip = {FLIPPED.format(c='tip')}", "tip of a batch"),
    ("batch", OURS, "n = n + 1", "do not match"),
    ("batch", OURS, None, "the batch of a record is gone"),
]


@pytest.fixture(scope="module")
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


@pytest.fixture(scope="module")
def served(roles: Roles) -> Iterator[WitnessedServer]:
    with witnessed_server(roles) as server:
        made = finished_run(server.live)
        server.when(made.public, lambda found: found["state"] == "anchored")
        yield server


@pytest.fixture(scope="module")
def run(served: WitnessedServer, roles: Roles) -> Run:
    made = finished_run(served.live)
    served.when(made.public, lambda found: found["state"] == "anchored")
    disarm(roles)
    unguarded(roles, *LOG_TABLES, "leaf_default", "tile_default")
    return made


@pytest.fixture(scope="module")
def tenant(roles: Roles, run: Run) -> UUID:
    return tenant_of(roles, run)


def audited(roles: Roles, policy: str, directory: Path, *words: str) -> Finished:
    """What an auditor's own process says, who has nothing but a login and a policy."""
    pinned = directory / "policy"
    pinned.write_text(policy, encoding="utf-8")
    environ = surroundings(directory / "data", MESHFLOW_AUDIT_DATABASE_URL=roles.audit)
    return run_command("audit", "--policy", str(pinned), "--json", *words, environ=environ)


def report_of(done: Finished, tenant: str) -> dict[str, Any]:
    logs: list[dict[str, Any]] = json.loads(done.out)["logs"]
    return next(log for log in logs if log["tenant"] == tenant)


def test_a_clean_deployment_is_clean_and_was_all_looked_at(
    served: WitnessedServer, roles: Roles, run: Run, tmp_path: Path
) -> None:
    assert run.public
    done = audited(roles, served.policy, tmp_path)
    assert done.code == 0, done.out + done.err
    acme, operator = report_of(done, "acme"), report_of(done, "!operator")
    assert (acme["runs"], acme["records"], acme["leaves"]) == (2, 18, 18)
    assert acme["signed"] == 18
    assert acme["tiles"] >= 1
    assert operator["cosignatures"] >= 1
    assert operator["witnessed_at"] is not None
    assert audited(roles, served.policy, tmp_path, "--tenant", "acme").code == 0


def test_on_a_terminal_it_shows_how_far_it_is_and_nowhere_else(
    served: WitnessedServer, roles: Roles, run: Run, tmp_path: Path
) -> None:
    assert run.public
    assert audited(roles, served.policy, tmp_path).err == ""
    environ = surroundings(tmp_path / "data", MESHFLOW_AUDIT_DATABASE_URL=roles.audit)
    words = [*ENTRY, "audit", "--policy", str(tmp_path / "policy"), "--json"]
    terminal, end = pty.openpty()
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=end) as process:
        os.close(end)
        shown = _read_to_the_end(terminal)
        told, _ = process.communicate()
    assert (process.returncode, json.loads(told)["result"]) == (0, "clean")
    for what in (b"leaves", b"records", b"batches"):
        assert b"\r" + what.ljust(8) + b" [" + b"#" * 30 + b"] 18" in shown


def _read_to_the_end(terminal: int) -> bytes:
    shown = bytearray()
    with suppress(OSError):  # how a terminal tells that nobody writes to it any more
        while chunk := os.read(terminal, 4096):
            shown += chunk
    os.close(terminal)
    return bytes(shown)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack[0]} {attack[3]}")
def test_each_change_is_found(
    served: WitnessedServer,
    roles: Roles,
    run: Run,
    tenant: UUID,
    tmp_path: Path,
    attack: tuple[str, str, str | None, str],
) -> None:
    table, where, change, reason = attack
    with tampered(roles, table, where, (tenant, run.run_id), change) as is_done:
        assert is_done
        done = audited(roles, served.policy, tmp_path)
    assert done.code == 3, done.out + done.err
    told = [item["reason"] for log in json.loads(done.out)["logs"] for item in log["findings"]]
    assert any(reason in item for item in told), told


@pytest.fixture(scope="module")
def operator_key(
    served: WitnessedServer, roles: Roles, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the operator hands to the auditor."""
    folder = tmp_path_factory.mktemp("handed")
    environ = surroundings(
        folder / "data",
        MESHFLOW_DATABASE_URL=roles.app,
        MESHFLOW_LEDGER_KEY_DIR=str(served.live.keys),
        MESHFLOW_DEPLOYMENT=DEPLOYMENT,
    )
    words = ("ledger", "operator-key", "-o", str(folder / "key"))
    done = run_command(*words, environ=environ)
    assert done.code == 0, done.err
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    assert run_command(*words, environ=environ).code != 0, "a key is never overwritten"
    return folder / "key"


def test_with_the_key_of_the_notes_a_clean_deployment_is_clean(
    served: WitnessedServer, roles: Roles, run: Run, tmp_path: Path, operator_key: Path
) -> None:
    assert run.public
    done = audited(roles, served.policy, tmp_path, "--operator-key", str(operator_key))
    assert done.code == 0, done.out + done.err
    assert json.loads(done.out)["notes"] is True
    assert report_of(done, "acme")["unstored"] == 0
    assert report_of(done, "acme")["schema"] == []
    (change,) = report_of(done, "!operator")["schema"]
    assert (change["from"], change["to"]) == (None, schema.known_revision())
    assert change["product"] == package.__version__
    assert change["at"].endswith("Z")


def test_a_checkpoint_without_its_row_is_told_and_the_log_is_held_against_it(
    served: WitnessedServer,
    roles: Roles,
    run: Run,
    tenant: UUID,
    tmp_path: Path,
    operator_key: Path,
) -> None:
    newest = f"{OURS} AND size = (SELECT max(size) FROM checkpoint WHERE tenant_id = $1)"
    with tampered(roles, "checkpoint", newest, (tenant, run.run_id), None):
        sealed = audited(roles, served.policy, tmp_path)
        opened = audited(roles, served.policy, tmp_path, "--operator-key", str(operator_key))
    assert (sealed.code, opened.code) == (2, 2), sealed.out + opened.out
    assert report_of(sealed, "!operator")["unnamed"] >= 1
    assert report_of(opened, "acme")["unstored"] >= 1
    assert json.loads(sealed.out)["result"] == "incomplete"


def test_a_log_that_is_gone_with_all_its_checkpoints_is_found_by_who_opens_the_notes(
    served: WitnessedServer,
    roles: Roles,
    run: Run,
    tenant: UUID,
    tmp_path: Path,
    operator_key: Path,
) -> None:
    with nobody_leads(roles), ExitStack() as stack:
        for table in ALL_OF_A_TENANT:
            stack.enter_context(changed_rows(roles, table, OURS, (tenant, run.run_id), None))
        sealed = audited(roles, served.policy, tmp_path)
        opened = audited(roles, served.policy, tmp_path, "--operator-key", str(operator_key))
    assert sealed.code == 2, "without the key nobody knows what is gone, but that something is"
    assert opened.code == 3, opened.out
    told = [item["reason"] for item in report_of(opened, "acme")["findings"]]
    assert any("does not continue what the operator log holds" in item for item in told)


def test_a_row_that_names_the_record_of_another_checkpoint_is_found_with_the_key(
    served: WitnessedServer,
    roles: Roles,
    run: Run,
    tenant: UUID,
    tmp_path: Path,
    operator_key: Path,
) -> None:
    change = f"anchor_seq = ({FIRST_ANCHOR})"
    with tampered(roles, "checkpoint", OURS, (tenant, run.run_id), change):
        done = audited(roles, served.policy, tmp_path, "--operator-key", str(operator_key))
    told = [item["reason"] for item in report_of(done, "acme")["findings"]]
    assert any("the operator log does not hold it" in item for item in told)


def test_a_key_file_that_others_can_read_is_none(
    served: WitnessedServer, roles: Roles, tmp_path: Path, operator_key: Path
) -> None:
    loose = tmp_path / "loose"
    loose.write_bytes(operator_key.read_bytes())
    loose.chmod(0o644)
    done = audited(roles, served.policy, tmp_path, "--operator-key", str(loose))
    assert done.code == 4
    assert "mode 0600" in done.err


@pytest.mark.parametrize("line", ["log ", "#meshflow/v1 enrolment "])
def test_keys_that_are_not_pinned_prove_nothing(
    served: WitnessedServer, roles: Roles, run: Run, tmp_path: Path, line: str
) -> None:
    assert run.public
    stranger = bytes(range(32))

    def other(own: str) -> str:
        start, _, vkey = own.rpartition(" ")
        name = VerifierKey.parse(vkey).name
        public = Ed25519PrivateKey.from_private_bytes(stranger).public_key().public_bytes_raw()
        return f"{start} {verifier_key(name, ED25519, public).encode()}"

    pins = [other(own) if own.startswith(line) else own for own in served.policy.splitlines()]
    assert audited(roles, "\n".join([*pins, ""]), tmp_path).code == 3


@pytest.mark.parametrize(
    ("policy", "words"),
    [("quorum none\n", ()), ("nonsense\n", ()), (None, ("--tenant", "nobody"))],
)
def test_what_cannot_be_audited_is_no_verdict(
    served: WitnessedServer,
    roles: Roles,
    tmp_path: Path,
    policy: str | None,
    words: tuple[str, ...],
) -> None:
    assert audited(roles, policy or served.policy, tmp_path, *words).code == 4


def test_the_auditors_login_cannot_write(roles: Roles) -> None:
    async def act() -> None:
        raw = await connect(roles.audit)
        try:
            for table in (*LOG_TABLES, "record", "payload", "batch", "runs"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await raw.execute(f"DELETE FROM {table}")
        finally:
            await raw.close()

    asyncio.run(act())
