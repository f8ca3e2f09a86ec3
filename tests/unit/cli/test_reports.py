import pytest

from app.cli.run_command import progress_line
from app.cli.verify_command import report_lines
from app.domain.run import JsonObject


def test_a_broken_ledger_is_reported_with_its_place() -> None:
    found: JsonObject = {
        "run_id": "run_1",
        "verdict": "broken",
        "entries": None,
        "head": None,
        "break": {"seq": 4, "reason": "chain"},
        "proves": [],
        "does_not_prove": ["that it is true"],
    }
    assert report_lines(found) == [
        "run      run_1",
        "verdict  broken",
        "entries  unknown",
        "head     none",
        "break    at seq 4: chain",
        "",
        "This does not show:",
        "  - that it is true",
    ]


@pytest.mark.parametrize(
    ("unwitnessed", "age", "line"),
    [
        (3, 12, ["unseen   3 records, the oldest for 12 seconds"]),
        (3, None, ["unseen   3 records"]),
        (0, 0, []),
    ],
)
def test_what_no_witness_has_seen_is_told_with_its_age(
    unwitnessed: int, age: int | None, line: list[str]
) -> None:
    found: JsonObject = {
        "run_id": "run_1",
        "verdict": "valid",
        "entries": 5,
        "head": "00",
        "break": None,
        "integrity": {"unwitnessed": unwitnessed},
        "unwitnessed_age_seconds": age,
    }
    assert report_lines(found)[4:] == line


@pytest.mark.parametrize(
    ("kind", "entry", "line"),
    [
        ("run.started", {}, "run.started"),
        ("run.finished", {"outcome": "succeeded"}, "run.finished     succeeded"),
        (
            "tool.decided",
            {"call": {"name": "write_file"}, "outcome": "capability:undeclared"},
            "tool.decided     write_file: capability:undeclared",
        ),
        ("tool.finished", {"result": {"content": "a\nb\x1b["}}, "tool.finished    a b\\x1b["),
        ("tool.finished", {"result": None, "outcome": "error"}, "tool.finished    error"),
    ],
)
def test_an_entry_is_one_safe_line(kind: str, entry: JsonObject, line: str) -> None:
    assert progress_line(kind, entry).rstrip() == line


def test_a_long_result_is_cut() -> None:
    entry: JsonObject = {"result": {"content": "x" * 500}}
    assert len(progress_line("tool.finished", entry)) == 100
