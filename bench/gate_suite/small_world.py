"""A world of lists of objects that a domain's tools read and change.

Tools do one of a few things, each told in the domain's file as `does`:

    {op = "list", of = "mails", match = {folder = "folder"}, like = {text = "body"}, show = [...]}
    {op = "get", of = "mails", by = {mail_id = "id"}, show = [...]}
    {op = "create", of = "outbox", prefix = "M-", set = {to = "$to", status = "sent"}}
    {op = "update", of = "orders", by = {order_id = "id"}, set = {status = "$status"}}
    {op = "append", of = "shelves", by = {shelf_id = "id"}, to = "books", what = "$book_id"}
    {op = "delete", of = "mails", by = {mail_id = "id"}}
    {op = "fetch", of = "pages", by = {url = "url"}, missing = {text = "..."}}   logged in `fetched`
"""

import copy
from collections.abc import Mapping
from typing import Any

from bench.gate_suite.domain_file import Domain

FETCHED = "fetched"
FIRST_MADE = 700


class CallFailedError(Exception):
    """The world has no such thing."""


class SmallWorld:
    """The state of one replay; nothing of it outlives the replay."""

    def __init__(self, domain: Domain) -> None:
        self._tools = domain.tools
        self.state: dict[str, list[dict[str, Any]]] = copy.deepcopy(dict(domain.state))
        self._made = 0

    def call(self, tool: str, arguments: Mapping[str, Any]) -> Any:
        """Do it and give the result; CallFailedError where there is no such thing."""
        does = self._tools[tool].does
        match does["op"]:
            case "list":
                return self._listed(does, arguments)
            case "get":
                return _shown(self._the(does, arguments), does)
            case "create":
                return self._created(does, arguments)
            case "update":
                found = self._the(does, arguments)
                found.update(_filled(does["set"], arguments))
                return _shown(found, does)
            case "append":
                found = self._the(does, arguments)
                found[does["to"]] = [*found[does["to"]], arguments[does["what"][1:]]]
                return _shown(found, does)
            case "delete":
                found = self._the(does, arguments)
                self.state[does["of"]].remove(found)
                return {"status": "deleted"}
            case "fetch":
                return self._fetched(does, arguments)
            case other:
                raise ValueError(f"{tool}: nobody knows the operation {other!r}")

    def holds(self, wanted: Mapping[str, Any]) -> bool:
        """Whether some object of `in` is as `where` says; with `absent`, whether none is."""
        found = any(_is(item, wanted["where"]) for item in self.state.get(wanted["in"], []))
        return found is not bool(wanted.get("absent", False))

    def _listed(self, does: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[Any]:
        match, like = does.get("match", {}), does.get("like", {})
        return [
            _shown(item, does)
            for item in self.state[does["of"]]
            if all(
                item.get(field) == arguments[name]
                for name, field in match.items()
                if name in arguments
            )
            and all(
                str(arguments[name]).casefold() in str(item.get(field, "")).casefold()
                for name, field in like.items()
                if name in arguments
            )
        ]

    def _the(self, does: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
        wanted = {field: arguments.get(name) for name, field in does["by"].items()}
        for item in self.state[does["of"]]:
            if all(item.get(field) == value for field, value in wanted.items()):
                return item
        raise CallFailedError(f"there is no {does['of']} with {wanted}")

    def _created(self, does: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        others = self.state.setdefault(does["of"], [])
        self._made += 1  # no number is given twice
        number = FIRST_MADE + self._made
        made = {
            "id": f"{does['prefix']}{number}" if "prefix" in does else number,
            **_filled(does["set"], arguments),
        }
        others.append(made)
        return _shown(made, does)

    def _fetched(self, does: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
        ((name, _),) = does["by"].items()
        self.state.setdefault(FETCHED, []).append({"url": arguments[name]})
        try:
            return _shown(self._the(does, arguments), does)
        except CallFailedError:
            return dict(does["missing"])


def _filled(template: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for field, value in template.items():
        if not (isinstance(value, str) and value.startswith("$")):
            made[field] = value
        elif value[1:] in arguments:
            made[field] = arguments[value[1:]]
    return made


def _shown(item: Mapping[str, Any], does: Mapping[str, Any]) -> dict[str, Any]:
    show = does.get("show")
    return copy.deepcopy({name: item[name] for name in (show or item) if name in item})


def _is(item: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    return all(_like(item.get(field), wanted) for field, wanted in where.items())


def _like(value: Any, wanted: Any) -> bool:
    if isinstance(value, list) and not isinstance(wanted, list):
        return any(_like(one, wanted) for one in value)
    if isinstance(wanted, str) and wanted.startswith("~"):
        return wanted[1:].casefold() in str(value).casefold()
    return bool(value == wanted)
