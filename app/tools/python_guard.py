"""Reads a Python program before it runs and refuses what is plainly not for it: the first layer.

It is no boundary and is not meant as one: names can be reached in ways that no reading finds. It
refuses early, cheaply and with a reason, so that the attempt is told and recorded.

Threat: Privilege escalation via tool calls
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from app.tools.python_syntax import parse_program
from app.tools.refusal_lists import load_lists

FILE_NAME = "python_refusals.toml"
# Looked up by a name that may be computed: their names are read as attributes are.
_BY_NAME = frozenset({"getattr", "setattr", "delattr", "hasattr", "attrgetter", "methodcaller"})
_HARMLESS_NAMES = frozenset({"__name__", "__doc__", "__file__", "__annotations__", "__debug__"})
# CPython's parser keeps every beginning of a dotted name: of ten thousand dots a hundred megabytes.
_LONG_NAME = re.compile(r"\b(?:\w++[\s\\]*+\.[\s\\]*+){200}")
_TOO_DEEP = "the program is nested too deeply to be read"
_FORMAT_WALK = re.compile(r"\{[^{}]*[.\[]\s*_?_[a-z]")


class _RefusalFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    names: list[str] = []
    modules: list[str] = []
    members: list[str] = []
    attributes: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonRefusals:
    """What is refused by name. More can be added; there is no way to take anything away."""

    names: frozenset[str]
    modules: frozenset[str]
    members: frozenset[str]
    attributes: frozenset[str]


def load_refusals(config_dir: Path | None) -> PythonRefusals:
    """The shipped list and, when the operator has one, theirs. ConfigurationError if malformed."""
    form = ", ".join(_RefusalFile.model_fields)
    return PythonRefusals(**load_lists(FILE_NAME, config_dir, _RefusalFile, form))


@dataclass(slots=True, kw_only=True)
class _Reading:
    """One program as it is read: the names that stand for modules, in the order they appear."""

    refusals: PythonRefusals
    modules: dict[str, str] = field(default_factory=dict)

    def objections(self, tree: ast.AST) -> Iterator[tuple[int, str]]:
        """Every line and reason, imports first: a name means its module wherever it stands."""
        nodes = list(ast.walk(tree))
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                for reason in self._import(node):
                    yield node.lineno, reason
        for node in nodes:
            for reason in self._use(node):
                yield getattr(node, "lineno", 0), reason

    def _import(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                self.modules[name] = alias.name if alias.asname else name
                yield from self._module(alias.name)
            return
        module = node.module or ""
        if node.level:
            yield "a relative import"
        for alias in node.names:
            whole = f"{module}.{alias.name}"
            self.modules[alias.asname or alias.name] = whole
            if alias.name == "*" and any(
                member.startswith(f"{module}.") for member in self.refusals.members
            ):
                yield f"everything from {module}"
            yield from self._module(whole)
            yield from self._member(whole)
            yield from self._attribute(alias.name)

    def _module(self, name: str) -> Iterator[str]:
        if any(name == one or name.startswith(f"{one}.") for one in self.refusals.modules):
            yield f"the module {name}"

    def _member(self, name: str) -> Iterator[str]:
        if name in self.refusals.members:
            yield name

    def _attribute(self, name: str) -> Iterator[str]:
        if name in self.refusals.attributes:
            yield f"the attribute {name}"

    def _use(self, node: ast.AST) -> Iterator[str]:
        match node:
            case ast.Name(id=name):
                dunder = name.startswith("__") and name.endswith("__")
                if name in self.refusals.names or (dunder and name not in _HARMLESS_NAMES):
                    yield name
            case ast.Attribute(attr=name):
                yield from self._attribute(name)
                dotted = self._dotted(node)
                if dotted is not None:
                    yield from self._member(dotted)
                    yield from self._module(dotted)
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in _BY_NAME:
                yield from self._by_name(node)
            case ast.Constant(value=str(text)) if _FORMAT_WALK.search(text):
                yield "a format that walks into an object"

    def _by_name(self, call: ast.Call) -> Iterator[str]:
        """The names that a lookup asks for; one that is computed cannot be judged."""
        function = call.func
        is_operator = isinstance(function, ast.Attribute) or (
            isinstance(function, ast.Name) and function.id in ("attrgetter", "methodcaller")
        )
        for word in call.args if is_operator else call.args[1:2]:
            match word:
                case ast.Constant(value=str(text)):
                    for part in text.split("."):
                        yield from self._attribute(part)
                        if isinstance(call.args[0], ast.Name) and not is_operator:
                            module = self.modules.get(call.args[0].id)
                            yield from self._member(f"{module}.{part}")
                case _:
                    yield "a lookup by a computed name"

    def _dotted(self, node: ast.Attribute) -> str | None:
        """The dotted name, from the module that its first part stands for; None when it is none."""
        parts = [node.attr]
        inner = node.value
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name) or inner.id not in self.modules:
            return None
        return ".".join([self.modules[inner.id], *reversed(parts)])


def first_objection(text: str, refusals: PythonRefusals) -> str | None:
    """Why this program is not run, naming the line; None when nothing is known against it.

    A program that does not parse is left to the interpreter, which tells where.
    """
    if _LONG_NAME.search(text):
        return _TOO_DEEP
    try:
        tree = parse_program(text)
        found = next(_Reading(refusals=refusals).objections(tree), None)
    except (SyntaxError, ValueError):
        return None
    except (MemoryError, RecursionError):
        return _TOO_DEEP
    return None if found is None else f"line {found[0]}: {found[1]} is not allowed"
