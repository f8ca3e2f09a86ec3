"""Every promise of the seed policy and the design card has a test that exists or an issue."""

import ast
import re
import tomllib
from dataclasses import dataclass

import pytest

import app
from tests.architecture.source_tree import ROOT, parsed

_HERE = ROOT / "tests" / "contract"
_OPEN_ISSUES = range(3, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One row of the table."""

    source: str
    text: str
    test: str | None
    issue: int | None


def _plain(text: str) -> str:
    return " ".join(text.split())


def _row(row: dict[str, object]) -> Promise:
    assert row.keys() in ({"source", "text", "test"}, {"source", "text", "issue"}), row
    test, issue = row.get("test"), row.get("issue")
    assert test is None or isinstance(test, str)
    assert issue is None or isinstance(issue, int)
    return Promise(source=str(row["source"]), text=_plain(str(row["text"])), test=test, issue=issue)


_TABLE = tomllib.loads((_HERE / "seed_promises.toml").read_text(encoding="utf-8"))
_PROMISES = [_row(row) for row in _TABLE["promise"]]
_SEED = (_HERE / "seed_security_policy.txt").read_text(encoding="utf-8")
_POLICY = _plain((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
_TEXTS = {"seed": _plain(_SEED), "card": _plain(_TABLE["card"])}


def units(source: str) -> list[str]:
    """The smallest pieces that can promise something: sentences, or the card's enumerated parts."""
    if source == "card":
        parts = re.split(r"[;,.](?:\s+|$)", _TEXTS["card"])
    else:
        parts = [
            sentence
            for line in _SEED.splitlines()
            for sentence in re.split(r"(?<=[^\d]\.)\s+(?=[A-Z])", re.sub(r"^\s*\d\.\s+", "", line))
        ]
    cleaned = (re.sub(r"^(?:•|and|used by)\s+", "", _plain(part)) for part in parts)
    return [unit for unit in cleaned if unit]


def uncovered(promises: list[Promise]) -> list[str]:
    """The units that no row quotes."""
    return [
        unit
        for source in _TEXTS
        for unit in units(source)
        if not (source == "seed" and unit in _TABLE["headings"])
        and not any(
            row.source == source and (unit in row.text or row.text == unit) for row in promises
        )
    ]


def exists(node_id: str) -> bool:
    """Whether `file::test` or `file::Class::test` names a test that pytest would collect."""
    place, *names = node_id.split("::")
    path = ROOT / place
    if not (path.is_file() and path.name.startswith("test_") and names):
        return False
    body: list[ast.stmt] = parsed(path).body
    for name in names[:-1]:
        found = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
        if not found:
            return False
        body = found[0].body
    return names[-1].startswith("test_") and any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == names[-1]
        for node in body
    )


@pytest.mark.parametrize("promise", _PROMISES, ids=lambda row: row.text[:40])
def test_a_row_quotes_its_source_and_points_at_what_exists(promise: Promise) -> None:
    assert promise.text in _TEXTS[promise.source]
    if promise.test is not None:
        assert exists(promise.test), promise.test
    else:
        assert promise.issue in _OPEN_ISSUES


def test_every_sentence_of_the_seed_and_the_card_has_a_row() -> None:
    assert len(units("seed")) > 60
    assert uncovered(_PROMISES) == []


def test_a_sentence_without_its_rows_is_missed() -> None:
    assert "The build stage is discarded." in uncovered(
        [row for row in _PROMISES if "build stage" not in row.text]
    )


@pytest.mark.parametrize("heading", _TABLE["headings"])
def test_a_heading_is_a_whole_line_of_the_seed_and_no_sentence(heading: str) -> None:
    assert heading in [_plain(line) for line in _SEED.splitlines()]
    assert not heading.endswith((".", ":"))


@pytest.mark.parametrize(
    "node_id",
    [
        "tests/contract/test_nothing.py::test_a",
        "tests/contract/test_seed_promises.py::test_nothing",
        "tests/contract/test_seed_promises.py::exists",
        "tests/unit/keys/test_key_ring.py::TestNothing::test_a",
    ],
)
def test_a_test_that_does_not_exist_is_seen(node_id: str) -> None:
    assert not exists(node_id)


def test_the_policy_keeps_the_reporting_terms() -> None:
    start = _SEED.index("Do not open")
    terms = _SEED[start : _SEED.index("Threat Model")].replace("•", "-")
    missing = [line for line in map(_plain, terms.splitlines()) if line.lstrip("- ") not in _POLICY]
    assert not missing


def test_the_version_is_supported() -> None:
    assert app.__version__.startswith("0.")
    assert "| 0.x (current) | Yes |" in _POLICY


def _mandatory() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[\[<>=~! ;]", line)[0].lower() for line in project["dependencies"]}


def test_the_policy_lists_the_mandatory_dependencies() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    section = text[text.index("## Dependency Surface") : text.index("## Secrets in Audit Logs")]
    rows = re.findall(r"^\| ([a-z0-9-]+) \| (.+) \|$", section, re.MULTILINE)
    assert {name for name, _ in rows} == _mandatory()
    assert all(purpose.strip() for _, purpose in rows)
    assert {"fastapi", "httpx2"} <= _mandatory()
    assert {"aiohttp", "httpx"}.isdisjoint(_mandatory())


def test_what_the_seed_calls_optional_is_not_mandatory() -> None:
    assert {"openai", "google-generativeai", "google-genai", "boto3", "numpy"}.isdisjoint(
        _mandatory()
    )


def test_the_tree_has_what_the_card_names() -> None:
    names = ("app", "migrations", "tests", "openapi")
    assert all((ROOT / name).is_dir() for name in names)
    assert all((ROOT / name).is_file() for name in ("alembic.ini", "pyproject.toml", "SECURITY.md"))
    assert '"pytest>=' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", ["README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_link_of_a_page_leads_somewhere(place: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / place).read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]
