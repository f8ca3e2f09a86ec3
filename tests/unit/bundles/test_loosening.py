"""What lets more pass than before is seen in the policy itself; what cannot be compared counts."""

import pytest

from app.bundles.loosening import looser_parts
from app.bundles.policy_document import PolicyDocument
from tests.support.policy_words import rule

R3, R9 = "r3.recipient", "r9.egress"


def parts(before: dict[str, object], after: dict[str, object]) -> list[str]:
    return looser_parts(PolicyDocument.model_validate(before), PolicyDocument.model_validate(after))


def of(name: str, **settings: object) -> dict[str, object]:
    return {"rules": {name: settings}}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, []),
        ({}, {"description": "other words"}, []),
        ({}, {"default_mode": "strict"}, []),
        ({}, {"default_mode": "plan"}, []),
        ({"default_mode": "strict"}, {}, ["mode"]),
        ({"default_mode": "strict"}, {"default_mode": "plan"}, ["mode"]),
        ({}, {"default_mode": "observe"}, ["mode"]),
        ({"hosts": ["a.example.com"]}, {}, []),
        ({}, {"hosts": ["a.example.com"]}, ["hosts"]),
        ({"limits": {"effects": 3}}, {"limits": {"effects": 2}}, []),
        ({"limits": {"effects": 3}}, {"limits": {"effects": 4}}, ["limit:effects"]),
        ({"limits": {"effects": 3}}, {}, ["limit:effects"]),
        ({}, {"limits": {"effects": 9}}, []),
        ({}, {"limits": {"quarantine_per_mille": 900}}, ["limit:quarantine_per_mille"]),
        ({}, of(R3, verdict="deny"), []),
        ({}, of(R3, verdict="redact"), [f"rule:{R3}"]),
        (of(R3, verdict="deny"), {}, [f"rule:{R3}"]),
        (of(R3, verdict="require_approval"), of(R3, verdict="deny"), []),
        (of(R3, verdict="deny"), of(R3, verdict="require_approval"), [f"rule:{R3}"]),
        ({}, of(R3, grounds=["instruction"]), []),
        ({}, of(R3, grounds=["instruction", "seen"]), [f"rule:{R3}"]),
        (of(R3, grounds=["instruction", "trusted"]), of(R3, grounds=["trusted"]), []),
        (of(R3, grounds=["trusted"]), of(R3, grounds=["trusted", "seen"]), [f"rule:{R3}"]),
        (of(R3, grounds=["trusted"]), of(R3), [f"rule:{R3}"]),
        (of(R3, limit=3), of(R3, limit=2), []),
        (of(R3, limit=3), of(R3, limit=4), [f"rule:{R3}"]),
        (of(R3, limit=3), of(R3), [f"rule:{R3}"]),
        ({}, of(R9, allows_seen_urls=True), [f"rule:{R9}"]),
        (of(R9, allows_seen_urls=True), {}, []),
        ({}, of(R9, undeclared="allow"), [f"rule:{R9}"]),
        ({}, {"tenant_rules": [rule("true")]}, []),
        ({"tenant_rules": [rule("true")]}, {}, ["rule:own.rule"]),
        ({"tenant_rules": [rule("true")]}, {"tenant_rules": [rule("false")]}, ["rule:own.rule"]),
        (
            {"tenant_rules": [rule("true")]},
            {"tenant_rules": [rule("true", point="run.output")]},
            ["rule:own.rule"],
        ),
        (
            {"tenant_rules": [rule("true")]},
            {"tenant_rules": [rule("true", verdict="require_approval")]},
            ["rule:own.rule"],
        ),
        (
            {"tenant_rules": [rule("true", verdict="redact")]},
            {"tenant_rules": [rule("true", verdict="deny", reason="own:other")]},
            [],
        ),
    ],
)
def test_a_looser_part_is_named(
    before: dict[str, object], after: dict[str, object], expected: list[str]
) -> None:
    assert parts(before, after) == expected
