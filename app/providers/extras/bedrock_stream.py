"""Puts one Converse reply together from its stream of events, or refuses to.

Events arrive as the JSON text of their payload. A reply comes out only if `messageStop` and then
the count of tokens arrived, every block was closed, the stop reason is one we know and arguments
are JSON objects that can be written down again.

Threat: Prompt injection via task input
"""

from collections.abc import Mapping
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

_STOP_REASONS = {
    "end_turn": StopReason.END,
    "tool_use": StopReason.TOOL_USE,
    "max_tokens": StopReason.MAX_TOKENS,
    "model_context_window_exceeded": StopReason.MAX_TOKENS,
    "content_filtered": StopReason.REFUSAL,
    "guardrail_intervened": StopReason.REFUSAL,
    "refusal": StopReason.REFUSAL,
}
_EXCEPTIONS: Mapping[str, ModelFailure] = {
    "throttlingException": ModelFailure.RATE_LIMITED,
    "serviceUnavailableException": ModelFailure.OVERLOADED,
    "modelTimeoutException": ModelFailure.TIMEOUT,
    "validationException": ModelFailure.INVALID_REQUEST,
    "accessDeniedException": ModelFailure.AUTHENTICATION,
}


@dataclass(slots=True, kw_only=True)
class _Block:
    """One content block while it is being received."""

    call_id: str | None  # None: text
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    is_open: bool = True


class ConverseAssembler:
    """Takes the events of one reply in order; `finished()` gives the reply when all have come."""

    def __init__(self, price: ModelPrice) -> None:
        self._price = price
        self._blocks: dict[int, _Block] = {}
        self._bytes = 0
        self._stop: StopReason | None = None
        self._usage: JsonObject | None = None

    def take(self, kind: str, name: str, payload: str) -> None:
        """One event. Raises `ModelError` when it is an error or cannot be believed."""
        if kind in ("exception", "error"):
            raise model_error(_EXCEPTIONS.get(name, ModelFailure.SERVER_ERROR))
        self._bytes += len(payload)
        if kind != "event" or self._bytes > MOST_BYTES:
            malformed()
        event = parse_object(payload)
        match name:
            case "contentBlockStart":
                self._block_start(event)
            case "contentBlockDelta":
                self._block_delta(event)
            case "contentBlockStop":
                self._block(event).is_open = False
            case "messageStop":
                self._message_stop(event)
            case "metadata":
                self._usage = object_in(event, "usage")
            case _:
                return  # the beginning, and kinds yet to come

    def finished(self) -> ModelReply:
        """The whole reply; `model.stream_broken` when the stream ended before the reply did."""
        if self._stop is None or self._usage is None:
            raise model_error(ModelFailure.STREAM_BROKEN)
        if any(block.is_open for block in self._blocks.values()):
            malformed()
        wanted = self._stop in (StopReason.TOOL_USE, StopReason.END)
        return whole_reply(
            self._price,
            text="".join(
                "".join(block.pieces) for block in self._in_order() if block.call_id is None
            ),
            calls=self._calls() if wanted else (),
            stop=self._stop,
            # Those of a prompt cache are counted beside the rest.
            input_tokens=count_in(self._usage, "inputTokens")
            + count_in(self._usage, "cacheReadInputTokens", default=0)
            + count_in(self._usage, "cacheWriteInputTokens", default=0),
            output_tokens=count_in(self._usage, "outputTokens"),
        )

    def _message_stop(self, event: JsonObject) -> None:
        reason = text_in(event, "stopReason")
        if self._stop is not None or reason not in _STOP_REASONS:
            malformed()
        self._stop = _STOP_REASONS[reason]

    def _block_start(self, event: JsonObject) -> None:
        index = count_in(event, "contentBlockIndex")
        if self._stop is not None or index in self._blocks:
            malformed()
        start = object_in(event, "start")
        if "toolUse" in start:
            use = object_in(start, "toolUse")
            block = _Block(call_id=text_in(use, "toolUseId"), name=text_in(use, "name"))
        else:
            block = _Block(call_id=None)
        self._blocks[index] = block

    def _block_delta(self, event: JsonObject) -> None:
        index = count_in(event, "contentBlockIndex")
        if self._stop is not None:
            malformed()
        # A block of text begins with its first piece.
        block = self._blocks.setdefault(index, _Block(call_id=None))
        delta = object_in(event, "delta")
        if not block.is_open:
            malformed()
        if "text" in delta:
            if block.call_id is not None:
                malformed()
            block.pieces.append(text_in(delta, "text"))
        elif "toolUse" in delta:
            if block.call_id is None:
                malformed()
            block.pieces.append(text_in(object_in(delta, "toolUse"), "input"))
        # Reasoning, citations, and kinds yet to come are left out.

    def _block(self, event: JsonObject) -> _Block:
        block = self._blocks.get(count_in(event, "contentBlockIndex"))
        if block is None or not block.is_open:
            malformed()
        return block

    def _in_order(self) -> list[_Block]:
        return [self._blocks[index] for index in sorted(self._blocks)]

    def _calls(self) -> list[ToolCall]:
        return [
            ToolCall(
                call_id=block.call_id,
                name=block.name,
                arguments=parse_object("".join(block.pieces) or "{}"),
            )
            for block in self._in_order()
            if block.call_id is not None
        ]
