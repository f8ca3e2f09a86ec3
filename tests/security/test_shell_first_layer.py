"""The first layer of the tool `shell` against its corpus: what it refuses, misses and lets through.

It is a first layer and no boundary: rows that it misses are kept and counted, for a page that told
only of what is refused would promise too much. What the security policy names is refused in all
spellings.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from app.tools.shell_guard import load_shell_refusals, refused

CORPUS = Path(__file__).parent / "corpus" / "shell_first_layer.jsonl"
ROWS: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text().splitlines()]
SHIPPED = load_shell_refusals(None)
_SEED = {"rm -rf", "sudo", "chmod", "curl", "pipe to a shell"}
_MEMBERS = {"id", "class", "seed", "payload", "verdict", "source"}


def _rows(verdict: str) -> list[dict[str, Any]]:
    return [row for row in ROWS if row["verdict"] == verdict]


def test_the_corpus_is_large_enough_and_every_row_is_whole() -> None:
    assert len(_rows("refused")) + len(_rows("missed")) >= 150
    assert len(_rows("passes")) >= 60
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    assert all(row.keys() == _MEMBERS for row in ROWS)
    assert {row["verdict"] for row in ROWS} == {"refused", "missed", "passes"}


@pytest.mark.parametrize("pattern", sorted(_SEED))
def test_the_patterns_of_the_policy_are_refused_in_every_spelling(pattern: str) -> None:
    rows = [row for row in ROWS if row["seed"] == pattern]
    assert len(rows) >= 60
    assert [row["payload"] for row in rows if refused(row["payload"], SHIPPED) is None] == []


def test_what_is_refused_is_told_in_sentences_of_a_closed_set() -> None:
    told = {row["id"]: refused(row["payload"], SHIPPED) for row in _rows("refused")}
    assert {row_id for row_id, sentence in told.items() if sentence is None} == set()
    assert {sentence for sentence in told.values() if sentence} <= SHIPPED.sentences()


def test_what_is_missed_is_known() -> None:
    missed, refusals = _rows("missed"), _rows("refused")
    held = [row["id"] for row in missed if refused(row["payload"], SHIPPED) is not None]
    assert held == [], "refused by now: say so in the corpus"
    print(
        f"the first layer refuses {len(refusals)} of {len(refusals) + len(missed)} hostile commands"
    )


def test_everyday_commands_pass() -> None:
    told = {row["payload"]: refused(row["payload"], SHIPPED) for row in _rows("passes")}
    assert {payload: why for payload, why in told.items() if why is not None} == {}


def test_the_page_tells_the_rate_that_the_corpus_has() -> None:
    missed, refusals = len(_rows("missed")), len(_rows("refused"))
    page = (Path(__file__).parents[2] / "docs" / "operations" / "sandbox.md").read_text()
    share = 100 * refusals / (refusals + missed)
    assert (
        f"{refusals + missed:,} hostile commands: {refusals:,} are refused ({share:.1f} %)" in page
    )
    assert f"{missed} are known and missed" in page
    assert f"All of {len(_rows('passes'))} everyday commands pass" in page
