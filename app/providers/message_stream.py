"""Puts one Messages API reply together from its stream of events, or refuses to.

Events arrive as the text of their `data:` field, before any library has read meaning into them.
A reply comes out only if `message_stop` arrived, every block was closed, the stop reason is one we
know and tool arguments are JSON objects that can be written down again. What is not understood is
either harmless by the API's own rules (new event and block kinds are skipped) or an error.

Threat: Prompt injection via task input
"""

import json
import math
from dataclasses import dataclass, field
from typing import NoReturn

from app.domain.errors import ModelError
from app.domain.run import Json, JsonObject
from app.domain.step import ModelReply, StopReason, ToolCall
from app.providers.prices import ModelPrice, usage_of
from app.providers.provider import ModelFailure, model_error

# An output limit of 128,000 tokens stays far below this; only a broken or hostile server passes it.
_MOST_BYTES = 8 * 1024 * 1024
_MOST_CALLS = 128
_MOST_DEPTH = 64  # code that walks arguments may recurse

# `stop_sequence` and `pause_turn` answer questions that we never ask, so they are not known here.
_STOP_REASONS = {
    "end_turn": StopReason.END,
    "tool_use": StopReason.TOOL_USE,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "refusal": StopReason.REFUSAL,
}

_ERROR_EVENTS = {
    "authentication_error": ModelFailure.AUTHENTICATION,
    "permission_error": ModelFailure.AUTHENTICATION,
    "billing_error": ModelFailure.AUTHENTICATION,
    "invalid_request_error": ModelFailure.INVALID_REQUEST,
    "not_found_error": ModelFailure.INVALID_REQUEST,
    "request_too_large": ModelFailure.INVALID_REQUEST,
    "rate_limit_error": ModelFailure.RATE_LIMITED,
    "overloaded_error": ModelFailure.OVERLOADED,
    "timeout_error": ModelFailure.TIMEOUT,
}


def _malformed() -> NoReturn:
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
        _malformed()
    return value


def _object_in(holder: JsonObject, key: str) -> JsonObject:
    value = holder.get(key)
    if not isinstance(value, dict):
        _malformed()
    return value


def _text_in(holder: JsonObject, key: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str):
        _malformed()
    return value


def _count_in(holder: JsonObject, key: str, *, default: int | None = None) -> int:
    value = holder.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _malformed()
    return value


@dataclass(slots=True, kw_only=True)
class _Block:
    """One content block while it is being received. `kind` is text, tool_use, or skipped."""

    kind: str
    call_id: str = ""
    name: str = ""
    whole_input: JsonObject = field(default_factory=dict)
    pieces: list[str] = field(default_factory=list)
    is_open: bool = True


