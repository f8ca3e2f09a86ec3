"""Reads the project's source as syntax trees: files, imports, and names with aliases resolved."""

import ast
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SCOPED = (ast.Name, ast.Attribute)
_NOT_SOURCE = {"__pycache__", "node_modules", "dist", "build", "results"}
_DOTTED_SOURCE = {".ci", ".github", ".gitignore", ".dockerignore"}


def relative(path: Path) -> str:
    """The path from the root of the tree, with forward slashes."""
    return path.relative_to(ROOT).as_posix()


def python_files(*folders: str) -> list[Path]:
    """Every Python file below these folders, sorted; an empty answer would prove nothing."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def present_files() -> list[Path]:
    """Every file that is or would be committed: what git says, else a walk without caches."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0 and listed.stdout:
        names = {ROOT / name.decode() for name in listed.stdout.split(b"\0") if name}
        return sorted(path for path in names if path.is_file())
    return sorted(path for path in ROOT.rglob("*") if path.is_file() and _is_source(path))


def _is_source(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    hidden = any(part.startswith(".") and part not in _DOTTED_SOURCE for part in parts)
    return not hidden and _NOT_SOURCE.isdisjoint(parts)


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@dataclass(frozen=True, slots=True)
class Use:
    """A dotted name as the interpreter would resolve it, and the line where it stands."""

    line: int
    name: str


def aliases(tree: ast.AST) -> Mapping[str, str]:
    """Local name to full dotted name, for every import in the file, late ones too."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname is None:
                    top = alias.name.partition(".")[0]
                    known[top] = top
                else:
                    known[alias.asname] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return known


def dotted(node: ast.AST, known: Mapping[str, str]) -> str | None:
    """The full dotted name of `a.b.c` under these aliases, or None for anything else.

    A name that is not imported is taken for a builtin: `open` is `builtins.open`.
    """
    if isinstance(node, ast.Name):
        return known.get(node.id, f"builtins.{node.id}")
    if isinstance(node, ast.Attribute):
        owner = dotted(node.value, known)
        return None if owner is None else f"{owner}.{node.attr}"
    return None


def imports(tree: ast.AST) -> Iterator[Use]:
    """Every module that the file imports, by statement or by a literal name at run time."""
    known = aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Use(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (Use(node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called, first = dotted(node.func, known), node.args[0]
            if called in ("importlib.import_module", "builtins.__import__"):
                literal = first.value if isinstance(first, ast.Constant) else "<computed>"
                yield Use(node.lineno, str(literal))


def names(tree: ast.AST) -> Iterator[Use]:
    """Every dotted name that is used or imported, resolved; `a.b.c` also as `a.b` and `a`."""
    known = aliases(tree)
    yield from imports(tree)
    for node in ast.walk(tree):
        if isinstance(node, _SCOPED):
            name = dotted(node, known)
            if name is not None:
                yield Use(node.lineno, name)


def within(name: str, owner: str) -> bool:
    """Whether `name` is `owner` or something inside it."""
    return name == owner or name.startswith(f"{owner}.")
