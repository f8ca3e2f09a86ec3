"""Completes a feature record written by hand: what is left out speaks neither for nor against.

A run with room in its budget, begun by who may instruct, and a known tool that was granted and
asked for.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from app.domain.features import AskedFor, ContextFeature, Counters, DecisionInput, ToolFeature
from app.domain.mode import Mode
from app.domain.plain_form import plain
from app.domain.run import Json, JsonObject

_ROOM = 1_000_000
_UNREMARKABLE: Mapping[type, Mapping[str, Json]] = {
    Counters: {
        "max_steps": _ROOM,
        "max_tokens": _ROOM,
        "max_cost_micros": _ROOM,
        "max_wall_seconds": _ROOM,
    },
    ContextFeature: {"may_instruct": True},
    ToolFeature: {
        "is_known": True,
        "asked_for": AskedFor.MENTIONED.value,
        "is_granted": True,
        "is_declared": False,
        "is_confined": False,
        "max_calls": _ROOM,
    },
}


def completed_features(written: JsonObject, default_mode: Mode) -> DecisionInput:
    """The record. RecordFormError when a part is amiss, or one that has no default is missing."""
    whole: JsonObject = {"mode": default_mode.value, "counters": {}, "context": {}, **written}
    return DecisionInput.from_json(_completed(DecisionInput, whole))


def _completed(kind: object, value: Json) -> Json:
    origin = get_origin(kind)
    if origin is Union or origin is UnionType:
        inner = next(one for one in get_args(kind) if one is not NoneType)
        return None if value is None else _completed(inner, value)
    if origin is tuple and isinstance(value, list):
        return [_completed(get_args(kind)[0], item) for item in value]
    if not isinstance(kind, type) or not is_dataclass(kind) or not isinstance(value, dict):
        return value
    hints = get_type_hints(kind)
    value = {**_UNREMARKABLE.get(kind, {}), **value}
    found = dict(value)
    for part in fields(kind):
        if part.name in value:
            found[part.name] = _completed(hints[part.name], value[part.name])
        elif part.default is not MISSING:
            found[part.name] = plain(part.default)
        elif part.default_factory is not MISSING:
            found[part.name] = plain(part.default_factory())
    return found
