"""Policies as they are written: closed, with one digest, refused in every part that is amiss."""

import json

import pytest

from app.bundles.bundle_loading import LoadedPolicy
from app.bundles.policy_document import MAX_DOCUMENT_BYTES
from app.domain.errors import PolicyRefusedError
from app.domain.mode import Mode
from app.domain.verdict import Verdict
from app.policy.decide import decide
from tests.support.policy_words import LOADER, call, rule, written

TOML = b"""
id = "office"
description = "No note after three."
default_mode = "strict"
hosts = ["b.example.com", "*.a.example.com"]

[rules."r3.recipient"]
verdict = "deny"
grounds = ["instruction", "capability"]

[[tenant_rules]]
id = "own.no-fourth-note"
point = "tool.call"
when = 'tool.name == "send_note" && tool.calls_made >= 3'
verdict = "deny"
reason = "own:too_many"
owasp = "ASI02"

[[golden]]
name = "a-fourth-note"
verdict = "deny"
[golden.features]
point = "tool.call"
[golden.features.tool]
name = "send_note"
effect = "write"
calls_made = 3
"""


def read(data: bytes, *, policy_id: str | None = None) -> LoadedPolicy:
    return LOADER.read(data, is_toml=False, policy_id=policy_id)


def refused(data: bytes, *, is_toml: bool = False) -> dict[str, str]:
    with pytest.raises(PolicyRefusedError) as raised:
        LOADER.read(data, is_toml=is_toml)
    return {part.pointer: part.reason for part in raised.value.parts}


def test_a_policy_in_toml_becomes_a_bundle() -> None:
    bundle = LOADER.read(TOML, is_toml=True).bundle
    assert (bundle.policy_id, bundle.default_mode) == ("office", Mode.STRICT)
    assert bundle.hosts == {"b.example.com", "*.a.example.com"}
    assert bundle.parameters("r3.recipient").verdict is Verdict.DENY
    said = decide(call(calls_made=3), bundle)
    assert (said.verdict, said.rules, said.code) == (
        Verdict.DENY,
        ("own.no-fourth-note",),
        "own:too_many",
    )
    assert decide(call(calls_made=2), bundle).verdict is Verdict.ALLOW


def test_one_policy_has_one_digest_however_it_is_spelled() -> None:
    first = LOADER.read(TOML, is_toml=True)
    again = json.loads(first.canonical)
    shuffled = json.dumps(dict(reversed(again.items())), indent=2).encode()
    assert read(shuffled).bundle.digest == first.bundle.digest
    by_default = {**again, "limits": {}, "hosts": list(reversed(again["hosts"]))}
    assert read(json.dumps(by_default).encode()).bundle.digest == first.bundle.digest
    other = {**again, "description": "Something else."}
    assert read(json.dumps(other).encode()).bundle.digest != first.bundle.digest


def test_what_was_stored_reads_back_as_the_same_bundle() -> None:
    first = LOADER.read(TOML, is_toml=True)
    stored = LOADER.stored(first.canonical, 7)
    assert stored.document == first.document
    assert (stored.bundle.version, stored.bundle.digest) == (7, first.bundle.digest)


