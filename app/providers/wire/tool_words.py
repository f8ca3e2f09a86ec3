"""Names of tools as the APIs of providers can read them, and a conversation in turns of two."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from app.domain.step import Message, ModelReply, ModelRequest, ReplyMessage
from app.providers.provider import ModelFailure, model_error

_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)  # what the APIs take as the name of a tool
_UNKNOWN = "unknown_tool"

_Block = TypeVar("_Block")


def wire_name(name: str) -> str:
    """A name of ours without what the APIs cannot read."""
    return name.replace(".", "_")


def wire_names(request: ModelRequest) -> dict[str, str]:
    """Wire name -> our name. Ours may hold dots, the APIs' may not; a clash is refused."""
    names = {wire_name(tool.name): tool.name for tool in request.tools}
    usable = all(_WORD.fullmatch(name) is not None for name in names)
    if len(names) != len(request.tools) or not usable:
        raise model_error(ModelFailure.INVALID_REQUEST)
    return names


def past_name(name: str, names: Mapping[str, str]) -> str:
    """The name of a call that was made. `names` are those that are offered.

    A call of a tool that was never offered is in the history with its refusal. Its name is the
    model's own; only what the API can read of it goes back.
    """
    wire = wire_name(name)
    return wire if wire in names or _WORD.fullmatch(wire) is not None else _UNKNOWN


def with_our_names(reply: ModelReply, names: Mapping[str, str]) -> ModelReply:
    """The reply with our names of tools; a name that was never offered stays as it came."""
    calls = tuple(replace(call, name=names.get(call.name, call.name)) for call in reply.calls)
    return replace(reply, calls=calls)


def turns(
    messages: Sequence[Message], blocks_of: Callable[[Message], list[_Block]]
) -> list[tuple[bool, list[_Block]]]:
    """Whose turn it is (True: the model's) and its blocks; the sides alternate, no turn is empty.

    Text of every origin but the model's replies is the user's: the system prompt is the operator's
    alone and travels apart.
    """
    found: list[tuple[bool, list[_Block]]] = []
    for message in messages:
        from_model, blocks = isinstance(message, ReplyMessage), blocks_of(message)
        if found and found[-1][0] == from_model:
            found[-1][1].extend(blocks)
        elif blocks:
            found.append((from_model, blocks))
    return found