class ReplyAssembler:
    """Takes the events of one reply in order; `finished()` gives the reply when all have come."""

    def __init__(self, price: ModelPrice) -> None:
        self._price = price
        self._blocks: dict[int, _Block] = {}
        self._bytes = 0
        self._input_tokens: int | None = None
        self._output_tokens: int | None = None
        self._stop_reason: StopReason | None = None
        self._stopped = False

    def take(self, event_name: str | None, data: str) -> None:
        """One event. Raises `ModelError` when the event is an error or cannot be believed."""
        self._bytes += len(data)
        if self._bytes > _MOST_BYTES:
            _malformed()
        if event_name is None or event_name == "ping":
            return
        if event_name == "error":
            raise model_error(_failure_told_by(data))
        event = parse_object(data)
        kind = _text_in(event, "type")
        if kind == "error":
            raise model_error(_failure_told_by(data))
        if self._stopped:
            _malformed()
        self._take_part(kind, event)

    def _take_part(self, kind: str, event: JsonObject) -> None:
        match kind:
            case "message_start":
                self._message_start(event)
            case "content_block_start":
                self._block_start(event)
            case "content_block_delta":
                self._block_delta(event)
            case "content_block_stop":
                self._open_block(event).is_open = False
            case "message_delta":
                self._message_delta(event)
            case "message_stop":
                self._stopped = True
            case _:
                return  # the API announces that event kinds will be added

    def finished(self) -> ModelReply:
        """The whole reply; `model.stream_broken` when the stream ended before the reply did."""
        if not self._stopped:
            raise model_error(ModelFailure.STREAM_BROKEN)
        if (
            self._stop_reason is None
            or self._input_tokens is None
            or self._output_tokens is None
            or any(block.is_open for block in self._blocks.values())
        ):
            _malformed()
        stop = self._stop_reason
        # Arguments of a reply that was cut short or refused are not what the model meant to ask:
        # such a call is never handed on, even where its JSON happens to be whole.
        calls = self._calls() if stop in (StopReason.TOOL_USE, StopReason.END) else ()
        if bool(calls) != (stop is StopReason.TOOL_USE):
            _malformed()
        return ModelReply(
            text=self._text(),
            calls=calls,
            stop_reason=stop,
            usage=usage_of(
                self._price,
                input_tokens=self._input_tokens,
                output_tokens=self._output_tokens,
            ),
        )

    def _message_start(self, event: JsonObject) -> None:
        if self._input_tokens is not None:
            _malformed()
        usage = _object_in(_object_in(event, "message"), "usage")
        self._input_tokens = _input_tokens_in(usage)

    def _block_start(self, event: JsonObject) -> None:
        index = _count_in(event, "index")
        if self._input_tokens is None or index in self._blocks:
            _malformed()
        content = _object_in(event, "content_block")
        match _text_in(content, "type"):
            case "text":
                block = _Block(kind="text", pieces=[_text_in(content, "text")])
            case "tool_use":
                block = _Block(
                    kind="tool_use",
                    call_id=_text_in(content, "id"),
                    name=_text_in(content, "name"),
                    whole_input=_object_in(content, "input"),
                )
            case _:
                # Thinking, and kinds yet to come. They are dropped whole, never in part: the API
                # accepts a history without thinking and refuses one with some of it.
                block = _Block(kind="skipped")
        self._blocks[index] = block

    def _block_delta(self, event: JsonObject) -> None:
        block = self._open_block(event)
        delta = _object_in(event, "delta")
        match (block.kind, _text_in(delta, "type")):
            case ("text", "text_delta"):
                block.pieces.append(_text_in(delta, "text"))
            case ("tool_use", "input_json_delta"):
                block.pieces.append(_text_in(delta, "partial_json"))
            case ("text" | "tool_use", "text_delta" | "input_json_delta"):
                _malformed()
            case _:
                return  # citations, signatures, and what belongs to skipped blocks

    def _message_delta(self, event: JsonObject) -> None:
        if self._input_tokens is None:
            _malformed()
        reason = _object_in(event, "delta").get("stop_reason")
        if reason is not None:
            if not isinstance(reason, str) or reason not in _STOP_REASONS:
                _malformed()
            self._stop_reason = _STOP_REASONS[reason]
        usage = _object_in(event, "usage")
        self._output_tokens = _count_in(usage, "output_tokens")
        self._input_tokens = max(self._input_tokens, _input_tokens_in(usage, default=0))

    def _open_block(self, event: JsonObject) -> _Block:
        block = self._blocks.get(_count_in(event, "index"))
        if block is None or not block.is_open:
            _malformed()
        return block

    def _text(self) -> str:
        return "".join(
            "".join(self._blocks[index].pieces)
            for index in sorted(self._blocks)
            if self._blocks[index].kind == "text"
        )

    def _calls(self) -> tuple[ToolCall, ...]:
        calls: list[ToolCall] = []
        for index in sorted(self._blocks):
            block = self._blocks[index]
            if block.kind != "tool_use":
                continue
            written = "".join(block.pieces)
            arguments = parse_object(written) if written else block.whole_input
            calls.append(ToolCall(call_id=block.call_id, name=block.name, arguments=arguments))
        ids = {call.call_id for call in calls}
        if len(ids) != len(calls) or "" in ids or len(calls) > _MOST_CALLS:
            _malformed()
        return tuple(calls)


def _input_tokens_in(usage: JsonObject, *, default: int | None = None) -> int:
    """All input tokens: those of a prompt cache are counted beside the rest."""
    return (
        _count_in(usage, "input_tokens", default=default)
        + _count_in(usage, "cache_creation_input_tokens", default=0)
        + _count_in(usage, "cache_read_input_tokens", default=0)
    )


def _failure_told_by(data: str) -> ModelFailure:
    """Which failure an error event is. Its message stays behind: it may quote the request."""
    try:
        error = _object_in(parse_object(data), "error")
        kind = _text_in(error, "type")
    except ModelError:
        return ModelFailure.MALFORMED_REPLY
    return _ERROR_EVENTS.get(kind, ModelFailure.SERVER_ERROR)
