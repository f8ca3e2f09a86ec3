"""Vectors of what keys sign besides notes: certificates, rotations, erasures, entry proofs."""

import json
from collections.abc import Callable
from dataclasses import replace

from scripts.vector_keys import (
    FIRST,
    KEYS,
    OPERATOR,
    OPERATOR_ADMIN,
    ORIGIN,
    RUN,
    SECOND,
    TENANT,
    WRITERS,
    certificate,
    rotation,
    statement,
    statement_note,
)
from scripts.vector_parts import (
    Json,
    JsonObject,
    Log,
    Made,
    Run,
    b64,
    canonical,
    checkpoint_text,
    flipped,
    lp,
    t,
    u64,
    vector,
)

Change = Callable[[JsonObject], JsonObject]


def bit_wrong(name: str, bit: int = 13) -> Change:
    """A member in hex with one bit the other way."""

    def change(value: JsonObject) -> JsonObject:
        return value | {name: flipped(bytes.fromhex(str(value[name])), bit).hex()}

    return change


def certificates() -> list[JsonObject]:
    """What the enrolment key signs for a writer."""
    made: list[JsonObject] = []
    for number, (writer, key) in enumerate(WRITERS.items()):
        given: JsonObject = {
            "enrolment": KEYS["enrolment"].public.hex(),
            "writer_id": writer.hex(),
            "public_key": key.public.hex(),
        }
        out: JsonObject = {"certificate": certificate(writer).hex()}
        made.append(vector(f"writer {number}", given, out))
        wrong = bit_wrong("certificate", 200 + number)(out)
        made.append(vector(f"writer {number}, one bit wrong", given, wrong, valid=False))
    stranger: JsonObject = {"certificate": certificate(writer, "strange enrolment").hex()}
    made.append(vector("by another enrolment key", given, stranger, valid=False))
    small: JsonObject = given | {"enrolment": (b"\x01" + bytes(31)).hex()}
    anything: JsonObject = {"certificate": (b"\x01" + bytes(63)).hex()}
    made.append(vector("by a key of small order", small, anything, valid=False))
    other = given | {"writer_id": FIRST.hex()}
    made.append(vector("of another writer id", other, out, valid=False))
    return made


def rotations() -> list[JsonObject]:
    """Notes of key.rotated records; both keys sign."""
    made: list[JsonObject] = []
    for role in ("log", "erasure", "enrolment"):
        note = rotation(role, {TENANT.hex(): 17, OPERATOR.hex(): 2**40})
        made.append(vector(role, {}, {"note": note}))
        for name in ("old_signature", "new_signature"):
            wrong = bit_wrong(name)(note)
            what = f"{role}, one bit of {name} wrong"
            made.append(vector(what, {}, {"note": wrong}, valid=False))
    changed: dict[str, JsonObject] = {
        "another size": {"sizes": {TENANT.hex(): 18, OPERATOR.hex(): 2**40}},
        "another role": {"role": "log"},
        "the keys the other way round": {
            "old": note["new"],
            "new": note["old"],
            "old_signature": note["new_signature"],
            "new_signature": note["old_signature"],
        },
        "a member too many": {"at": 1},
    }
    made += [vector(what, {}, {"note": note | more}, valid=False) for what, more in changed.items()]
    signed = {
        "an unknown role, well signed": rotation("log", {}, "drop"),
        "a key into itself, well signed": rotation("log", {}, new="log"),
    }
    made += [vector(what, {}, {"note": wrong}, valid=False) for what, wrong in signed.items()]
    without = {name: value for name, value in note.items() if name != "old_signature"}
    made.append(vector("without the old key's signature", {}, {"note": without}, valid=False))
    return made


def retirements() -> list[JsonObject]:
    """key.retired, and whether a record of the writer at an index of a log is lawful."""
    note: JsonObject = {"writer_id": FIRST.hex(), "sizes": {TENANT.hex(): 10}}
    made: list[JsonObject] = []
    for what, writer, log, index, valid in (
        ("the last index", FIRST, TENANT, 9, True),
        ("the index after it", FIRST, TENANT, 10, False),
        ("another writer", SECOND, TENANT, 10, True),
        ("the first record in a log that is not listed", FIRST, OPERATOR, 0, False),
    ):
        given: JsonObject = {"writer_id": writer.hex(), "log": log.hex(), "index": index}
        made.append(vector(what, given, {"note": note}, valid=valid))
    unsized: dict[str, Json] = {"a size below zero": -1, "a size that is text": "10"}
    for what, size in unsized.items():
        wrong: JsonObject = note | {"sizes": {TENANT.hex(): size}}
        made.append(vector(what, given, {"note": wrong}, valid=False))
    return made


def _records() -> list[Made]:
    run = Run(log=TENANT, run=RUN)
    run.add("run.submitted", {"task": b'"a"'}, FIRST)
    run.add("run.finished", {"output": b'"b"', "note": b'"c"'}, FIRST)
    return run.records


