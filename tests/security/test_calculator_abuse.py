"""Hostile expressions: each ends, none runs code, and the control shows what they do elsewhere.

Threat: Privilege escalation via tool calls
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from app.tools.calculator import MAX_DIGITS
from tests.support.calculator_attack import (
    REPOSITORY,
    Arm,
    corpus,
    evaluated,
    harmed,
    payload,
)

ROWS = corpus()
# Plain arithmetic that is only much: it may have a value.
MAY_HAVE_VALUES = {row["id"] for row in ROWS if row["class"] == "work"}
MOST_GROWTH_BYTES = 32 * 1024 * 1024
_MEMBERS = {"id", "class", "engine", "payload", "oracle", "layer", "source"}
# How long `eval` is left at it: many times what the calculator needs for anything.
_CONTROL_SECONDS = 1.0 if os.getenv("MESHFLOW_PROOF") == "1" else 0.15


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside") / "canary"


@pytest.fixture(scope="module")
def arm(canary: Path) -> Arm:
    """Every row by the calculator. A hang fails here."""
    return evaluated(ROWS, canary)


def test_the_corpus_is_large_enough_and_every_row_is_whole(tmp_path: Path) -> None:
    assert len(ROWS) >= 120
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert len({payload(row, tmp_path) for row in ROWS}) == len(ROWS)
    assert all(row.keys() == _MEMBERS for row in ROWS)
    assert {row["engine"] for row in ROWS} == {"calculator"}


def test_every_expression_ends_refused_or_bounded_and_each_layer_stops_its_own(arm: Arm) -> None:
    other = {
        one.row["id"]: (one.row["layer"], one.layer)
        for one in arm.evaluated
        if one.row["layer"] != one.layer
    }
    assert other == {}
    assert all(len(one.told) <= MAX_DIGITS for one in arm.evaluated)
    assert arm.grown_bytes <= MOST_GROWTH_BYTES


def test_nothing_hostile_has_a_value_but_what_is_plain_arithmetic(arm: Arm) -> None:
    valued = {one.row["id"] for one in arm.evaluated if one.value is not None}
    assert valued <= MAY_HAVE_VALUES
    assert valued < MAY_HAVE_VALUES, "all that is only much was let through"


def test_nothing_was_written(arm: Arm, canary: Path) -> None:
    assert arm.evaluated
    assert not canary.exists()


def test_a_refusal_never_says_anything_of_the_host(arm: Arm, canary: Path) -> None:
    for one in arm.evaluated:
        for word in (str(REPOSITORY), str(canary.parent), "Traceback", "object at 0x"):
            assert word not in one.told


def test_control_plain_eval_runs_the_code_and_exhausts_the_machine(canary: Path) -> None:
    rows = [row for row in ROWS if row["oracle"]["kind"] != "ends"]
    harms = harmed(rows, canary, _CONTROL_SECONDS)
    proven = Counter(
        row["oracle"]["kind"] for row in rows if harms[row["id"]] == row["oracle"]["kind"]
    )
    print(f"of {len(ROWS)} expressions, plain eval: {dict(proven)}")
    assert proven["writes"] >= 60
    assert proven["exhausts"] >= 30
