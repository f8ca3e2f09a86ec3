"""Reads what a provider wrote: strict JSON, typed fields of it, and one whole reply, or a refusal.

Threat: Prompt injection via task input
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from app.domain.run import Json, JsonObject
from app.domain.step import ModelReply, StopReason, ToolCall
from app.providers.prices import ModelPrice, usage_of
from app.providers.provider import ModelFailure, model_error

# An output limit of 128,000 tokens stays far below this; only a broken or hostile server passes it.
MOST_BYTES = 8 * 1024 * 1024
_MOST_CALLS = 128
_MOST_DEPTH = 64  # code that walks arguments may recurse


def malformed() -> NoReturn:
    """Raises `model.malformed_reply`."""
    raise model_error(ModelFailure.MALFORMED_REPLY)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _one_value_a_key(pairs: list[tuple[str, Json]]) -> JsonObject:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _is_deeper_than(value: Json, depth: int) -> bool:
    level: list[Json] = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def parse_object(text: str) -> JsonObject:
    """The JSON object in a text, or `model.malformed_reply`.

    Stricter than `json.loads`: no NaN, no infinity by way of 1e999, no half surrogates, no key
    twice, no nesting beyond 64. Those parse in Python but could not be recorded, or not safely.
    """
    try:
        value: Json = json.loads(
            text,
            parse_float=_finite,
            parse_constant=_no_constant,
            object_pairs_hook=_one_value_a_key,
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or _is_deeper_than(value, _MOST_DEPTH):
        malformed()
    return value


def checked_object(value: Mapping[str, object]) -> JsonObject:
    """An object that a library has parsed already, held to what `parse_object` demands."""
    try:
        written = json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        written = ""
    return parse_object(written)


def object_in(holder: JsonObject, key: str) -> JsonObject:
    """The object in a field."""
    value = holder.get(key)
    if not isinstance(value, dict):
        malformed()
    return value


def objects_in(holder: JsonObject, key: str) -> Iterator[JsonObject]:
    """The objects of a list in a field, in order."""
    value = holder.get(key)
    if not isinstance(value, list):
        malformed()
    for item in value:
        if not isinstance(item, dict):
            malformed()
        yield item


def text_in(holder: JsonObject, key: str) -> str:
    """The text in a field."""
    value = holder.get(key)
    if not isinstance(value, str):
        malformed()
    return value


def count_in(holder: JsonObject, key: str, *, default: int | None = None) -> int:
    """The number of something in a field: whole and not negative."""
    value = holder.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        malformed()
    return value


def whole_reply(
    price: ModelPrice,
    *,
    text: str,
    calls: Sequence[ToolCall],
    stop: StopReason,
    input_tokens: int,
    output_tokens: int,
) -> ModelReply:
    """One reply as it is handed on, priced; `model.malformed_reply` where its parts disagree.

    Arguments of a reply that was cut short or refused are not what the model meant to ask: such a
    call is never handed on, even where its JSON happens to be whole.
    """
    kept = tuple(calls) if stop in (StopReason.TOOL_USE, StopReason.END) else ()
    ids = {call.call_id for call in kept}
    if (
        bool(kept) != (stop is StopReason.TOOL_USE)
        or len(ids) != len(kept)
        or "" in ids
        or len(kept) > _MOST_CALLS
    ):
        malformed()
    return ModelReply(
        text=text,
        calls=kept,
        stop_reason=stop,
        usage=usage_of(price, input_tokens=input_tokens, output_tokens=output_tokens),
    )
