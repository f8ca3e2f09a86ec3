"""The vectors of sections 9 to 13 hold for everybody who reads the format.

`SIDES` names the readers: a new one adds a row with the kinds it understands, and is then held to
the same files.

Threat: Ledger tampering
"""

import json
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from app.offline import (
    offline_entries,
    offline_erasures,
    offline_headers,
    offline_keys,
    offline_merkle,
    offline_notes,
    offline_policy,
    offline_verdict,
)
from app.offline.strict_json import BrokenError, UnusableError
from app.transparency import (
    checkpoint,
    log_proof,
    merkle_tree,
    note,
    tiles,
    witness_policy,
)
from scripts import make_log_vectors
from tests.architecture.source_tree import imports, parsed
from tests.support.published_bundles import bundle_vectors, tar_named

VECTORS = Path(__file__).parent / "vectors"
Members = Mapping[str, Any]
Agrees = Callable[[Members, Members], bool]


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def path_of(output: Members) -> list[bytes]:
    return [raw(item) for item in output["proof"]]


def vkeys(given: Members) -> list[offline_notes.VerifierKey]:
    return [offline_notes.parse_vkey(text) for text in given["vkeys"]]


# --- what the offline verifier says ----------------------------------------------------------


def offline_leaf(i: Members, o: Members) -> bool:
    data = offline_headers.leaf_data(raw(i["log"]), raw(i["run"]), i["seq"], raw(i["chain"]))
    return [data.hex(), offline_merkle.leaf_hash(data).hex()] == [o["leaf_data"], o["leaf_hash"]]


def offline_header(_: Members, o: Members) -> bool:
    return offline_headers.read_header(raw(o["header"])).kind == "run.finished"


def offline_root(i: Members, o: Members) -> bool:
    leaves = [offline_merkle.leaf_hash(raw(entry)) for entry in i["entries"]]
    return offline_merkle.tree_root(leaves) == raw(o["root"])


def offline_inclusion(i: Members, o: Members) -> bool:
    place = (raw(i["leaf_hash"]), i["index"], i["size"])
    return offline_merkle.is_included(*place, path_of(o), raw(i["root"]))


def offline_consistency(i: Members, o: Members) -> bool:
    roots = (raw(i["old_root"]), raw(i["root"]))
    return offline_merkle.is_consistent(i["old_size"], i["size"], *roots, path_of(o))


def offline_tile(i: Members, o: Members) -> bool:
    leaves = [offline_merkle.leaf_hash(n.to_bytes(8, "big")) for n in range(i["size"])]
    span = 256 ** i["level"]
    first = i["n"] * 256 * span
    starts = [at for at in range(first, first + 256 * span, span) if at + span <= i["size"]]
    tile = b"".join(offline_merkle.tree_root(leaves[at : at + span]) for at in starts)
    return (len(starts), sha256(tile).hexdigest()) == (o["width"], o["sha256"])


def offline_note(i: Members, o: Members) -> bool:
    read = offline_notes.parse_note(o["note"].encode())
    found = [key.name for key in offline_notes.signers(read, vkeys(i))]
    return bool(found) and found == o["signed_by"]


def offline_checkpoint(i: Members, o: Members) -> bool:
    read = offline_notes.parse_checkpoint(o["note"].encode())
    told = (read.origin, read.size, read.root.hex())
    signed = offline_notes.signers(read.note, vkeys(i))
    return bool(signed) and told == (o["origin"], o["size"], o["root"])


def offline_cosignature(i: Members, o: Members) -> bool:
    read = offline_notes.parse_note(o["note"].encode())
    return [stamp for _, stamp in offline_notes.cosigners(read, vkeys(i))] == [o["cosigned_at"]]


def offline_origin(i: Members, o: Members) -> bool:
    return offline_notes.parse_origin(i["origin"]) == (o["deployment"], o["log"])


def offline_proof(i: Members, o: Members) -> bool:
    proof = offline_notes.parse_log_proof(o["proof"].encode())
    signed = offline_notes.signers(proof.checkpoint.note, vkeys(i))
    return bool(signed) and proof.includes(raw(i["entry"]))


def offline_quorum(i: Members, o: Members) -> bool:
    policy = offline_policy.parse_policy(o["policy"].encode())
    named = {key.name: key.public for key in policy.witnesses.values()}
    return policy.is_satisfied(named[name] for name in i["cosigned_by"] if name in named)


