"""The published vectors hold for the application and for a verifier that shares no code with it.

Threat: Ledger tampering
"""

import ast
import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.domain.errors import ChainBreak
from app.keys.signing_keys import SigningKey
from app.ledger import hashing
from app.ledger.canonical import CanonicalError
from app.ledger.chain import StoredBatch, StoredRecord, StoredRun, verify_run
from app.ledger.enrolment import writer_statement
from app.ledger.header import decode_header
from app.ledger.sealing import RunSealer, SealError
from app.ledger.writing import SealedField, WriterKey
from scripts import make_vectors
from tests.support import independent_reader, independent_verifier
from tests.support.databases import Roles, connect
from tests.support.live_server import LiveServer, live_server

VECTORS = Path(__file__).parent / "vectors"
SUPPORT = Path(independent_verifier.__file__)
Members = Mapping[str, Any]
Agrees = Callable[[Members, Members], bool]


def raw(members: Members) -> dict[str, Any]:
    """Hex as bytes; numbers and names as they are."""
    names = {"field", "purpose"}
    return {
        name: bytes.fromhex(value) if isinstance(value, str) and name not in names else value
        for name, value in members.items()
    }


def signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


# --- what the application says ---------------------------------------------------------------


def app_blob(i: Members, o: Members) -> bool:
    sealer = RunSealer(i["run_key"], log=i["log"], run=i["run"])
    place = {"seq": i["seq"], "field": i["field"]}
    sealed = sealer.seal(**place, salt=i["salt"], value=i["value"], nonce=i["nonce"])
    try:
        opens = sealer.open(**place, blob=o["blob"]) == (i["salt"], i["value"])
    except SealError:
        opens = False
    assert opens is (sealed == o["blob"])
    return bool(opens)


def app_header(i: Members, o: Members) -> bool:
    try:
        members = decode_header(o["header"])
    except CanonicalError:
        return False
    made = hashing.record_hash(o["header"])
    return bool(members == i["members"] and made == o["record_hash"])


def app_chain(i: Members, o: Members) -> bool:
    if "genesis" in o:
        return bool(hashing.genesis(i["log"], i["run"]) == o["genesis"])
    return bool(hashing.chain_hash(i["previous"], i["seq"], i["record_hash"]) == o["chain"])


def app_tree(i: Members, o: Members) -> bool:
    entries = [
        hashing.batch_entry(bytes.fromhex(e["run"]), e["seq"], bytes.fromhex(e["chain"]))
        for e in i["entries"]
    ]
    return bool(hashing.merkle_tree_hash(entries) == o["mth"])


def app_batch(i: Members, o: Members) -> bool:
    message = hashing.batch_message(i["log"], i["batch_id"], i["n"], i["mth"])
    writer = WriterKey(i["private_key"], bytes(16))
    assert writer.public_key == i["public_key"]
    assert signed(writer.public_key, writer.sign(message), message)
    return (message, writer.sign(message)) == (o["message"], o["signature"])


def app_run(i: Members, o: Members) -> bool:
    rows: Members = o["rows"]
    keys = {w["writer_id"]: bytes.fromhex(w["public_key"]) for w in rows["writer_key"]}
    enrolment = SigningKey(bytes(32))
    stored = StoredRun(
        log=i["log"],
        run=i["run"],
        records=[
            StoredRecord(
                seq=r["seq"],
                epoch=r["epoch"],
                kind=r["kind"],
                at=datetime.fromisoformat(r["ts"]),
                header=bytes.fromhex(r["header"]),
                rc=bytes.fromhex(r["rc"]),
                chain=bytes.fromhex(r["chain"]),
                batch_id=bytes.fromhex(r["batch_id"]),
            )
            for r in rows["record"]
        ],
        fields=[
            SealedField(seq=p["seq"], field=p["field"], blob=bytes.fromhex(p["blob"]))
            for p in rows["payload"]
        ],
        batches={
            bytes.fromhex(b["batch_id"]): StoredBatch(
                batch_id=bytes.fromhex(b["batch_id"]),
                writer=bytes.fromhex(b["writer_id"]),
                count=b["n"],
                ranges=bytes.fromhex(b["ranges"]),
                entries=None if b.get("entries") is None else bytes.fromhex(b["entries"]),
                tip=bytes.fromhex(b["tip"]),
                signature=bytes.fromhex(b["sig"]),
                public_key=keys[b["writer_id"]],
                certificate=enrolment.sign(
                    writer_statement(bytes.fromhex(b["writer_id"]), keys[b["writer_id"]])
                ),
            )
            for b in rows["batch"]
        },
        entries=len(rows["record"]),
        ended=True,
    )
    found = verify_run(stored, i["run_key"], {enrolment.public_key})
    at = found.seq if isinstance(found, ChainBreak) else None
    assert at == o["broken_at"], found
    return at is None


