"""docs/threat-map.md is true: what it names exists, and every guard in the code stands in it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.architecture.source_tree import ROOT, parsed, python_files, relative

MAP = ROOT / "docs" / "threat-map.md"

# The rows of the security policy's threat table, and two of its chapters.
THREATS = frozenset(
    {
        "Prompt injection via task input",
        "Unauthorised API access",
        "Ledger tampering",
        "Agent collusion / coordinated deception",
        "PHI leakage in audit logs",
        "Privilege escalation via tool calls",
        "Exfiltration via web/shell tools",
        "Supply chain attacks",
        "Plain HTTP exposure",
        "Incident response",
    }
)
# Issues that will build what a row does not have yet.
ISSUES = frozenset(range(3, 10))

_PATH = re.compile(r"`([^`]+)`")
_NOT_YET = re.compile(r"not yet: issue (\d+)")
_PATH_SHAPE = re.compile(r"[\w./-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    threat: str
    stopped: tuple[str, ...]
    proved: tuple[str, ...]
    waiting_stopped: frozenset[int]
    waiting_proved: frozenset[int]


def rows(text: str) -> list[Row]:
    """The rows of the page's one table; raises ValueError for a row that has not three cells."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    found = []
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 3:
            raise ValueError(line)
        threat, stopped, proved = cells
        found.append(
            Row(
                threat=threat,
                stopped=tuple(_PATH.findall(stopped)),
                proved=tuple(_PATH.findall(proved)),
                waiting_stopped=frozenset(map(int, _NOT_YET.findall(stopped))),
                waiting_proved=frozenset(map(int, _NOT_YET.findall(proved))),
            )
        )
    return found


def threats_of(tree: ast.Module) -> tuple[str, ...]:
    """The `Threat:` lines that end a module's docstring, without the word."""
    lines = (ast.get_docstring(tree) or "").splitlines()
    named: list[str] = []
    while lines and lines[-1].startswith("Threat: "):
        named.append(lines.pop().removeprefix("Threat: ").strip())
    return tuple(named)


def complaints(row: Row) -> Iterator[str]:
    """What is wrong with a row by itself: empty cells, paths that are none, unknown issues."""
    if not row.stopped and not row.waiting_stopped:
        yield f"{row.threat}: nothing stops it, and no issue will"
    if not row.proved and not row.waiting_proved:
        yield f"{row.threat}: nothing proves it, and no issue will"
    for issue in sorted((row.waiting_stopped | row.waiting_proved) - ISSUES):
        yield f"{row.threat}: no such issue {issue}"
    for path in (*row.stopped, *row.proved):
        if _PATH_SHAPE.fullmatch(path) is None or ".." in path or not (ROOT / path).exists():
            yield f"{row.threat}: {path} does not exist"
    for path in row.proved:
        if not path.startswith("tests/"):
            yield f"{row.threat}: {path} is no test"


def _map() -> list[Row]:
    return rows(MAP.read_text(encoding="utf-8"))


def _guards(row: Row) -> set[str]:
    return {path for path in row.stopped if path.startswith("app/") and path.endswith(".py")}


def test_the_map_has_one_row_for_every_threat() -> None:
    assert sorted(row.threat for row in _map()) == sorted(THREATS)


def test_every_row_points_at_what_exists_or_at_an_issue() -> None:
    found = [told for row in _map() for told in complaints(row)]
    assert not found, "\n".join(found)


def test_every_guard_on_the_map_names_its_threat() -> None:
    silent = [
        f"{path} does not end its docstring with 'Threat: {row.threat}'"
        for row in _map()
        for path in sorted(_guards(row))
        if (ROOT / path).exists() and row.threat not in threats_of(parsed(ROOT / path))
    ]
    assert not silent, "\n".join(silent)


def test_every_module_that_names_a_threat_is_on_the_map() -> None:
    by_threat = {row.threat: _guards(row) for row in _map()}
    missing = [
        f"{relative(path)} guards against '{threat}' and is not in that row"
        for path in python_files("app")
        for threat in threats_of(parsed(path))
        if relative(path) not in by_threat.get(threat, set())
    ]
    assert not missing, "\n".join(missing)


def test_no_threat_line_stands_where_no_reader_looks() -> None:
    """A misspelt or misplaced line would be neither checked nor found by grep."""
    lost = [
        f"{relative(path)}: {line.strip()}"
        for path in python_files("app")
        for line in (ast.get_docstring(parsed(path)) or "").splitlines()
        if re.match(r"\s*threats?\b\s*:", line, re.IGNORECASE)
        and line.removeprefix("Threat: ") not in threats_of(parsed(path))
    ]
    assert not lost, "\n".join(lost)


_HEAD = "| threat | stopped | proved |\n|---|---|---|\n"


@pytest.mark.parametrize(
    "line",
    [
        "| Ledger tampering | | `tests/conftest.py` |",
        "| Ledger tampering | `pyproject.toml` | |",
        "| Ledger tampering | `app/no_such.py` | `tests/conftest.py` |",
        "| Ledger tampering | `pyproject.toml` | `pyproject.toml` |",
        "| Ledger tampering | `../main` | `tests/conftest.py` |",
        "| Ledger tampering | not yet: issue 99 | not yet: issue 3 |",
    ],
)
def test_a_false_row_is_seen(line: str) -> None:
    assert list(complaints(rows(_HEAD + line)[0]))


def test_a_row_that_waits_for_an_issue_is_accepted() -> None:
    line = "| Ledger tampering | not yet: issue 3 | `tests/conftest.py`; not yet: issue 3 |"
    assert list(complaints(rows(_HEAD + line)[0])) == []
