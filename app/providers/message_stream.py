"""Puts one Messages API reply together from its stream of events, or refuses to.

Events arrive as the text of their `data:` field, before any library has read meaning into them.
A reply comes out only if `message_stop` arrived, every block was closed, the stop reason is one we
know and tool arguments are JSON objects that can be written down again. What is not understood is
either harmless by the API's own rules (new event and block kinds are skipped) or an error.

Threat: Prompt injection via task input
"""

from dataclasses import dataclass, field

from app.domain.run import JsonObject
from app.domain.step import ModelReply, StopReason, ToolCall
from app.providers.prices import ModelPrice
from app.providers.provider import ModelFailure, model_error
from app.providers.wire.reply_json import (
    MOST_BYTES,
    count_in,
    malformed,
    object_in,
    parse_object,
    text_in,
    whole_reply,
)

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

    def take(self, data: str) -> None:
        """One event. Raises `ModelError` when the event is an error or cannot be believed."""
        self._bytes += len(data)
        if self._bytes > MOST_BYTES:
            malformed()
        event = parse_object(data)
        kind = text_in(event, "type")
        if kind == "error":
            raise model_error(_failure_told_by(event))
        if self._stopped and kind != "ping":
            malformed()
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
            malformed()
        stop = self._stop_reason
        return whole_reply(
            self._price,
            text=self._text(),
            calls=self._calls() if stop in (StopReason.TOOL_USE, StopReason.END) else (),
            stop=stop,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
        )

    def _message_start(self, event: JsonObject) -> None:
        if self._input_tokens is not None:
            malformed()
        usage = object_in(object_in(event, "message"), "usage")
        self._input_tokens = _input_tokens_in(usage)

    def _block_start(self, event: JsonObject) -> None:
        index = count_in(event, "index")
        if self._input_tokens is None or index in self._blocks:
            malformed()
        content = object_in(event, "content_block")
        match text_in(content, "type"):
            case "text":
                block = _Block(kind="text", pieces=[text_in(content, "text")])
            case "tool_use":
                block = _Block(
                    kind="tool_use",
                    call_id=text_in(content, "id"),
                    name=text_in(content, "name"),
                    whole_input=object_in(content, "input"),
                )
            case _:
                # Thinking, and kinds yet to come. They are dropped whole, never in part: the API
                # accepts a history without thinking and refuses one with some of it.
                block = _Block(kind="skipped")
        self._blocks[index] = block

    def _block_delta(self, event: JsonObject) -> None:
        block = self._open_block(event)
        delta = object_in(event, "delta")
        match (block.kind, text_in(delta, "type")):
            case ("text", "text_delta"):
                block.pieces.append(text_in(delta, "text"))
            case ("tool_use", "input_json_delta"):
                block.pieces.append(text_in(delta, "partial_json"))
            case ("text" | "tool_use", "text_delta" | "input_json_delta"):
                malformed()
            case _:
                return  # citations, signatures, and what belongs to skipped blocks

    def _message_delta(self, event: JsonObject) -> None:
        if self._input_tokens is None:
            malformed()
        reason = object_in(event, "delta").get("stop_reason")
        if reason is not None:
            if not isinstance(reason, str) or reason not in _STOP_REASONS:
                malformed()
            self._stop_reason = _STOP_REASONS[reason]
        usage = object_in(event, "usage")
        self._output_tokens = count_in(usage, "output_tokens")
        self._input_tokens = max(self._input_tokens, _input_tokens_in(usage, default=0))

    def _open_block(self, event: JsonObject) -> _Block:
        block = self._blocks.get(count_in(event, "index"))
        if block is None or not block.is_open:
            malformed()
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
        return tuple(calls)


def _input_tokens_in(usage: JsonObject, *, default: int | None = None) -> int:
    """All input tokens: those of a prompt cache are counted beside the rest."""
    return (
        count_in(usage, "input_tokens", default=default)
        + count_in(usage, "cache_creation_input_tokens", default=0)
        + count_in(usage, "cache_read_input_tokens", default=0)
    )


def _failure_told_by(event: JsonObject) -> ModelFailure:
    """Which failure an error event is. Its message stays behind: it may quote the request."""
    kind = text_in(object_in(event, "error"), "type")
    return _ERROR_EVENTS.get(kind, ModelFailure.SERVER_ERROR)