def offline_certificate(i: Members, o: Members) -> bool:
    message = offline_merkle.tag("writer") + raw(i["writer_id"]) + raw(i["public_key"])
    return offline_notes.is_signed(raw(i["enrolment"]), raw(o["certificate"]), message)


def offline_rotation(_: Members, o: Members) -> bool:
    read = offline_keys.read_rotation(o["note"])
    return (read.role, read.old.hex()) == (o["note"]["role"], o["note"]["old"])


def offline_retirement(i: Members, o: Members) -> bool:
    history = offline_keys.KeyHistory()
    history.add_retirement(offline_keys.read_retirement(o["note"]))
    end = history.retired_at(raw(i["writer_id"]), i["log"])
    return end is None or i["index"] < end


def offline_erasure(i: Members, o: Members) -> bool:
    return offline_erasures.read_statement(o["note"]).key == raw(i["erasure"])


def offline_entry(i: Members, o: Members) -> bool:
    entry = offline_entries.read_entry(o["entry"])
    placed = offline_merkle.is_included(
        entry.leaf, entry.index, i["size"], entry.path, raw(i["root"])
    )
    return placed and (entry.kind, entry.size) == (o["kind"], i["size"])


def offline_exit(name: str, i: Members) -> int:
    now, max_age = i["now"], i["max_age_seconds"]
    fresh = None if now is None else offline_verdict.Freshness(now=now, max_age=max_age)
    try:
        pinned = None if i["policy"] is None else offline_policy.parse_policy(i["policy"].encode())
        return int(offline_verdict.verify_bundle(tar_named(name), pinned, fresh).result)
    except UnusableError:
        return 4


def offline_bundle(i: Members, o: Members) -> bool:
    code = offline_exit(i["name"], i)
    assert code == o["exit"]
    return code in {0, 2}


OFFLINE: Mapping[str, Agrees] = {
    "leaf": offline_leaf,
    "header": offline_header,
    "root": offline_root,
    "inclusion": offline_inclusion,
    "consistency": offline_consistency,
    "tile": offline_tile,
    "note": offline_note,
    "checkpoint": offline_checkpoint,
    "cosignature": offline_cosignature,
    "origin": offline_origin,
    "proof": offline_proof,
    "policy": offline_quorum,
    "certificate": offline_certificate,
    "rotation": offline_rotation,
    "retirement": offline_retirement,
    "erasure": offline_erasure,
    "entry": offline_entry,
    "bundle": offline_bundle,
}

# --- what the application says ---------------------------------------------------------------


def app_keys(given: Members) -> list[note.VerifierKey]:
    return [note.VerifierKey.parse(text) for text in given["vkeys"]]


def app_root(i: Members, o: Members) -> bool:
    leaves = [merkle_tree.hash_leaf(raw(entry)) for entry in i["entries"]]
    return merkle_tree.tree_root(leaves) == raw(o["root"])


def app_inclusion(i: Members, o: Members) -> bool:
    return merkle_tree.verify_inclusion(
        leaf_hash=raw(i["leaf_hash"]),
        index=i["index"],
        size=i["size"],
        proof=path_of(o),
        root=raw(i["root"]),
    )


def app_consistency(i: Members, o: Members) -> bool:
    return merkle_tree.verify_consistency(
        old_size=i["old_size"],
        old_root=raw(i["old_root"]),
        new_size=i["size"],
        new_root=raw(i["root"]),
        proof=path_of(o),
    )


def app_tile(i: Members, o: Members) -> bool:
    leaves = [merkle_tree.hash_leaf(n.to_bytes(8, "big")) for n in range(i["size"])]
    tile = tiles.grown(0, {}, leaves)[tiles.TileAddress(level=i["level"], n=i["n"])]
    return len(tile) == 32 * o["width"] and sha256(tile).digest() == raw(o["sha256"])


def app_note(i: Members, o: Members) -> bool:
    found = note.verified(note.parse_note(o["note"].encode()), app_keys(i))
    return [key.name for key in found] == list(o["signed_by"])


def app_checkpoint(i: Members, o: Members) -> bool:
    (key,) = app_keys(i)
    found = checkpoint.open_checkpoint(o["note"].encode(), key)
    return found == checkpoint.Checkpoint(origin=o["origin"], size=o["size"], root=raw(o["root"]))


