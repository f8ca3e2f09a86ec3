"""A provider whose SDK is imported late, in a thread: one session, our own deadline.

Each SDK costs seconds and tens of megabytes: that happens on warm-up or the first call, never when
this module is imported.

Threat: Supply chain attacks
"""

import asyncio
import re
from collections.abc import Callable
from typing import Protocol

from app.domain.step import ModelReply, ModelRequest
from app.domain.verdict import ClearedRequest
from app.providers.prices import MODELS, ModelPrice, Models
from app.providers.provider import ModelFailure, model_error

_KEY = re.compile(r"[\x21-\x7e]{1,512}", re.ASCII)  # what may stand in a header


class WireSession(Protocol):
    """An open client of one provider's API."""

    async def exchange(self, key: str, request: ModelRequest, price: ModelPrice) -> ModelReply:
        """One request, one whole reply, within the request's own deadline; else `ModelError`."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class LateProvider:
    """The provider `name`. `key` None: the SDK finds credentials by its own chain.

    `key` is called for every request, so a rotated one is used at once.
    """

    def __init__(
        self,
        name: str,
        open_session: Callable[[], WireSession],
        key: Callable[[], str] | None,
        models: Models = MODELS,
    ) -> None:
        self._name = name
        self._open_session = open_session
        self._key = key
        self._models = models
        self._session: WireSession | None = None
        self._opening = asyncio.Lock()

    @property
    def name(self) -> str:
        """What records call this provider."""
        return self._name

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
        price = self._models.get(request.model)
        if price is None or price.provider != self.name:
            raise model_error(ModelFailure.UNKNOWN_MODEL)
        key = "" if self._key is None else self._key()
        if self._key is not None and _KEY.fullmatch(key) is None:
            raise model_error(ModelFailure.AUTHENTICATION)
        if request.max_output_tokens < 1:
            raise model_error(ModelFailure.INVALID_REQUEST)
        session = await self._opened()
        return await session.exchange(key, request, price)

    async def _opened(self) -> WireSession:
        async with self._opening:
            if self._session is None:
                self._session = await asyncio.to_thread(self._open_session)
            return self._session
