"""Finds the SQL of the application and, in it, tables that a statement reads for all tenants."""

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from pglast import ast, parse_plpgsql, parse_sql
from pglast.visitors import Skip, Visitor

import app.storage

_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
_VOLATILE = {"clock_timestamp", "random", "gen_random_uuid", "uuidv7", "timeofday"}
Level: TypeAlias = ast.SelectStmt | ast.UpdateStmt | ast.DeleteStmt


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement and where it stands."""

    place: str  # "module.NAME", or the function of the database
    sql: str


def of_the_application() -> Iterator[Statement]:
    """The statements that modules of the storage room hold under a name."""
    for found in pkgutil.iter_modules(app.storage.__path__):
        module = importlib.import_module(f"app.storage.{found.name}")
        for name, value in vars(module).items():
            if isinstance(value, str) and value.lstrip().startswith(_VERBS):
                yield Statement(place=f"{found.name}.{name}", sql=value)


def of_a_function(name: str, definition: str, source: str) -> Iterator[Statement]:
    """The statements in the body of a function of the database."""
    if "LANGUAGE sql" in definition:
        yield Statement(place=name, sql=source)
        return
    for query in _queries(parse_plpgsql(definition)):
        if query.lstrip().upper().startswith(_VERBS):
            yield Statement(place=name, sql=query)


def _queries(node: object) -> Iterator[str]:
    match node:
        case {"query": str(query)}:
            yield query
        case dict():
            for value in node.values():
                yield from _queries(value)
        case list():
            for value in node:
                yield from _queries(value)


def for_all_tenants(sql: str, tables: frozenset[str]) -> frozenset[str]:
    """The tables that some level of the statement reads or changes without naming a tenant."""
    found: set[str] = set()
    for raw in parse_sql(sql):
        ctes = _Names()
        ctes(raw)
        levels = _Levels()
        levels(raw)
        for level in levels.found:
            found |= _loose(level, tables - ctes.found)
    return frozenset(found)


def changing_clocks(sql: str) -> frozenset[str]:
    """Functions in an UPDATE that answer differently each time: other nodes would differ."""
    found = _Calls()
    for raw in parse_sql(sql):
        levels = _Levels()
        levels(raw)
        for level in levels.found:
            if isinstance(level, ast.UpdateStmt):
                found(level)
    return frozenset(found.found & _VOLATILE)


class _Calls(Visitor):
    """The functions that a statement calls."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def visit_FuncCall(self, _: object, node: ast.FuncCall) -> None:  # noqa: N802 - the visitor's way
        self.found.update(str(name.sval) for name in (node.funcname or ())[-1:])


class _Names(Visitor):
    """Names that common table expressions hide tables behind."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def visit_CommonTableExpr(self, _: object, node: ast.CommonTableExpr) -> None:  # noqa: N802 - the visitor's way
        self.found.add(str(node.ctename))


class _Levels(Visitor):
    """Every level of a statement that has tables of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Level] = []

    def visit(self, _: object, node: ast.Node) -> None:
        if isinstance(node, Level):
            self.found.append(node)


def _loose(level: Level, tables: frozenset[str]) -> set[str]:
    sources = [*_sources(getattr(level, "fromClause", None) or ())]
    sources += _sources(getattr(level, "usingClause", None) or ())
    if isinstance(level, ast.UpdateStmt | ast.DeleteStmt):
        sources += _sources((level.relation,))
    here = {alias: table for alias, table in sources if table in tables}
    bound = _bound(level)
    alone = len(here) == 1
    return {
        table
        for alias, table in here.items()
        if alias not in bound and not (alone and "" in bound) and "*" not in bound
    }


def _sources(items: object) -> Iterator[tuple[str, str]]:
    for item in items if isinstance(items, tuple) else ():
        match item:
            case ast.RangeVar():
                alias = item.alias.aliasname if item.alias else item.relname
                yield str(alias), str(item.relname)
            case ast.JoinExpr():
                yield from _sources((item.larg, item.rarg))


class _Bindings(Visitor):
    """By which names a condition speaks of the tenant; what is nested has its own level."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def visit_SelectStmt(self, *_: object) -> object:  # noqa: N802 - the visitor's way
        return Skip

    def visit_ColumnRef(self, _: object, node: ast.ColumnRef) -> None:  # noqa: N802 - the visitor's way
        fields = [str(field.sval) for field in node.fields or () if isinstance(field, ast.String)]
        if fields[-1:] == ["tenant_id"]:
            self.found.add(fields[-2] if len(fields) > 1 else "")


def _bound(level: Level) -> set[str]:
    bindings = _Bindings()
    found: set[str] = set()
    for quals in _conditions(level):
        bindings(quals)
    for item in getattr(level, "fromClause", None) or ():
        found |= _using(item)
    return bindings.found | found


def _conditions(level: Level) -> Iterator[ast.Node]:
    if level.whereClause is not None:
        yield level.whereClause
    for item in getattr(level, "fromClause", None) or ():
        yield from _joined(item)


def _joined(item: object) -> Iterator[ast.Node]:
    if isinstance(item, ast.JoinExpr):
        if item.quals is not None:
            yield item.quals
        yield from _joined(item.larg)
        yield from _joined(item.rarg)


def _using(item: object) -> set[str]:
    if not isinstance(item, ast.JoinExpr):
        return set()
    named = {word.sval for word in item.usingClause or ()}
    return ({"*"} if "tenant_id" in named else set()) | _using(item.larg) | _using(item.rarg)
