"""After an erasure and the next rotation no file that is left opens what was erased.

The server's own data directory and write-ahead log are searched, with every key file there is. The
old copies are in there: only the keys that open them are gone.
"""

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.domain.erasure import ErasureStatus
from app.domain.run import RunId
from app.embedded.postgres_cluster import DATABASE
from app.embedded.postgres_server import start_embedded_postgres
from app.keys.key_store import KEK_BYTES
from app.storage import schema
from tests.integration.erasing.erasing_scene import erasing_beside
from tests.security.tampering_scene import Run
from tests.support.databases import Roles, connect, state_directory
from tests.support.live_server import LiveServer, live_server

SENTINEL = "zebra quartz lantern"
WRAPPED_BYTES = 12 + 32 + 16
REACH = 160  # how far behind the name of its KEK a wrapped key may stand in a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A stored ciphertext with the place that it is bound to."""

    run_id: UUID
    blob: bytes
    aad: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What is left on disk, and what was there before."""

    tenant: UUID
    files: Sequence[bytes]  # of the database: tables, log, everything
    keys_then: Sequence[bytes]
    keys_now: Sequence[bytes]
    erased: Sequence[Sealed]
    kept: Sequence[Sealed]


def _run(live: LiveServer) -> Run:
    with live.client() as client:
        body = {"task": f"What is 17 * 23? {SENTINEL}"}
        told = client.post("/v1/runs", json=body, headers={"Prefer": "wait=20"}).json()
    assert told["status"] == "succeeded", told
    return Run(public=told["id"], run_id=UUID(told["id"].removeprefix("run_")))


async def _sealed(roles: Roles, run: Run) -> list[Sealed]:
    connection = await connect(roles.superuser)
    try:
        payloads = await connection.fetch("SELECT * FROM payload WHERE run_id = $1", run.run_id)
        results = await connection.fetch("SELECT * FROM run_result WHERE run_id = $1", run.run_id)
    finally:
        await connection.close()
    assert payloads
    assert results
    return [
        Sealed(run_id=run.run_id, blob=row["blob"], aad=_place(row))
        for row in (*payloads, *results)
    ]


def _place(row: asyncpg.Record) -> bytes:
    place: bytes = row["tenant_id"].bytes + row["run_id"].bytes
    if "seq" not in row.keys():  # noqa: SIM118 - a record of the driver, whose `in` asks for values
        return place
    return place + int(row["seq"]).to_bytes(8, "big") + int(row["field"]).to_bytes(2, "big")


def _key_files(directory: Path) -> list[bytes]:
    found = [path for kind in ("ledger", "work") for path in (directory / kind).rglob("*")]
    return [path.read_bytes()[:KEK_BYTES] for path in found if path.is_file()]


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    state = state_directory()
    server = start_embedded_postgres(state, durable=False)
    try:
        roles = Roles(
            app=server.app_url,
            owner=server.owner_url,
            audit=server.audit_url,
            superuser=server.superuser_url(),
            eraser=server.eraser_url,
        ).named(DATABASE)
        asyncio.run(schema.upgrade(server.owner_url))
        with live_server(roles) as live:
            deleted, anonymized, kept = _run(live), _run(live), _run(live)
            then = tmp_path_factory.mktemp("then") / "keys"
            shutil.copytree(live.keys, then)
            made = asyncio.run(_erased(live, deleted, anonymized, kept))
            keys_now = _key_files(live.keys)
            journal = (live.directory / "erasing" / "erasures.jsonl").read_bytes()
        data = server.data_dir
        server.stop()
        files = [path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()]
        yield Aftermath(
            tenant=made[0],
            files=[*files, journal],
            keys_then=_key_files(then),
            keys_now=keys_now,
            erased=made[1],
            kept=made[2],
        )
    finally:
        server.stop()
        shutil.rmtree(state, ignore_errors=True)


async def _erased(
    live: LiveServer, deleted: Run, anonymized: Run, kept: Run
) -> tuple[UUID, list[Sealed], list[Sealed]]:
    """Both erasures and the nightly rotation after them; the ciphertexts as they were before."""
    gone = [*await _sealed(live.roles, deleted), *await _sealed(live.roles, anonymized)]
    stays = await _sealed(live.roles, kept)
    async with erasing_beside(live, rotate_every=timedelta(hours=24)) as erasing:
        first = await erasing.delete(deleted)
        second = await erasing.anonymize(anonymized)
        for receipt in (first, second):
            assert receipt.status is ErasureStatus.PENDING
            assert receipt.executed_at is not None
            assert receipt.due_at == receipt.executed_at + timedelta(hours=24)
        assert await erasing.at_work.rotation.rotate() == 2  # one of the ledger, one of results
        for receipt in (first, second):
            done = await erasing.done(receipt)
            assert done.status is ErasureStatus.COMPLETE
            assert done.completed_at is not None
        dossier = await erasing.parts.replay.read_run(
            erasing.tenant_id, RunId(kept.run_id), with_output=True
        )
        assert SENTINEL in str(dossier.chain.records[0].fields["task"])
        assert dossier.output is not None
        return erasing.tenant_id, gone, stays


def _run_keys(aftermath: Aftermath, keks: Sequence[bytes], runs: set[UUID]) -> set[bytes]:
    """Every key that can be got out of the files with these KEKs: wherever one may stand."""
    names = [f"{kind}/{aftermath.tenant.hex}/".encode() for kind in ("ledger", "work")]
    aads = [aftermath.tenant.bytes + run.bytes for run in runs]
    windows = {
        file[start + shift : start + shift + WRAPPED_BYTES]
        for file in aftermath.files
        for name in names
        for start in _places(file, name)
        for shift in range(len(name), REACH)
    }
    found: set[bytes] = set()
    for kek, aad, window in product(keks, aads, windows):
        opened = _opened(kek, window, aad)
        if opened is not None:
            found.add(opened)
    return found


def _places(file: bytes, name: bytes) -> Iterator[int]:
    start = file.find(name)
    while start >= 0:
        yield start
        start = file.find(name, start + 1)


def _opened(key: bytes, blob: bytes, aad: bytes) -> bytes | None:
    try:
        return AESGCM(key).decrypt(blob[:12], blob[12:], aad)
    except (InvalidTag, ValueError):
        return None


def _open_at_all(sealed: Sequence[Sealed], keys: Sequence[bytes]) -> int:
    return sum(
        any(_opened(key, item.blob, item.aad) is not None for key in keys) for item in sealed
    )


def test_the_old_ciphertexts_are_still_in_the_files(aftermath: Aftermath) -> None:
    present = [item for item in aftermath.erased if any(item.blob in f for f in aftermath.files)]
    # The server may write anew over a row or two that it has cleared away; over most it does not.
    assert len(present) > max(10, len(aftermath.erased) * 3 // 4)


def test_with_the_keys_of_then_the_search_opens_every_one(aftermath: Aftermath) -> None:
    runs = {item.run_id for item in aftermath.erased}
    keys = _run_keys(aftermath, aftermath.keys_then, runs)
    assert _open_at_all(aftermath.erased, list(keys)) == len(aftermath.erased)


def test_with_every_key_that_is_left_it_opens_none(aftermath: Aftermath) -> None:
    runs = {item.run_id for item in (*aftermath.erased, *aftermath.kept)}
    keys = _run_keys(aftermath, aftermath.keys_now, runs)
    assert _open_at_all(aftermath.kept, list(keys)) == len(aftermath.kept)
    assert _open_at_all(aftermath.erased, [*keys, *aftermath.keys_now]) == 0


def test_the_plain_text_is_in_no_file(aftermath: Aftermath) -> None:
    assert not [file for file in aftermath.files if SENTINEL.encode() in file]
    assert len(set(aftermath.keys_then) - set(aftermath.keys_now)) == 2
