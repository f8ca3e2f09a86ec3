"""Estimates, as an upper bound, how many tokens a request to a model has before it is made."""

from collections.abc import Iterable

from app.domain.step import Message, ReplyMessage, ResultsMessage

# A low figure, so that the reservation is an upper bound in practice. Bytes and not characters:
# in most scripts one character is a token or more.
_BYTES_PER_TOKEN = 3
_TOKENS_PER_TOOL = 400


def estimated_tokens(system: str, messages: Iterable[Message], tools: int) -> int:
    """The tokens of a request with this many tools."""
    size = _bytes(system) + sum(map(_size, messages))
    return size // _BYTES_PER_TOKEN + tools * _TOKENS_PER_TOOL + 64


def _size(message: Message) -> int:
    match message:
        case ReplyMessage():
            return _bytes(message.text) + sum(_bytes(str(call.arguments)) for call in message.calls)
        case ResultsMessage():
            return sum(_bytes(result.content) for result in message.results)
        case _:
            return _bytes(message.text)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