def test_the_place_says_the_id_and_the_document_does_not_contradict_it() -> None:
    assert read(written(), policy_id="office").bundle.policy_id == "office"
    assert read(written(id="office"), policy_id="office").bundle.policy_id == "office"
    with pytest.raises(PolicyRefusedError) as raised:
        read(written(id="default"), policy_id="office")
    assert [part.pointer for part in raised.value.parts] == ["/id"]


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"colour": "red"}, "/colour"),
        ({"id": "Bad Name"}, "/id"),
        ({"default_mode": "lenient"}, "/default_mode"),
        ({"hosts": ["localhost"]}, "/hosts/0"),
        ({"hosts": ["https://a.example.com/"]}, "/hosts/0"),
        ({"limits": {"patience": 3}}, "/limits/patience/[key]"),
        ({"rules": {"r99.nothing": {}}}, "/rules/r99.nothing/[key]"),
        ({"rules": {"r3.recipient": {"verdict": "allow"}}}, "/rules/r3.recipient/verdict"),
        ({"rules": {"r3.recipient": {"grounds": ["hearsay"]}}}, "/rules/r3.recipient/grounds/0"),
        ({"rules": {"r1.schema": {"verdict": "redact"}}}, ""),
        ({"rules": {"r2.capability": {"verdict": "require_approval"}}}, ""),
        ({"rules": {"r11.budget": {"verdict": "redact"}}}, ""),
        ({"tenant_rules": [rule("true", verdict="allow")]}, "/tenant_rules/0/verdict"),
        ({"tenant_rules": [rule("true", reason="no reason")]}, "/tenant_rules/0/reason"),
        ({"tenant_rules": [rule("true", reason="gate_error:mine")]}, "/tenant_rules/0"),
        ({"tenant_rules": [rule("true", rule_id="r3.recipient")]}, "/tenant_rules/0"),
        ({"tenant_rules": [rule("true", point="tool.maybe")]}, "/tenant_rules/0/point"),
        ({"tenant_rules": [rule("true"), rule("false")]}, ""),
        ({"tenant_rules": [rule("tool.nme == 'x'")]}, "/tenant_rules/0/when"),
        ({"golden": [{"name": "a", "features": {}, "verdict": "deny"}]}, "/golden/0/features"),
        (
            {"golden": [{"name": "a", "features": {"point": "nowhere"}, "verdict": "deny"}]},
            "/golden/0/features",
        ),
    ],
)
def test_what_is_amiss_is_told_with_its_place(members: dict[str, object], pointer: str) -> None:
    assert pointer in refused(written(**members))


@pytest.mark.parametrize(
    ("data", "is_toml"),
    [
        (b"{", False),
        (b"\xff\xfe", False),
        (b"\xff\xfe", True),
        (b"id = ", True),
        (b'{"id": "a", "id": "b"}', False),
        (b'{"limits": {"effects": NaN}}', False),
        (b"[" * 5_000 + b"]" * 5_000, False),
        (b" " * (MAX_DOCUMENT_BYTES + 1), False),
    ],
)
def test_what_cannot_be_read_at_all_is_refused(data: bytes, *, is_toml: bool) -> None:
    assert "" in refused(data, is_toml=is_toml)


def test_a_document_that_is_no_object_or_holds_broken_text_is_refused() -> None:
    assert refused(b"[]")
    assert refused(b'{"description": "\\ud800"}')
    case = b'{"golden": [{"name": "a", "verdict": "deny", "features": {"point": "\\ud800"}}]}'
    assert refused(case)


def test_what_is_refused_is_not_repeated() -> None:
    told = refused(written(description=["sk-ant-secret"], tenant_rules=[{"when": "sk-ant-secret"}]))
    assert "sk-ant-secret" not in str(told)


def test_every_part_that_is_amiss_is_told_at_once() -> None:
    rules = [rule(f"tool.part{n} == 1", rule_id=f"own.{n}") for n in range(3)]
    assert set(refused(written(tenant_rules=rules))) == {
        f"/tenant_rules/{n}/when" for n in range(3)
    }


def test_a_policy_that_does_not_keep_its_golden_cases_is_refused() -> None:
    case = {"name": "noted", "features": call(calls_made=3).to_json(), "verdict": "deny"}
    kept = rule("tool.calls_made >= 3")
    assert read(written(tenant_rules=[kept], golden=[case])).bundle.golden[0].name == "noted"
    inverted = rule("tool.calls_made < 3")
    told = refused(written(tenant_rules=[inverted], golden=[case]))
    assert told == {"/golden/0": "wants deny, is allow (allow)"}


def test_a_rule_that_has_no_answer_to_a_golden_case_of_its_point_is_refused() -> None:
    case = {"name": "noted", "features": call().to_json(), "verdict": "deny"}
    told = refused(written(tenant_rules=[rule("output.has_secret")], golden=[case]))
    assert told == {"/tenant_rules/0/when": "noted: condition"}


def test_a_golden_case_may_leave_out_what_is_as_in_an_empty_record() -> None:
    case = {"name": "quiet", "features": {"point": "run.output", "output": {}}, "verdict": "allow"}
    question = read(written(golden=[case], default_mode="strict")).bundle.golden[0].question
    assert question.mode is Mode.STRICT
    assert question.output is not None
    assert question.output.fits_schema
