"""The answer of a submission is a receipt that holds without the server, and against it later.

Checked as docs/ledger-format.md section 14 says, with nothing of the program.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support.api_matrix import problem_of
from tests.support.databases import DatabaseServer
from tests.support.live_server import LiveServer, live_server

Receipt = dict[str, Any]
RUNS = 64


def _tag(name: str) -> bytes:
    return b"meshflow-ledger/v1/" + name.encode() + b"\0"


def _h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def _lp(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _root(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """RFC 9162 section 2.1.3.2: where the path of a leaf leads."""
    at, last, found = index, size - 1, leaf
    for other in path if index < size else []:
        if last == 0:
            return b""
        if at % 2 or at == last:
            found = _h(b"\1", other, found)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            found = _h(b"\1", found, other)
        at, last = at >> 1, last >> 1
    return found if last == 0 and index < size else b""


def holds(receipt: Receipt, enrolment: bytes) -> bool:
    """Whether a receipt is one, for who pins the enrolment key."""
    batch = receipt["batch"]
    log, run, chain = (bytes.fromhex(receipt[name]) for name in ("log", "run", "chain_hash"))
    writer, key = bytes.fromhex(batch["writer_id"]), bytes.fromhex(batch["public_key"])
    seq = receipt["seq"].to_bytes(8, "big")
    path = [bytes.fromhex(item) for item in batch["proof"]]
    root = _root(_h(b"\0", run, seq, chain), batch["index"], batch["n"], path)
    count = batch["n"].to_bytes(4, "big")
    genesis = _h(_tag("genesis"), _lp(log), _lp(run))
    told = _h(_tag("chain"), genesis, seq, bytes.fromhex(receipt["record_hash"]))
    try:
        Ed25519PublicKey.from_public_bytes(enrolment).verify(
            bytes.fromhex(batch["certificate"]), _tag("writer") + writer + key
        )
        Ed25519PublicKey.from_public_bytes(key).verify(
            bytes.fromhex(batch["signature"]),
            _tag("batch") + log + bytes.fromhex(batch["batch_id"]) + count + root,
        )
    except InvalidSignature:
        return False
    return told == chain


@pytest.fixture(scope="module")
def server(postgres: DatabaseServer) -> Iterator[LiveServer]:
    with live_server(postgres.new_database()) as live:
        yield live


@pytest.fixture(scope="module")
def enrolment(server: LiveServer) -> bytes:
    with server.client() as client:
        keys = client.get("/v1/ledger/keys").json()["data"]
    return bytes.fromhex(next(key["public_key"] for key in keys if key["role"] == "enrolment"))


def _submitted(server: LiveServer, prefer: str = "wait=0") -> dict[str, Any]:
    with server.client() as client:
        answer = client.post("/v1/runs", json={"task": "1+1"}, headers={"Prefer": prefer})
        assert answer.status_code in (200, 202), answer.text
        found: dict[str, Any] = answer.json()
        return found


def test_each_receipt_of_runs_that_were_accepted_together_holds_alone(
    server: LiveServer, enrolment: bytes
) -> None:
    with ThreadPoolExecutor(RUNS) as pool:
        runs = list(pool.map(lambda _: _submitted(server), range(RUNS)))
    receipts = [run["receipt"] for run in runs]
    for run, receipt in zip(runs, receipts, strict=True):
        assert run["id"] == f"run_{receipt['run']}"
        assert receipt["seq"] == 0
        assert holds(receipt, enrolment)
    assert max(receipt["batch"]["n"] for receipt in receipts) > 1, "some shared a signature"


def test_a_refusal_of_the_gate_is_a_receipt_too(server: LiveServer, enrolment: bytes) -> None:
    body = {"task": "x", "capabilities": {"tools": ["no_such_tool"]}}
    with ThreadPoolExecutor(8) as pool, server.client() as client:
        answers = list(pool.map(lambda _: client.post("/v1/runs", json=body), range(8)))
    for answer in answers:
        problem = problem_of(answer, 403, "policy-denied")
        receipt = problem["receipt"]
        assert (problem["run_id"], receipt["seq"]) == (f"run_{receipt['run']}", 0)
        assert holds(receipt, enrolment)
        line = _line(server, {"id": problem["run_id"]})
        assert (line["rc"], line["chain"]) == (receipt["record_hash"], receipt["chain_hash"])


@pytest.mark.parametrize("prefer", ["wait=0", "wait=20"])
def test_a_receipt_is_of_the_acceptance_however_long_the_caller_waits(
    server: LiveServer, enrolment: bytes, prefer: str
) -> None:
    receipt = _submitted(server, prefer)["receipt"]
    assert receipt["seq"] == 0
    assert holds(receipt, enrolment)


OTHERS: list[Callable[[Receipt], None]] = [
    lambda r: r.update(seq=1),
    lambda r: r.update(run="00" * 16),
    lambda r: r.update(log="00" * 16),
    lambda r: r.update(record_hash="00" * 32),
    lambda r: r.update(chain_hash="00" * 32),
    lambda r: r["batch"].update(n=r["batch"]["n"] + 1),
    lambda r: r["batch"].update(index=r["batch"]["index"] + 1),
    lambda r: r["batch"].update(batch_id="00" * 16),
    lambda r: r["batch"].update(writer_id="00" * 16),
    lambda r: r["batch"].update(proof=[*r["batch"]["proof"], "00" * 32]),
]


@pytest.mark.parametrize("other", OTHERS)
def test_a_receipt_of_something_else_does_not_hold(
    server: LiveServer, enrolment: bytes, other: Callable[[Receipt], None]
) -> None:
    receipt = _submitted(server)["receipt"]
    other(receipt)
    assert not holds(receipt, enrolment)


def test_a_key_that_nobody_certified_makes_no_receipt(server: LiveServer) -> None:
    assert not holds(_submitted(server)["receipt"], bytes(range(32)))


def _line(server: LiveServer, run: dict[str, Any]) -> dict[str, Any]:
    """The first record of the run as a bundle of it has it."""
    with server.client() as client:
        answer = client.get(f"/v1/runs/{run['id']}/bundle")
        assert answer.status_code == 200, answer.text
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        member = tar.extractfile("records.jsonl")
        assert member is not None
        found: dict[str, Any] = json.loads(member.readline())
        return found


def test_a_bundle_shows_what_the_receipt_says(server: LiveServer) -> None:
    run = _submitted(server, "wait=20")
    line = _line(server, run)
    assert (line["rc"], line["chain"]) == (
        run["receipt"]["record_hash"],
        run["receipt"]["chain_hash"],
    )
