"""An enrolment key gives way while nobody rests on it, and certifies nobody after that."""

import os
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg

from app.keys.signing_keys import ENROLMENT, SigningKey, SigningKeys
from app.ledger.enrolment import writer_statement
from tests.e2e.server_process import run_command, surroundings
from tests.security.tampering_scene import (
    Run,
    as_superuser,
    assert_whole,
    attack,
    unguarded,
    verification,
)
from tests.security.test_log_key_rotation import signed_run
from tests.support.api_matrix import patiently
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import key_directory_of
from tests.support.witnessed_server import DEPLOYMENT, WitnessedServer, witnessed_server

_GIVEN_WAY = "rests on an enrolment key that had given way"


def _certify(roles: Roles, writers: list[asyncpg.Record], key: SigningKey) -> None:
    """Another certificate for these writers."""
    for row in writers:
        writer = row["writer_id"]
        certificate = key.sign(writer_statement(writer.bytes, row["public_key"]))
        attack(
            roles,
            "UPDATE writer_key SET certificate = $1 WHERE writer_id = $2",
            certificate,
            writer,
        )


def _writers(roles: Roles, run: Run) -> list[asyncpg.Record]:
    async def act(raw: asyncpg.Connection) -> list[asyncpg.Record]:
        return list(
            await raw.fetch(
                "SELECT DISTINCT k.writer_id, k.public_key FROM record r JOIN batch b"
                " USING (tenant_id, batch_id) JOIN writer_key k USING (writer_id)"
                " WHERE r.run_id = $1",
                run.run_id,
            )
        )

    return as_superuser(roles, act)


def _add_crashed_writer(roles: Roles, key: SigningKey) -> None:
    """A process that was killed a moment ago: it said no goodbye."""
    writer, public = uuid4(), SigningKey(os.urandom(32)).public_key

    async def act(raw: asyncpg.Connection) -> None:
        await raw.execute(
            "INSERT INTO writer_key (writer_id, public_key, certificate) VALUES ($1, $2, $3)",
            writer,
            public,
            key.sign(writer_statement(writer.bytes, public)),
        )

    as_superuser(roles, act)


def _fall_silent(roles: Roles) -> None:
    attack(
        roles,
        "UPDATE writer_key SET seen_at = seen_at - interval '1 hour' WHERE retired_at IS NULL",
    )


def test_after_a_rotation_old_and_new_certificates_hold_and_nothing_else(
    postgres: DatabaseServer, tmp_path: Path
) -> None:
    roles = postgres.new_database()
    keys = key_directory_of(roles)
    environ = surroundings(
        tmp_path / "data",
        MESHFLOW_DATABASE_URL=roles.app,
        MESHFLOW_SEQUENCER_DATABASE_URL=roles.sequencer,
        MESHFLOW_ERASER_DATABASE_URL=roles.eraser,
        MESHFLOW_LEDGER_KEY_DIR=str(keys),
        MESHFLOW_DEPLOYMENT=DEPLOYMENT,
    )
    rotate = ("ledger", "rotate-key", "enrolment")
    with witnessed_server(roles, with_witness=False) as served:
        before, _ = signed_run(served, roles)
        refused = run_command(*rotate, environ=environ)
        assert refused.code == 1, refused.out
        assert "keeps the logs: stop all of them first" in refused.err
        pins = served.policy
    signing = SigningKeys(keys, os.urandom)
    old = signing.current(ENROLMENT)
    _add_crashed_writer(roles, old)
    refused = run_command(*rotate, environ=environ)
    assert refused.code == 1, refused.out
    assert "1 writers hold a certificate of the present key and are not retired" in refused.err
    assert len(signing.every(ENROLMENT)) == 1, "a refused rotation made a key"
    _fall_silent(roles)
    done = run_command(*rotate, environ=environ)
    assert done.code == 0, done.err
    new = signing.current(ENROLMENT)
    assert f"old  {old.public_key.hex()}\nnew  {new.public_key.hex()}\n" in done.out
    assert done.out.count("#meshflow/v1 enrolment") == 2

    with witnessed_server(roles, with_witness=False) as served:
        after, _ = signed_run(served, roles)
        for run in (before, after):
            assert_whole(served.live, run)
        with served.live.client("audit") as client:
            data = client.get("/v1/ledger/keys").json()["data"]
        bundles = [_bundle(served, run) for run in (before, after)]
        listed = [(k["public_key"], k["until_index"]) for k in data if k["role"] == "enrolment"]
        assert [key for key, _ in listed] == [old.public_key.hex(), new.public_key.hex()]
        assert listed[0][1] is not None
        assert listed[1][1] is None
        _assert_offline(bundles, pins, tmp_path)
        auditor = _auditor(roles, pins, tmp_path, environ)
        _assert_a_late_certificate_is_found(served, after, (old, new), auditor)


def _bundle(served: WitnessedServer, run: Run) -> bytes:
    """The bundle, once a reader of the old key could follow."""
    with served.live.client("audit") as client:
        for _ in patiently():
            answer = client.get(f"/v1/runs/{run.public}/bundle")
            if answer.status_code == 200:
                break
            assert answer.json()["type"].endswith("not-sequenced"), answer.text
    return answer.content


def _assert_offline(bundles: list[bytes], pins: str, tmp_path: Path) -> None:
    """Who pins the old key trusts the new one by the record; nothing is witnessed here."""
    policy = tmp_path / "policy"
    policy.write_text(pins, encoding="utf-8")
    for at, data in enumerate(bundles):
        bundle = tmp_path / f"run{at}.tar"
        bundle.write_bytes(data)
        words = ("verify-bundle", str(bundle), "--policy", str(policy), "--json")
        checked = run_command(*words, environ=surroundings(tmp_path / "data"))
        assert checked.code == 2, checked.out


@dataclass(frozen=True, slots=True, kw_only=True)
class _Auditor:
    """Somebody who pins the old key and was given that of the operator log."""

    words: tuple[str, ...]
    environ: dict[str, str]

    def look(self) -> tuple[int, str]:
        done = run_command(*self.words, environ=self.environ)
        return done.code, done.out + done.err


def _auditor(roles: Roles, pins: str, tmp_path: Path, environ: dict[str, str]) -> _Auditor:
    pinned, key = tmp_path / "pinned", tmp_path / "operator-key"
    pinned.write_text(pins, encoding="utf-8")
    assert run_command("ledger", "operator-key", "-o", str(key), environ=environ).code == 0
    return _Auditor(
        words=("audit", "--policy", str(pinned), "--json", "--operator-key", str(key)),
        environ=surroundings(tmp_path / "audit", MESHFLOW_AUDIT_DATABASE_URL=roles.audit),
    )


def _assert_a_late_certificate_is_found(
    served: WitnessedServer, after: Run, keys: tuple[SigningKey, SigningKey], auditor: _Auditor
) -> None:
    """The old key certifies the writer of a run that began after it gave way."""
    roles, (old, new) = served.live.roles, keys
    code, told = auditor.look()
    assert code == 0, told
    writers = _writers(roles, after)
    unguarded(roles, "writer_key")
    _certify(roles, writers, old)
    found = verification(served.live, after)
    assert (found.verdict, found.seq) == ("broken", 0), found
    assert _GIVEN_WAY in (found.reason or "")
    with served.live.client("audit") as client:
        assert client.get(f"/v1/runs/{after.public}/bundle").status_code == 409
    code, told = auditor.look()
    assert code == 3
    assert _GIVEN_WAY in told
    _certify(roles, writers, new)
    assert_whole(served.live, after)
