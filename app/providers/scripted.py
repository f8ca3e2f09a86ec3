"""The provider for tests: answers from a list written beforehand, remembers what it was asked."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from app.domain.errors import ModelError
from app.domain.step import ModelReply, ModelRequest
from app.domain.verdict import ClearedRequest
from app.providers.provider import ModelFailure, model_error

Scripted: TypeAlias = ModelReply | ModelError | Callable[[ModelRequest], ModelReply]


class ScriptedProvider:
    """The provider `scripted`: one item of `replies` a call, in order.

    A reply is given, an error is raised, a function is called with the request. When the list is
    used up every call fails with `model.script_exhausted`. `before_reply` is awaited first, so that
    a test decides when a reply comes. `requests` holds every request, in order.
    """

    def __init__(
        self,
        replies: Sequence[Scripted],
        *,
        before_reply: Callable[[ModelRequest], Awaitable[None]] | None = None,
    ) -> None:
        self._replies = tuple(replies)
        self._before_reply = before_reply
        self.requests: list[ModelRequest] = []
        self.closed = False

    @property
    def name(self) -> str:
        """What records call this provider."""
        return "scripted"

    async def warm_up(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Remembers that it was closed."""
        self.closed = True

    async def complete(self, cleared: ClearedRequest) -> ModelReply:
        """The next item of the script."""
        request = cleared.request
        place = len(self.requests)
        self.requests.append(request)
        if self._before_reply is not None:
            await self._before_reply(request)
        if place >= len(self._replies):
            raise model_error(ModelFailure.SCRIPT_EXHAUSTED)
        match self._replies[place]:
            case ModelReply() as reply:
                return reply
            case ModelError() as error:
                raise error
            case answer:
                return answer(request)
