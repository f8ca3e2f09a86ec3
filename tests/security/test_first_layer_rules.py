"""Every rule of the shipped list for Python has an attack that it alone refuses; none is idle.

The lists of the shell, of listed programs and of URLs have theirs in their own tests.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.tools.python_guard import first_objection, load_refusals

_FILE = Path(__file__).parent / "corpus" / "python_first_layer.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in _FILE.read_text().splitlines()]
SHIPPED = load_refusals(None)
_LISTS = ("names", "modules", "members", "attributes")
RULES = [(name, rule) for name in _LISTS for rule in sorted(getattr(SHIPPED, name))]


@pytest.mark.parametrize("row", ROWS, ids=[row["id"] for row in ROWS])
def test_the_attack_is_refused(row: dict[str, Any]) -> None:
    compile(row["payload"], "attack", "exec")
    objection = first_objection(row["payload"], SHIPPED)
    assert objection is not None
    assert objection.endswith(" is not allowed")


@pytest.mark.parametrize(("name", "rule"), RULES, ids=[".".join(pair) for pair in RULES])
def test_the_rule_is_what_refuses_its_attack(name: str, rule: str) -> None:
    fewer = replace(SHIPPED, **{name: getattr(SHIPPED, name) - {rule}})
    own = [row for row in ROWS if (row["list"], row["rule"]) == (name, rule)]
    assert own, "a rule without an attack: give it one, or take it out"
    assert [first_objection(row["payload"], fewer) for row in own] == [None] * len(own)


def test_a_name_between_double_underscores_needs_no_rule() -> None:
    dunder = [row for row in ROWS if row["list"] == "dunder"]
    assert {row["rule"] for row in dunder} >= {"__import__", "__builtins__", "__loader__"}
    none = replace(SHIPPED, names=frozenset())
    assert None not in [first_objection(row["payload"], none) for row in dunder]
    for name in ("__name__", "__doc__", "__file__", "__annotations__", "__debug__"):
        assert first_objection(f"print({name})", SHIPPED) is None
