"""Who does not trust the server gets what it takes to check: proofs, keys, and whole bundles."""

import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.ledger.hashing import leaf_hash
from app.transparency.checkpoint import open_checkpoint
from app.transparency.log_proof import parse_proof
from app.transparency.merkle_tree import verify_consistency, verify_inclusion
from app.transparency.note import VerifierKey
from tests.e2e.server_process import run_command, surroundings
from tests.security.tampering_scene import Run, finished_run
from tests.support.api_matrix import UNKNOWN_RUN, problem_of
from tests.support.databases import DatabaseServer, Roles
from tests.support.live_server import KEYS, live_server
from tests.support.witnessed_server import WitnessedServer, witnessed_server


@pytest.fixture(scope="module")
def roles(postgres: DatabaseServer) -> Roles:
    return postgres.new_database()


@pytest.fixture(scope="module")
def served(roles: Roles) -> Iterator[WitnessedServer]:
    with witnessed_server(roles) as server:
        yield server


@pytest.fixture(scope="module")
def run(served: WitnessedServer) -> Run:
    made = finished_run(served.live)
    served.when(made.public, lambda found: found["state"] == "anchored")
    return made


@pytest.fixture
def auditor(served: WitnessedServer) -> Iterator[httpx2.Client]:
    with served.live.client("audit") as client:
        yield client


def log_key(client: httpx2.Client) -> VerifierKey:
    keys = client.get("/v1/ledger/keys").json()["data"]
    return VerifierKey.parse(next(key["verifier_key"] for key in keys if key["role"] == "log"))


def verified(path: Path, policy: str, directory: Path) -> tuple[int, dict[str, Any]]:
    """What the offline verifier says, in a process of its own."""
    pinned = directory / "policy"
    pinned.write_text(policy, encoding="utf-8")
    words = ["verify-bundle", str(path), "--policy", str(pinned), "--json"]
    done = run_command(*words, environ=surroundings(directory / "data"))
    return done.code, json.loads(done.out) if done.out.startswith("{") else {"out": done.err}


def test_a_proof_leads_from_the_record_to_a_checkpoint_that_the_log_key_signed(
    auditor: httpx2.Client, run: Run
) -> None:
    key = log_key(auditor)
    log = bytes.fromhex(key.name.rpartition("/")[2])
    for entry in auditor.get(f"/v1/runs/{run.public}/entries").json()["data"]:
        answer = auditor.get(f"/v1/runs/{run.public}/proof", params={"seq": entry["seq"]})
        assert answer.headers["content-type"].startswith("text/plain")
        proof = parse_proof(answer.content)
        checkpoint = open_checkpoint(proof.checkpoint, key)
        leaf = leaf_hash(log, run.run_id.bytes, entry["seq"], bytes.fromhex(entry["chain_hash"]))
        assert verify_inclusion(
            leaf_hash=leaf,
            index=proof.index,
            size=checkpoint.size,
            proof=proof.hashes,
            root=checkpoint.root,
        )


@pytest.mark.usefixtures("run")
def test_inclusion_and_consistency_lead_to_the_checkpoint(auditor: httpx2.Client) -> None:
    newest = open_checkpoint(auditor.get("/v1/ledger/checkpoint").content, log_key(auditor))
    for size in range(1, newest.size + 1):
        told = auditor.get(
            "/v1/ledger/proofs/consistency", params={"from": size, "to": newest.size}
        ).json()
        assert told["new_root"] == newest.root.hex()
        assert verify_consistency(
            old_size=size,
            old_root=bytes.fromhex(told["old_root"]),
            new_size=newest.size,
            new_root=newest.root,
            proof=[bytes.fromhex(item) for item in told["hashes"]],
        )
        path = auditor.get(
            "/v1/ledger/proofs/inclusion", params={"index": size - 1, "size": size}
        ).json()
        assert path["root"] == told["old_root"]
        assert verify_inclusion(
            leaf_hash=bytes.fromhex(path["leaf_hash"]),
            index=size - 1,
            size=size,
            proof=[bytes.fromhex(item) for item in path["hashes"]],
            root=bytes.fromhex(path["root"]),
        )
    beyond = {"index": 0, "size": newest.size + 1000}
    problem_of(auditor.get("/v1/ledger/proofs/inclusion", params=beyond), 409, "not-sequenced")
    wrong = {"index": newest.size, "size": newest.size}
    problem_of(auditor.get("/v1/ledger/proofs/inclusion", params=wrong), 422, "invalid-submission")
    back = {"from": 2, "to": 1}
    problem_of(auditor.get("/v1/ledger/proofs/consistency", params=back), 422, "invalid-submission")