APP: Mapping[str, Agrees] = {
    "commitment": lambda i, o: (
        hashing.commitment(i["log"], i["run"], i["seq"], i["field"], i["salt"], i["value"])
        == o["commitment"]
    ),
    "blob": app_blob,
    "header": app_header,
    "chain": app_chain,
    "tree": app_tree,
    "batch": app_batch,
    "leaf": lambda i, o: (
        hashing.leaf_hash(i["log"], i["run"], i["seq"], i["chain"]) == o["leaf_hash"]
    ),
    "digest": lambda i, o: (
        hashing.keyed_digest(hashing.digest_key(i["run_key"]), i["purpose"], i["data"])
        == o["digest"]
    ),
    "run": app_run,
}


# --- what the independent verifier says ------------------------------------------------------


def other_blob(i: Members, o: Members) -> bool:
    place = (i["log"], i["run"], i["seq"], i["field"])
    try:
        opened = independent_verifier.open_blob(i["run_key"], o["blob"], *place)
    except InvalidTag:
        return False
    return bool(opened == i["salt"] + i["value"] and o["blob"][:12] == i["nonce"])


def other_header(i: Members, o: Members) -> bool:
    try:
        members = independent_verifier.parse_header(o["header"])
    except ValueError:
        return False
    made = independent_verifier.record_hash(o["header"])
    return bool(members == i["members"] and made == o["record_hash"])


def other_chain(i: Members, o: Members) -> bool:
    if "genesis" in o:
        return bool(independent_verifier.genesis(i["log"], i["run"]) == o["genesis"])
    made = independent_verifier.chain_hash(i["previous"], i["seq"], i["record_hash"])
    return bool(made == o["chain"])


def other_tree(i: Members, o: Members) -> bool:
    entries = [
        bytes.fromhex(e["run"]) + e["seq"].to_bytes(8, "big") + bytes.fromhex(e["chain"])
        for e in i["entries"]
    ]
    return bool(independent_verifier.merkle_tree_hash(entries) == o["mth"])


def other_batch(i: Members, o: Members) -> bool:
    message = independent_verifier.batch_message(i["log"], i["batch_id"], i["n"], i["mth"])
    private = Ed25519PrivateKey.from_private_bytes(i["private_key"])
    assert private.public_key().public_bytes_raw() == i["public_key"]
    return bool(message == o["message"]) and signed(i["public_key"], o["signature"], message)


def other_run(i: Members, o: Members) -> bool:
    ids = {"tenant_id", "run_id", "batch_id", "writer_id", "ts", "kind"}
    rows: dict[str, list[dict[str, Any]]] = {
        table: [
            {
                name: bytes.fromhex(value) if isinstance(value, str) and name not in ids else value
                for name, value in row.items()
            }
            for row in found
        ]
        for table, found in o["rows"].items()
    }
    batches = {
        batch["batch_id"]: {
            **batch,
            "entries": independent_reader.entries_of(batch)
            if batch.get("entries") is not None
            else [
                (r["run_id"], r["seq"], r["chain"])
                for r in rows["record"]
                if r["batch_id"] == batch["batch_id"]
            ],
        }
        for batch in rows["batch"]
    }
    writers = {w["writer_id"]: w["public_key"] for w in rows["writer_key"]}
    found = independent_verifier.verify_run(
        rows["record"], rows["payload"], batches, writers, i["run_key"]
    )
    assert (None if found is None else found[0]) == o["broken_at"], found
    return found is None


OTHER: Mapping[str, Agrees] = {
    "commitment": lambda i, o: (
        independent_verifier.commitment(
            i["log"], i["run"], i["seq"], i["field"], i["salt"], i["value"]
        )
        == o["commitment"]
    ),
    "blob": other_blob,
    "header": other_header,
    "chain": other_chain,
    "tree": other_tree,
    "batch": other_batch,
    "leaf": lambda i, o: (
        independent_reader.leaf_hash(i["log"], i["run"], i["seq"], i["chain"]) == o["leaf_hash"]
    ),
    "digest": lambda i, o: (
        independent_reader.keyed_digest(i["run_key"], i["purpose"], i["data"]) == o["digest"]
    ),
    "run": other_run,
}


def published() -> Iterator[tuple[str, Members]]:
    for path in sorted(VECTORS.glob("*.json")):
        for vector in json.loads(path.read_bytes())["vectors"]:
            yield path.stem, vector


ALL = list(published())


@pytest.mark.parametrize("side", ["app", "independent"])
@pytest.mark.parametrize(("kind", "vector"), ALL, ids=[f"{k}: {v['name']}" for k, v in ALL])
def test_a_vector_holds_exactly_when_it_says_so(kind: str, vector: Members, side: str) -> None:
    agrees = {"app": APP, "independent": OTHER}[side][kind]
    output = vector["output"] if kind == "run" else raw(vector["output"])
    given = vector["input"] if kind == "header" else raw(vector["input"])
    assert agrees(given, output) is vector["valid"]


def test_every_kind_has_vectors_that_hold_and_twins_that_do_not() -> None:
    assert {kind for kind, _ in ALL} == APP.keys() == OTHER.keys() == make_vectors.FILES.keys()
    assert sum(vector["valid"] for _, vector in ALL) >= 24
    for kind in APP:
        assert {vector["valid"] for of, vector in ALL if of == kind} == {True, False}


