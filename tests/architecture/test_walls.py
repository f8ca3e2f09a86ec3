"""The size of files and functions, their names, and the few comments that switch a check off."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, parsed, present_files, python_files, relative

FILE_WALL = 400
OTHER_FILE_WALL = 600  # tests, benches, migrations
FUNCTION_WALL = 60
TOP_LEVEL = (
    ".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md",
    "SECURITY.md", "alembic.ini", "app", "bench", "docs", "migrations", "openapi",
    "pyproject.toml", "scripts", "tests",
)  # fmt: skip
EMPTY_WORDS = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}

_IGNORED_TYPE = re.compile(r"#\s*(type:\s*ignore|mypy:|pyright:|ruff:\s*noqa)", re.IGNORECASE)
_NOQA = re.compile(r"#\s*noqa\b", re.IGNORECASE)
_REASONED = re.compile(r"#\s*noqa:\s*[A-Z]+\d+(?:\s*,\s*[A-Z]+\d+)*\s*(?:#|-+|:)\s*[A-Za-z0-9]")


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every comment; text inside strings is none."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def unreasoned(source: str) -> list[int]:
    """Lines whose noqa names no rule, or gives no reason after it."""
    return [
        line
        for line, text in comments(source)
        if _NOQA.search(text) and _REASONED.search(text) is None
    ]


def silenced_checks(source: str) -> list[int]:
    """Lines that switch the type checker off, or the linter for a whole file."""
    return [line for line, text in comments(source) if _IGNORED_TYPE.search(text)]


def long_functions(tree: ast.AST) -> list[str]:
    """Functions over the wall, with their length."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_WALL:
                found.append(f"{node.name}: {length}")
    return found


def opens_with_a_sentence(tree: ast.Module) -> bool:
    """Whether the first paragraph of the docstring says something and ends like a sentence."""
    text = ast.get_docstring(tree) or ""
    first = " ".join(text.split("\n\n", maxsplit=1)[0].split())
    if first.startswith("Threat:"):
        return False
    return len(first.split()) >= 3 and first.rstrip(")").endswith((".", ":"))


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def _modules() -> list[Path]:
    files = [path for path in python_files("app") if path.name != "__init__.py"]
    assert files
    return files


def test_no_file_is_over_its_wall() -> None:
    walls = {"app": FILE_WALL, **dict.fromkeys(("tests", "bench", "migrations"), OTHER_FILE_WALL)}
    over = {
        relative(path): _lines(path)
        for folder, wall in walls.items()
        for path in python_files(folder)
        if _lines(path) > wall
    }
    assert over == {}


def test_no_function_is_over_its_wall() -> None:
    over = {relative(path): long_functions(parsed(path)) for path in python_files("app")}
    assert {path: found for path, found in over.items() if found} == {}


def test_no_two_modules_share_a_name() -> None:
    counted = Counter(path.name for path in _modules())
    assert {name for name, count in counted.items() if count > 1} == set()


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = [
        relative(path)
        for path in python_files("app")
        for part in (*path.relative_to(ROOT).parts[1:-1], path.stem)
        if not EMPTY_WORDS.isdisjoint(part.split("_"))
    ]
    assert empty == []


def test_package_files_are_empty_but_for_the_version() -> None:
    full = [
        relative(path)
        for path in (ROOT / "app").rglob("__init__.py")
        if path.parent != ROOT / "app" and path.read_bytes().strip()
    ]
    assert full == []


def test_every_module_opens_with_a_sentence() -> None:
    paths = [*_modules(), *python_files("bench", "migrations", "scripts"), ROOT / "app/__init__.py"]
    assert [relative(path) for path in paths if not opens_with_a_sentence(parsed(path))] == []


def test_the_type_checker_is_never_switched_off() -> None:
    found = {
        relative(path): silenced_checks(path.read_text(encoding="utf-8"))
        for path in python_files("app")
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_every_noqa_names_a_rule_and_a_reason() -> None:
    found = {
        relative(path): unreasoned(path.read_text(encoding="utf-8")) for path in python_files("app")
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("x = 1  # noqa", True),
        ("x = 1  # noqa: S101", True),
        ("x = 1  # noqa: S101  #", True),
        ("x = 1  # NOQA:S101", True),
        ("x = 1  # noqa: S101  # the test asserts on purpose", False),
        ("x = 1  # noqa: S101, PLC0415 - the import costs seconds", False),
        ("x = '# noqa'", False),
    ],
)
def test_a_bare_noqa_is_seen(source: str, *, bad: bool) -> None:
    assert bool(unreasoned(source + "\n")) is bad


@pytest.mark.parametrize(
    "source",
    [
        "x = 1  # type: ignore",
        "x = 1  # type:ignore[attr-defined]  # why not",
        "# mypy: ignore-errors",
    ],
)
def test_a_silenced_type_checker_is_seen(source: str) -> None:
    assert silenced_checks(source + "\n") == [1]


def test_a_long_function_is_seen() -> None:
    body = "\n".join("    x = 1" for _ in range(FUNCTION_WALL))
    assert long_functions(ast.parse(f"async def f():\n{body}")) == [f"f: {FUNCTION_WALL + 1}"]
    assert long_functions(ast.parse(f"def f():\n{body[10:]}")) == []


@pytest.mark.parametrize(
    ("source", "good"),
    [
        ('"""Reads what the other wrote."""', True),
        ('"""Reads what the other wrote,\nand more of it.\n\nThreat: X\n"""', True),
        ("x = 1", False),
        ('"""Gate"""', False),
        ('"""Threat: Ledger tampering of all."""', False),
    ],
)
def test_a_module_without_a_sentence_is_seen(source: str, *, good: bool) -> None:
    assert opens_with_a_sentence(ast.parse(source)) is good


def test_the_top_level_holds_what_the_house_says_and_nothing_else() -> None:
    """What a mistyped command writes beside the rooms is seen before it is published."""
    found = {path.relative_to(ROOT).parts[0] for path in present_files()}
    assert found - set(TOP_LEVEL) == set()
    assert {name for name in TOP_LEVEL if not (ROOT / name).exists()} == set()