def erasures() -> list[JsonObject]:
    """Notes of erasure records."""
    made: list[JsonObject] = []
    given: JsonObject = {"erasure": KEYS["erasure"].public.hex()}
    text = checkpoint_text(ORIGIN, 2, bytes(range(32)))
    note = f"{text}\n{KEYS['log'].line(ORIGIN, text)}"
    gone = {1: ["note", "output"]}
    for action, checkpoint in (
        ("anonymize_run", note),
        ("delete_run", None),
        ("delete_tenant", note),
    ):
        said = statement(action, _records(), gone, checkpoint)
        signed = statement_note(said)
        made.append(vector(action, given, {"note": signed}))
        for name in ("signature", "key"):
            what = f"{action}, one bit of {name} wrong"
            made.append(vector(what, given, {"note": bit_wrong(name)(signed)}, valid=False))
        at = str(signed["statement"]).replace("2026-08-02", "2026-08-03")
        moved = {"note": signed | {"statement": at}}
        made.append(vector(f"{action}, another time", given, moved, valid=False))
    said = statement("anonymize_run", _records(), gone, note)
    items: Json = json.loads(canonical(said["items"]))
    backwards: Json = list(reversed(items)) if isinstance(items, list) else None
    changed: dict[str, JsonObject] = {
        "version 2": {"v": 2},
        "an action that is none": {"action": "forget_run"},
        "no run": {"run": None},
        "no items": {"items": None},
        "an empty list of items": {"items": []},
        "items out of order": {"items": backwards},
        "a legal basis in prose": {"legal_basis": "because they asked"},
        "a time that is none": {"at": "2026-08-02T00:00:00Z"},
        "a request in clear": {"request_ref": "ticket 77"},
        "a checkpoint of another log": {"checkpoint": note.replace(TENANT.hex(), OPERATOR.hex())},
        "a member too many": {"reason": "x"},
    }
    for what, more in changed.items():
        wrong = statement_note(said | more)
        made.append(vector(f"{what}, well signed", given, {"note": wrong}, valid=False))
    strange = {"note": statement_note(said, "strange erasure")}
    made.append(vector("signed by another key", given, strange, valid=False))
    spaced = canonical(said).replace(b":", b": ", 1)
    signature = KEYS["erasure"].sign(t("erasure") + spaced)
    loose = statement_note(said) | {"statement": spaced.decode(), "signature": signature.hex()}
    made.append(vector("not canonical, well signed", given, {"note": loose}, valid=False))
    return made


def entries() -> list[JsonObject]:
    """Entry proofs of records of the operator's administration run."""
    log, run = Log(log=OPERATOR), Run(log=OPERATOR, run=OPERATOR_ADMIN)
    note: JsonObject = {
        "writer_id": FIRST.hex(),
        "public_key": WRITERS[FIRST].public.hex(),
        "certificate": certificate(FIRST).hex(),
    }
    records = [run.note("admin.opened", {}, SECOND), run.note("key.writer", note, SECOND)]
    log.add(*records)
    log.add(run.note("schema.change", {"from": None, "to": "0005"}, SECOND))
    given: JsonObject = {"size": 3, "root": log.root(3).hex()}
    made: list[JsonObject] = []
    for record in records:
        proof = log.entry_proof(run, record, 3)
        name = str(record.members["kind"])
        made.append(vector(name, given, {"entry": proof, "kind": name}))
        value = flipped(record.fields["note"][1], 0)
        changed: dict[str, JsonObject] = {
            "one bit of the value wrong": {"value": b64(value)},
            "one bit of the salt wrong": bit_wrong("salt")(proof),
            "one bit of the header wrong": {"header": b64(flipped(record.header, 400))},
            "one bit of previous wrong": bit_wrong("previous")(proof),
            "another index": {"index": 2},
            "another size": {"size": 4},
            "another run": {"run": RUN.hex()},
            "another field": {"field": 6},
        }
        made += [
            vector(f"{name}, {what}", given, {"entry": proof | more, "kind": name}, valid=False)
            for what, more in changed.items()
        ]
    made += _forged_entries(note)
    rooted = bit_wrong("root")(given)
    out: JsonObject = {"entry": proof, "kind": name}
    made.append(vector("under another root", rooted, out, valid=False))
    return made


def _forged_entries(note: JsonObject) -> list[JsonObject]:
    """Entries whose hashes fit, and that break one rule each."""
    value = {"note": canonical(note)}
    plain = Run(log=OPERATOR, run=OPERATOR_ADMIN)
    plain.note("admin.opened", {}, SECOND)
    two = plain.add("key.writer", value | {"task": b"1"}, SECOND)
    sized = plain.add("key.writer", value, SECOND, size={"note": 1})
    loose = plain.add("key.writer", {"note": json.dumps(note, indent=1).encode()}, SECOND)
    elsewhere = Run(log=OPERATOR, run=RUN)
    elsewhere.note("admin.opened", {}, SECOND)
    moved = replace_leaf(elsewhere.add("key.writer", value, SECOND), OPERATOR_ADMIN)
    late = Run(log=OPERATOR, run=OPERATOR_ADMIN, genesis=bytes(32))
    first = late.add("key.writer", value, SECOND)
    made: list[JsonObject] = []
    for what, record in {
        "two fields": two,
        "a size that is not the value's": sized,
        "a value that is not canonical": loose,
        "a header of another run": moved,
        "a first record that follows from nothing": first,
    }.items():
        log = Log(log=OPERATOR)
        log.add(record)
        proof = log.entry_proof(plain, record, 1)
        given: JsonObject = {"size": 1, "root": log.root(1).hex()}
        out: JsonObject = {"entry": proof, "kind": "key.writer"}
        made.append(vector(what, given, out, valid=False))
    return made


def replace_leaf(record: Made, run: bytes) -> Made:
    """The same record in the log under another run's name."""
    leaf = t("leaf") + lp(OPERATOR) + lp(run) + u64(record.seq) + record.chain
    return replace(record, leaf=leaf)