def test_proofs_of_others_and_of_nothing_are_not_found_and_exports_need_the_scope(
    served: WitnessedServer, auditor: httpx2.Client, run: Run
) -> None:
    problem_of(auditor.get(f"/v1/runs/{UNKNOWN_RUN}/proof?seq=0"), 404, "not-found")
    problem_of(auditor.get(f"/v1/runs/{run.public}/proof?seq=9"), 404, "not-found")
    with served.live.client("other") as client:
        for path in ("proof?seq=0", "bundle"):
            problem_of(client.get(f"/v1/runs/{run.public}/{path}"), 404, "not-found")
        problem_of(client.get("/v1/ledger/checkpoint"), 409, "not-sequenced")
    with served.live.client("forms") as client:
        assert client.get(f"/v1/runs/{run.public}/proof?seq=0").status_code == 200
        for path in (f"runs/{run.public}/bundle", "ledger/keys", "ledger/policy"):
            problem_of(client.get(f"/v1/{path}"), 403, "forbidden")


def test_the_policy_names_the_keys_and_warns_where_it_comes_from(
    served: WitnessedServer, auditor: httpx2.Client
) -> None:
    text = auditor.get("/v1/ledger/policy").text
    told = [line for line in text.splitlines() if not line.startswith("# ")]
    wanted = [line for line in served.policy.splitlines() if not line.startswith("# ")]
    assert told == wanted
    assert "out of band" in text


def test_an_export_verifies_offline_and_not_once_a_byte_is_another(
    served: WitnessedServer, run: Run, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(KEYS["audit"], encoding="utf-8")
    path = tmp_path / "run.tar"
    words = ["--url", served.live.url, "--key-file", str(key)]
    done = run_command(
        "export", run.public, "-o", str(path), *words, environ=surroundings(tmp_path / "data")
    )
    assert done.code == 0, done.err
    code, told = verified(path, served.policy, tmp_path)
    assert code == 0, told
    whole = path.read_bytes()
    without = run_command("verify-bundle", str(path), environ=surroundings(tmp_path / "data"))
    assert without.code == 2
    done = run_command(
        "export",
        run.public,
        "-o",
        str(path),
        "--fields",
        "none",
        *words,
        environ=surroundings(tmp_path / "data"),
    )
    assert done.code == 0, done.err
    code, told = verified(path, served.policy, tmp_path)
    assert code == 2, told
    assert b"391" not in path.read_bytes()
    path.write_bytes(whole)
    other = served.policy.replace("quorum w1", "quorum none")
    assert verified(path, other, tmp_path)[0] == 2

    changed = tmp_path / "changed.tar"
    with tarfile.open(fileobj=BytesIO(whole)) as archive:
        offsets = [(m.name, m.offset_data, m.size) for m in archive.getmembers() if m.size]
    for name, start, size in offsets:
        for at in (0, size // 3, size // 2, size - 2):
            forged = bytearray(whole)
            forged[start + at] ^= 1
            changed.write_bytes(forged)
            code, told = verified(changed, served.policy, tmp_path)
            assert code in ({3, 4} if name == "manifest.json" else {3}), (name, at, told)


def test_an_export_of_what_is_not_sequenced_says_that_it_is_not_whole(
    postgres: DatabaseServer, tmp_path: Path
) -> None:
    roles = postgres.new_database()
    with live_server(roles) as live:
        run = finished_run(live)
        with live.client("audit") as client:
            path = tmp_path / "run.tar"
            path.write_bytes(client.get(f"/v1/runs/{run.public}/bundle").content)
            policy = client.get("/v1/ledger/policy").text
            answer = client.get(f"/v1/runs/{run.public}/proof?seq=0")
            problem_of(answer, 409, "not-sequenced")
            assert answer.headers["retry-after"] == "5"
    code, told = verified(path, policy, tmp_path)
    assert code == 2, told
