"""Claude models through the real SDK: one shared client, no SDK retries, our own deadline.

The SDK costs seconds to import: that happens in a thread, on warm-up or the first call, never when
this module is imported. The history is sent without thinking blocks, which `ModelReply` has no
place for; the API accepts a history with none of them.

Threat: Supply chain attacks
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.domain.step import ModelReply
from app.domain.verdict import ClearedRequest
from app.providers.prices import model_named
from app.providers.provider import ModelFailure, model_error

if TYPE_CHECKING:
    from app.providers.messages_session import MessagesSession

PUBLIC_BASE_URL = "https://api.anthropic.com"
_KEY = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)  # what may stand in a header


class AnthropicProvider:
    """The provider `anthropic`.

    `api_key` is called for every request, so a rotated key is used at once. The base URL is the
    public one unless given here: the environment cannot redirect prompts.
    """

    def __init__(self, api_key: Callable[[], str], *, base_url: str | None = None) -> None:
        self._api_key = api_key
        self._base_url = PUBLIC_BASE_URL if base_url is None else base_url
        self._session: MessagesSession | None = None
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        """What records call this provider."""
        return "anthropic"

    async def warm_up(self) -> None:
        """Import the SDK and build the client, in a thread. Sends nothing and needs no key."""
        await self._opened()

    async def close(self) -> None:
        """Close every connection. A later call opens a new client."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def complete(self, cleared: ClearedRequest) -> ModelReply:
        """One reply, whole, within the request's own deadline; at most one HTTP request.

        Raises `ModelError` with a code of `ModelFailure` and no other text. An unknown model, a key
        that is no key and an empty conversation are refused before anything is sent. The deadline
        does not count the SDK's import, which `warm_up` has paid.
        """
        request = cleared.request
        price = model_named(request.model)
        if price is None or price.provider != self.name:
            raise model_error(ModelFailure.UNKNOWN_MODEL)
        key = self._api_key()
        if _KEY.fullmatch(key) is None:
            raise model_error(ModelFailure.AUTHENTICATION)
        if request.max_output_tokens < 1:
            raise model_error(ModelFailure.INVALID_REQUEST)
        session = await self._opened()
        return await session.exchange(key, request, price)

    async def _opened(self) -> MessagesSession:
        async with self._opening:
            if self._session is None:
                self._session = await asyncio.to_thread(_open_session, self._base_url)
            return self._session


def _open_session(base_url: str) -> MessagesSession:
    """Import the SDK and build its client. Blocks for seconds; runs in a thread."""
    from app.providers.messages_session import (  # noqa: PLC0415  # imports the SDK: seconds, 78 MB
        MessagesSession,
    )

    return MessagesSession(base_url)