def test_the_generator_writes_the_committed_files_byte_for_byte(tmp_path: Path) -> None:
    assert make_vectors.main(tmp_path) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in VECTORS.glob("*.json")}


@pytest.mark.parametrize("name", ["independent_verifier", "independent_reader"])
def test_the_independent_side_imports_nothing_of_the_application(name: str) -> None:
    tree = ast.parse(SUPPORT.with_name(f"{name}.py").read_text(encoding="utf-8"))
    imported = {
        module.split(".")[0]
        for node in ast.walk(tree)
        for module in (
            [node.module or "."]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    standard = {"collections", "datetime", "hashlib", "hmac", "json", "re", "typing", "uuid"}
    own = set() if name == "independent_verifier" else {"tests"}
    assert imported <= standard | {"cryptography"} | own


def test_the_independent_verifier_can_be_read_at_one_sitting() -> None:
    assert len(SUPPORT.read_text(encoding="utf-8").splitlines()) <= 200


# --- a real run ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(roles: Roles) -> Iterator[LiveServer]:
    with live_server(roles) as server:
        yield server


def finished_run(live: LiveServer) -> str:
    """The id, in hex, of a run that called tools and ended."""
    task = {"task": "Calculate 6*7 and write the result to answer.txt"}
    with live.client("acme") as client:
        answer = client.post("/v1/runs", json=task, headers={"Prefer": "wait=30"}).json()
    assert answer["status"] == "succeeded", answer
    return str(answer["id"]).removeprefix("run_")


def kek_of(live: LiveServer, kek_id: str) -> bytes:
    """A KEK from its file, which is the key and a digest that ties it to its id."""
    held = (live.keys / kek_id).read_bytes()
    named = b"meshflow/kek-file/v1\0" + kek_id.encode() + b"\0" + held[:32]
    assert held[32:] == sha256(named).digest()
    return held[:32]


async def independently_verified(live: LiveServer, run_id: str) -> tuple[int, str] | None:
    """What somebody with the database and the key directory finds, without code of ours."""
    connection = await connect(live.roles.superuser)
    try:
        row = await connection.fetchrow(
            "SELECT tenant_id, kek_id, wrapped FROM run_key WHERE run_id = $1", run_id
        )
        tenant = row["tenant_id"].hex
        read = await independent_reader.read_run(connection, tenant, run_id)
    finally:
        await connection.close()
    key = independent_reader.unwrap_run_key(
        kek_of(live, row["kek_id"]), row["wrapped"], bytes.fromhex(tenant), bytes.fromhex(run_id)
    )
    without, found = (independent_verifier.verify_run(*read, with_key) for with_key in (None, key))
    assert without in {None, found} or found is None
    return found


def verified_by_the_application(live: LiveServer, run_id: str) -> int | None:
    """The seq of the break that GET names, or None."""
    with live.client("audit") as client:
        answer = client.get(f"/v1/runs/run_{run_id}/verification").raise_for_status().json()
    if answer["verdict"] == "valid":
        return None
    seq: int = answer["break"]["seq"]
    return seq


def test_a_real_run_verifies_without_any_code_of_the_application(live: LiveServer) -> None:
    run_id = finished_run(live)
    assert asyncio.run(independently_verified(live, run_id)) is None
    assert verified_by_the_application(live, run_id) is None


ONE_BYTE = "set_byte({0}, length({0}) / 2, get_byte({0}, length({0}) / 2) # 1)"
OF_RECORD = "WHERE run_id = $1 AND seq = $2"
OF_BATCH = (
    "WHERE batch_id = (SELECT batch_id FROM record WHERE run_id = $1 AND seq = $2)"
    " AND tenant_id = (SELECT tenant_id FROM runs WHERE run_id = $1)"
)


async def turn_one_bit(live: LiveServer, table: str, column: str, run_id: str, seq: int) -> None:
    """A database administrator, who takes the guards away first."""
    where = OF_BATCH if table == "batch" else OF_RECORD
    turned = ONE_BYTE.format(column)
    connection = await connect(live.roles.superuser)
    try:
        await connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER ALL")
        done = await connection.execute(
            f"UPDATE {table} SET {column} = {turned} WHERE (tableoid, ctid) ="
            f" (SELECT tableoid, ctid FROM {table} {where} LIMIT 1)",
            run_id,
            seq,
        )
    finally:
        await connection.close()
    assert done == "UPDATE 1"


@pytest.mark.parametrize(
    ("table", "column", "seq"),
    [
        ("record", "header", 3),
        ("record", "rc", 0),
        ("record", "chain", 4),
        ("payload", "blob", 2),
        ("batch", "sig", 3),
        ("batch", "tip", 4),
        ("batch", "ranges", 3),
    ],
)
def test_one_turned_bit_is_named_at_the_same_record_by_both(
    live: LiveServer, table: str, column: str, seq: int
) -> None:
    run_id = finished_run(live)
    asyncio.run(turn_one_bit(live, table, column, run_id, seq))
    found = asyncio.run(independently_verified(live, run_id))
    assert found is not None
    assert found[0] == verified_by_the_application(live, run_id)
    if table != "batch":  # a batch is named at its first record
        assert found[0] == seq
