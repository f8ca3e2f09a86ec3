"""Whoever changes a bundle and makes its manifest fit again is told apart from nobody doing so.

The plain bundle has exactly the cosignatures that the quorum needs, so no byte of it is spare.
"""

import base64
import json
import random  # noqa: TID251  # seeded, so that a failure comes back
from typing import Any

import pytest

from app.offline.offline_policy import parse_policy
from app.offline.offline_report import Result
from app.offline.offline_verdict import verify_bundle
from app.offline.strict_json import UnusableError
from scripts.vector_bundles import NAMES, tar_of, with_manifest
from scripts.vector_keys import policy_text
from tests.support.published_bundles import bundle_vectors, members_named, tar_named

POLICY = parse_policy(policy_text().encode())
ODD: list[Any] = [None, True, -1, 2**53, 1.5, "", "\u0000", [], {}, [[[[[[[[]]]]]]]], {"a": 1}]
FILES = [name for name in NAMES if name != "manifest.json"]
WHOLE_BASES = [
    name
    for name, vector in bundle_vectors().items()
    if vector["output"]["exit"] == 0 and "base" not in vector["output"]
]


def result_of(members: dict[str, bytes]) -> Result:
    try:
        return verify_bundle(tar_of(members), POLICY).result
    except UnusableError:
        return Result.UNUSABLE


def test_the_plain_bundle_holds() -> None:
    assert result_of(members_named("plain")) is Result.VALID


@pytest.mark.parametrize("name", [name for name in FILES if name != "administration.jsonl"])
def test_no_turned_bit_of_a_file_is_let_through(name: str) -> None:
    whole = members_named("plain")
    chance = random.Random(f"bits of {name}")
    for _ in range(60):
        turned = bytearray(whole[name])
        at = chance.randrange(len(turned))
        turned[at] ^= 1 << chance.randrange(8)
        changed = with_manifest(whole | {name: bytes(turned)})
        assert result_of(changed) is not Result.VALID, (name, at)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(("jsonl", "json"))])
@pytest.mark.parametrize("base", ["plain", "deleted", "shared batch", "rotated, old pins"])
def test_no_member_of_a_row_may_be_something_odd(base: str, name: str) -> None:
    whole = members_named(base)
    lines = whole[name].decode().splitlines()
    for at, line in enumerate(lines[:2]):
        row = json.loads(line)
        for member, odd in [(m, o) for m in row or () for o in ODD if o != row[m]]:
            spoiled = json.dumps(row | {member: odd}, separators=(",", ":"), sort_keys=True)
            text = "\n".join([*lines[:at], spoiled, *lines[at + 1 :]]) + "\n"
            changed = with_manifest(whole | {name: text.encode()})
            assert result_of(changed) in {Result.TAMPERED, Result.INCOMPLETE}, (member, odd)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "junk",
    [
        b"\n",
        b"\n\n\n",
        b"null\n",
        b"{}\n",
        b"[]\n",
        b"NaN\n",
        b"1" * 5000 + b"\n",
        b"[" * 50_000 + b"\n",
        b'{"a":' * 20_000 + b"\n",
        b'{"seq":0,"seq":0}\n',
        b"\xff\xfe\n",
        "\ufeff{}\n".encode(),
        b'"\\ud800"\n',
        b"{}",
        b"\xe2\x80\x94 a b\n" * 1000,
        b"a\n\n" * 10_000,
    ],
    ids=range(16),
)
def test_junk_in_place_of_a_file_is_never_let_through(name: str, junk: bytes) -> None:
    changed = with_manifest(members_named("plain") | {name: junk})
    if changed != members_named("plain"):
        assert result_of(changed) in {Result.TAMPERED, Result.INCOMPLETE}


@pytest.mark.parametrize("name", WHOLE_BASES)
def test_without_a_policy_no_bundle_is_valid(name: str) -> None:
    report = verify_bundle(tar_named(name), None)
    assert report.result is Result.INCOMPLETE
    assert (report.witnessed, report.witnessed_at) == (0, None)


def test_a_million_lines_that_say_nothing_are_not_all_read() -> None:
    for name in FILES:
        changed = with_manifest(members_named("plain") | {name: b"{}\n" * 1_000_000})
        report = verify_bundle(tar_of(changed), POLICY)
        assert report.result is Result.TAMPERED
        assert sum(found.where == name for found in report.findings) <= 100, name


def test_another_run_under_the_manifest_does_not_hold() -> None:
    whole = members_named("plain")
    for name in ("log", "run"):
        manifest = json.loads(whole["manifest.json"])
        manifest[name] = "0" * 32
        text = json.dumps(manifest, separators=(",", ":"), sort_keys=True) + "\n"
        assert result_of(whole | {"manifest.json": text.encode()}) is Result.TAMPERED


def test_a_batch_that_claims_four_thousand_million_records_costs_nothing() -> None:
    whole = members_named("plain")
    rows = [json.loads(line) for line in whole["batches.jsonl"].splitlines()]
    ranges = base64.b64decode(rows[0]["ranges"])
    huge = ranges[:24] + (2**32 - 2).to_bytes(8, "big")
    rows[0] |= {"ranges": base64.b64encode(huge).decode(), "n": 2**32 - 1}
    text = "".join(json.dumps(r, separators=(",", ":"), sort_keys=True) + "\n" for r in rows)
    changed = with_manifest(whole | {"batches.jsonl": text.encode()})
    assert result_of(changed) is Result.TAMPERED