def app_cosignature(i: Members, o: Members) -> bool:
    (key,) = app_keys(i)
    found = checkpoint.verify_cosignature(note.parse_note(o["note"].encode()), key)
    return found == int(o["cosigned_at"])


def app_proof(i: Members, o: Members) -> bool:
    (key,) = app_keys(i)
    proof = log_proof.parse_proof(o["proof"].encode())
    tree = checkpoint.open_checkpoint(proof.checkpoint, key)
    return merkle_tree.verify_inclusion(
        leaf_hash=merkle_tree.hash_leaf(raw(i["entry"])),
        index=proof.index,
        size=tree.size,
        proof=proof.hashes,
        root=tree.root,
    )


def app_policy(i: Members, o: Members) -> bool:
    policy = witness_policy.parse_policy(o["policy"].encode())
    present = set(i["cosigned_by"])
    return policy.satisfied([w.name for w in policy.witnesses if w.key.name in present])


TRANSPARENCY: Mapping[str, Agrees] = {
    "root": app_root,
    "inclusion": app_inclusion,
    "consistency": app_consistency,
    "tile": app_tile,
    "note": app_note,
    "checkpoint": app_checkpoint,
    "cosignature": app_cosignature,
    "proof": app_proof,
    "policy": app_policy,
}

# Who reads the vectors, and the errors with which each refuses what is malformed.
SIDES: Mapping[str, tuple[Mapping[str, Agrees], tuple[type[Exception], ...]]] = {
    "offline": (OFFLINE, (BrokenError, UnusableError)),
    "transparency": (
        TRANSPARENCY,
        (note.NoteError, log_proof.LogProofError, witness_policy.WitnessPolicyError),
    ),
}


def published() -> Iterator[tuple[str, Members]]:
    for path in sorted((VECTORS / "log").glob("*.json")):
        for vector in json.loads(path.read_bytes())["vectors"]:
            yield path.stem, vector


ALL = list(published())
CASES = [
    (side, kind, vector)
    for side, (kinds, _) in SIDES.items()
    for kind, vector in ALL
    if kind in kinds
]


@pytest.mark.parametrize(
    ("side", "kind", "vector"), CASES, ids=[f"{s} {k}: {v['name']}" for s, k, v in CASES]
)
def test_a_vector_holds_exactly_when_it_says_so(side: str, kind: str, vector: Members) -> None:
    kinds, refusals = SIDES[side]
    try:
        holds = kinds[kind](vector["input"] | {"name": vector["name"]}, vector["output"])
    except refusals:
        holds = False
    assert holds is vector["valid"]


def test_every_kind_has_vectors_that_hold_and_twins_that_do_not() -> None:
    assert {kind for kind, _ in ALL} == OFFLINE.keys() == make_log_vectors.FILES.keys()
    for kind in OFFLINE:
        verdicts = [vector["valid"] for of, vector in ALL if of == kind]
        assert verdicts.count(False) >= verdicts.count(True) > 0, kind


def test_every_name_is_there_once() -> None:
    names = [(kind, vector["name"]) for kind, vector in ALL]
    assert len(names) == len(set(names))


def test_more_than_two_hundred_vectors_are_published() -> None:
    older = [json.loads(path.read_bytes())["vectors"] for path in VECTORS.glob("*.json")]
    assert sum(map(len, older)) + len(ALL) >= 200


def test_bundles_of_every_exit_code_are_published() -> None:
    assert {vector["output"]["exit"] for vector in bundle_vectors().values()} == {0, 2, 3, 4}


def test_the_generator_writes_the_committed_files_byte_for_byte(tmp_path: Path) -> None:
    assert make_log_vectors.main(tmp_path) == 0
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in (VECTORS / "log").iterdir()}


def test_the_generator_shares_no_code_with_the_application() -> None:
    folder = Path(make_log_vectors.__file__).parent
    waiting, seen = ["make_log_vectors"], set[str]()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for use in imports(parsed(folder / f"{name}.py")):
            assert use.name.partition(".")[0] != "app", (name, use)
            own = use.name.removeprefix("scripts.").partition(".")[0]
            if (folder / f"{own}.py").is_file() and own not in seen:
                waiting.append(own)
    assert len(seen) >= 8
