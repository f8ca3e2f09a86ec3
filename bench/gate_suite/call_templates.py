"""Fills a call's arguments from what was read before.

"${0:/2/from}"              the third entry's `from` in the result of call 0, with its type
"${0:/[subject~Rent]/id}"   the first entry whose subject has "Rent" in it
"${1:/body|IBAN ([A-Z0-9]+)}"   what the expression finds in a text
"Dear ${1:/name}, ..."      inside a text, as text
"""

import re
from collections.abc import Mapping
from typing import Any

_PLACE = re.compile(r"\$\{(?P<call>[a-z]?\d+):(?P<path>[^|}]*)(?:\|(?P<find>[^}]*))?\}")


class NothingReadError(Exception):
    """The result that an argument is taken from was not had, or has no such part."""


def filled(template: Any, results: Mapping[str, Any]) -> Any:
    """The template with every place filled; NothingReadError where that cannot be done."""
    if isinstance(template, Mapping):
        return {name: filled(value, results) for name, value in template.items()}
    if isinstance(template, list):
        return [filled(value, results) for value in template]
    if not isinstance(template, str):
        return template
    whole = _PLACE.fullmatch(template)
    if whole is not None:
        return _value(whole, results)
    return _PLACE.sub(lambda place: str(_value(place, results)), template)


def _value(place: re.Match[str], results: Mapping[str, Any]) -> Any:
    if place["call"] not in results:
        raise NothingReadError(place[0])
    value = results[place["call"]]
    for part in filter(None, place["path"].split("/")):
        value = _part(value, part)
    if place["find"] is None:
        return value
    found = re.search(place["find"], str(value))
    if found is None:
        raise NothingReadError(place[0])
    return found[1]


def _part(value: Any, part: str) -> Any:
    if isinstance(value, list) and part.startswith("["):
        field, tells, wanted = re.split(r"([~=])", part[1:-1], maxsplit=1)
        for item in value:
            told = str(item.get(field, "")) if isinstance(item, Mapping) else ""
            if told == wanted if tells == "=" else wanted.casefold() in told.casefold():
                return item
        raise NothingReadError(part)
    try:
        return value[int(part)] if isinstance(value, list) else value[part]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NothingReadError(part) from error


def rows_of(template: Any, results: Mapping[str, Any]) -> list[Any]:
    """The field that a template takes from one row of a list, of every row; else nothing."""
    place = _PLACE.fullmatch(template) if isinstance(template, str) else None
    if place is None or place["find"] is not None:
        return []
    rows = results.get(place["call"])
    parts = [part for part in place["path"].split("/") if part]
    if not isinstance(rows, list) or len(parts) != 2:
        return []
    return [row[parts[1]] for row in rows if isinstance(row, Mapping) and parts[1] in row]
