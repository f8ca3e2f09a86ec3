"""Forged bundles of a deleted run, made from what whoever saw it before and after has."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

from app.audit.bundle_tar import bundle_bytes

RECORDS, ADMINISTRATION = "records.jsonl", "administration.jsonl"
Members = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """A run's bundle before and after it was deleted, and one of another deleted run."""

    before: bytes
    after: bytes
    other: bytes


def members_of(bundle: bytes) -> Members:
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        found = {item.name: tar.extractfile(item) for item in tar.getmembers()}
        return {name: file.read() for name, file in found.items() if file is not None}


def packed(members: Members) -> bytes:
    """A bundle of these members that says of itself what they are."""
    told = json.loads(members["manifest.json"])
    rest = {name: data for name, data in members.items() if name != "manifest.json"}
    return bundle_bytes(bytes.fromhex(told["log"]), bytes.fromhex(told["run"]), rest)


def _without_statement(made: Remains) -> Members:
    return {**members_of(made.after), ADMINISTRATION: b""}


def _with_another_statement(made: Remains) -> Members:
    return {**members_of(made.after), ADMINISTRATION: members_of(made.other)[ADMINISTRATION]}


def _with_a_header(made: Remains) -> Members:
    old, new = members_of(made.before)[RECORDS], members_of(made.after)
    lines = [old.splitlines()[0], *new[RECORDS].splitlines()[1:]]
    row, now = json.loads(lines[0]), json.loads(new[RECORDS].splitlines()[0])
    row["proof"] = now["proof"]
    lines[0] = json.dumps(row, sort_keys=True, separators=(",", ":")).encode()
    return {**new, RECORDS: b"\n".join([*lines, b""])}


def _with_contents(made: Remains) -> Members:
    old = members_of(made.before)["payloads.jsonl"]
    return {**members_of(made.after), "payloads.jsonl": old}


def _without_its_end(made: Remains) -> Members:
    new = members_of(made.after)
    return {**new, RECORDS: b"\n".join([*new[RECORDS].splitlines()[:-1], b""])}


def _with_another_record(made: Remains) -> Members:
    new = members_of(made.after)
    lines = new[RECORDS].splitlines()
    row = json.loads(lines[0])
    row["rc"] = "00" * 32
    lines[0] = json.dumps(row, sort_keys=True, separators=(",", ":")).encode()
    return {**new, RECORDS: b"\n".join([*lines, b""])}


def _headers_taken_without_a_word(made: Remains) -> Members:
    new = members_of(made.after)
    old = members_of(made.before)
    rows = [json.loads(line) for line in old[RECORDS].splitlines()]
    for row in rows:
        row.update(header=None, epoch=None, kind=None, ts=None)
    lines = [json.dumps(row, sort_keys=True, separators=(",", ":")).encode() for row in rows]
    assert new[RECORDS]
    return {**old, "payloads.jsonl": b"", RECORDS: b"\n".join([*lines, b""])}


FORGERIES: list[Callable[[Remains], Members]] = [
    _without_statement,
    _with_another_statement,
    _with_a_header,
    _with_contents,
    _without_its_end,
    _with_another_record,
    _headers_taken_without_a_word,
]
