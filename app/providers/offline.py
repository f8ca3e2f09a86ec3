"""The provider for machines without a provider key: a rule-based stand-in that says what it is.

Everything around it is real: the gate, the tools, the ledger. It costs nothing, needs no network.
"""

from app.domain.step import ModelReply, ModelRequest, ResultsMessage, StopReason, ToolCall
from app.domain.verdict import ClearedRequest
from app.providers.offline_planner import next_step
from app.providers.prices import model_named, usage_of
from app.providers.provider import ModelFailure, model_error

_CHARACTERS_PER_TOKEN = 4


class OfflineProvider:
    """The provider `offline`, with its one model of the same name."""

    @property
    def name(self) -> str:
        """What records call this provider."""
        return "offline"

    async def warm_up(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to close."""

    async def complete(self, cleared: ClearedRequest) -> ModelReply:
        """The next step by plain rules: one tool call, or a final text that names the stand-in.

        Deterministic. Raises `ModelError` for any model but `offline`.
        """
        request = cleared.request
        price = model_named(request.model)
        if price is None or price.provider != self.name:
            raise model_error(ModelFailure.UNKNOWN_MODEL)
        if request.max_output_tokens < 1:
            raise model_error(ModelFailure.INVALID_REQUEST)
        step = next_step(request)
        limit = min(request.max_output_tokens, price.max_output_tokens) * _CHARACTERS_PER_TOKEN
        calls: tuple[ToolCall, ...] = ()
        if isinstance(step, ToolCall):
            text, calls, stop = "", (step,), StopReason.TOOL_USE
            written = len(str(step.arguments))
        else:
            text = step.text[:limit]
            stop = StopReason.END if len(step.text) <= limit else StopReason.MAX_TOKENS
            written = len(text)
        usage = usage_of(
            price,
            input_tokens=_tokens(_characters(request)),
            output_tokens=_tokens(written),
        )
        return ModelReply(text=text, calls=calls, stop_reason=stop, usage=usage)


def _tokens(characters: int) -> int:
    return -(-characters // _CHARACTERS_PER_TOKEN)


def _characters(request: ModelRequest) -> int:
    total = len(request.system)
    for message in request.messages:
        if isinstance(message, ResultsMessage):
            total += sum(len(result.content) for result in message.results)
        else:
            total += len(message.text)
    return total
