"""Takes one reply out of the stream of the Responses API, whose last event holds it whole.

A reply comes out only if that event arrived, its status is one we know and tool arguments are JSON
objects that can be written down again.

Threat: Prompt injection via task input
"""

from collections.abc import Mapping

from app.domain.errors import ModelError
from app.domain.run import JsonObject
from app.domain.step import ModelReply, StopReason, ToolCall
from app.providers.prices import ModelPrice
from app.providers.provider import ModelFailure, model_error
from app.providers.wire.reply_json import (
    MOST_BYTES,
    count_in,
    malformed,
    object_in,
    objects_in,
    parse_object,
    text_in,
    whole_reply,
)

_LAST = ("response.completed", "response.incomplete", "response.failed")
_DONE = "[DONE]"  # what the servers of others add
_CUT_SHORT = {
    "max_output_tokens": StopReason.MAX_TOKENS,
    "content_filter": StopReason.REFUSAL,
}
_FAILURES: Mapping[str, ModelFailure] = {
    "rate_limit_exceeded": ModelFailure.RATE_LIMITED,
    "insufficient_quota": ModelFailure.RATE_LIMITED,
    "server_overloaded": ModelFailure.OVERLOADED,
    "invalid_prompt": ModelFailure.INVALID_REQUEST,
    "context_length_exceeded": ModelFailure.INVALID_REQUEST,
    "data_residency_mismatch": ModelFailure.INVALID_REQUEST,
    "bio_policy": ModelFailure.REFUSED,
    "misalignment_policy_violation": ModelFailure.REFUSED,
}


class FinalResponse:
    """Takes the events of one reply in order; `finished()` gives the reply when all have come."""

    def __init__(self, price: ModelPrice) -> None:
        self._price = price
        self._response: JsonObject | None = None

    def take(self, data: str) -> None:
        """One event. Raises `ModelError` when the event is an error or cannot be believed."""
        if data == _DONE:
            return
        event = parse_object(data)
        kind = text_in(event, "type")
        if kind == "error":
            raise model_error(_failure_in(event))
        if kind not in _LAST:
            return  # pieces of what the last one tells whole, and kinds yet to come
        if self._response is not None or len(data) > MOST_BYTES:
            malformed()
        self._response = object_in(event, "response")
        if kind == "response.failed":
            raise model_error(_failure_in(object_in(self._response, "error")))

    def finished(self) -> ModelReply:
        """The whole reply; `model.stream_broken` when the stream ended before the reply did."""
        response = self._response
        if response is None:
            raise model_error(ModelFailure.STREAM_BROKEN)
        text: list[str] = []
        calls: list[ToolCall] = []
        refused = False
        stop = _stop_reason(response)
        for item in objects_in(response, "output"):
            match text_in(item, "type"):
                case "message":
                    refused |= _take_parts(item, text)
                case "function_call":
                    if stop is StopReason.END:
                        calls.append(_call(item))
                case _:
                    continue  # reasoning, and kinds yet to come
        if stop is StopReason.END and refused:
            stop = StopReason.REFUSAL
        elif stop is StopReason.END and calls:
            stop = StopReason.TOOL_USE
        usage = object_in(response, "usage")
        return whole_reply(
            self._price,
            text="".join(text),
            calls=calls,
            stop=stop,
            # Tokens read from and written to a cache are among the input tokens.
            input_tokens=count_in(usage, "input_tokens"),
            output_tokens=count_in(usage, "output_tokens"),
        )


def _stop_reason(response: JsonObject) -> StopReason:
    status = text_in(response, "status")
    if status == "completed":
        return StopReason.END
    if status != "incomplete":
        malformed()
    reason = text_in(object_in(response, "incomplete_details"), "reason")
    if reason not in _CUT_SHORT:
        malformed()
    return _CUT_SHORT[reason]


def _take_parts(item: JsonObject, text: list[str]) -> bool:
    """The texts of a message; True when it is a refusal."""
    refused = False
    for part in objects_in(item, "content"):
        match text_in(part, "type"):
            case "output_text":
                text.append(text_in(part, "text"))
            case "refusal":
                refused = True
                text.append(text_in(part, "refusal"))
            case _:
                continue
    return refused


def _call(item: JsonObject) -> ToolCall:
    return ToolCall(
        call_id=text_in(item, "call_id"),
        name=text_in(item, "name"),
        arguments=parse_object(text_in(item, "arguments") or "{}"),
    )


def _failure_in(error: JsonObject) -> ModelFailure:
    """Which failure it is. The message stays behind: it may quote the request."""
    try:
        code = text_in(error, "code")
    except ModelError:
        return ModelFailure.SERVER_ERROR
    return _FAILURES.get(code, ModelFailure.SERVER_ERROR)
