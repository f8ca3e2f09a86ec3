"""Puts one Gemini reply together from the chunks that the SDK read, or refuses to.

A reply comes out only if a finish reason that we know and a count of tokens arrived, and arguments
are JSON objects that can be written down again. Only types of the SDK are named here.

Threat: Prompt injection via task input
"""

from typing import TYPE_CHECKING

from app.domain.step import ModelReply, StopReason, ToolCall
from app.providers.prices import ModelPrice
from app.providers.provider import ModelFailure, model_error
from app.providers.wire.reply_json import MOST_BYTES, checked_object, malformed, whole_reply

if TYPE_CHECKING:
    from google.genai import types

_STOP_REASONS = {
    "STOP": StopReason.END,
    "MAX_TOKENS": StopReason.MAX_TOKENS,
    "SAFETY": StopReason.REFUSAL,
    "RECITATION": StopReason.REFUSAL,
    "LANGUAGE": StopReason.REFUSAL,
    "BLOCKLIST": StopReason.REFUSAL,
    "PROHIBITED_CONTENT": StopReason.REFUSAL,
    "SPII": StopReason.REFUSAL,
    "MODEL_ARMOR": StopReason.REFUSAL,
}
_MADE = "made_"


def is_made_id(call_id: str) -> bool:
    """Whether the id of a call is ours: the API does not always give one."""
    return call_id.startswith(_MADE)


class CandidateAssembler:
    """Takes the chunks of one reply in order; `finished()` gives the reply when all have come.

    `turn` counts the model's turns before: made ids of calls differ from turn to turn.
    """

    def __init__(self, price: ModelPrice, *, turn: int) -> None:
        self._price = price
        self._turn = turn
        self._text: list[str] = []
        self._characters = 0
        self._calls: list[ToolCall] = []
        self._stop: StopReason | None = None
        self._input_tokens: int | None = None
        self._output_tokens = 0

    def take(self, chunk: "types.GenerateContentResponse") -> None:
        """One chunk. Raises `ModelError` when it cannot be believed."""
        if chunk.usage_metadata is not None:
            self._count(chunk.usage_metadata)
        feedback = chunk.prompt_feedback
        if feedback is not None and feedback.block_reason is not None:
            self._stop = StopReason.REFUSAL  # of the prompt: no candidate will come
        candidates = chunk.candidates or []
        if len(candidates) > 1:
            malformed()  # one was asked for
        for candidate in candidates:
            self._take_candidate(candidate)

    def finished(self) -> ModelReply:
        """The whole reply; `model.stream_broken` when the stream ended before the reply did."""
        if self._stop is None:
            raise model_error(ModelFailure.STREAM_BROKEN)
        if self._input_tokens is None:
            malformed()
        stop = self._stop
        return whole_reply(
            self._price,
            text="".join(self._text),
            calls=self._calls,
            stop=StopReason.TOOL_USE if stop is StopReason.END and self._calls else stop,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
        )

    def _take_candidate(self, candidate: "types.Candidate") -> None:
        parts = None if candidate.content is None else candidate.content.parts
        for part in parts or []:
            if part.thought:
                continue
            if part.text is not None:
                self._take_text(part.text)
            if part.function_call is not None:
                self._take_call(part.function_call)
        reason = candidate.finish_reason
        if reason is not None:
            if reason.value not in _STOP_REASONS:
                malformed()
            self._stop = _STOP_REASONS[reason.value]

    def _take_text(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MOST_BYTES:
            malformed()
        checked_object({"text": text})  # half surrogates could not be written down
        self._text.append(text)

    def _take_call(self, call: "types.FunctionCall") -> None:
        if not call.name or call.partial_args or call.will_continue:
            malformed()  # arguments in pieces come only where they were asked for
        number = len(self._calls)
        self._calls.append(
            ToolCall(
                call_id=call.id or f"{_MADE}{self._turn}_{number}",
                name=call.name,
                arguments=checked_object(call.args or {}),
            )
        )

    def _count(self, usage: "types.GenerateContentResponseUsageMetadata") -> None:
        """Tokens read from a cache are among those of the prompt; thoughts are billed as output."""
        read = (usage.prompt_token_count, usage.tool_use_prompt_token_count)
        written = (usage.candidates_token_count, usage.thoughts_token_count)
        if any(count is not None and count < 0 for count in (*read, *written)):
            malformed()
        if usage.prompt_token_count is not None:
            self._input_tokens = sum(count or 0 for count in read)
        self._output_tokens = sum(count or 0 for count in written)
