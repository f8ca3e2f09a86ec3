"""Claude models through the real SDK, which every installation has and few processes need at once.

It costs seconds to import: that happens in a thread, on warm-up or the first call, never when this
module is imported. The history is sent without thinking blocks, which `ModelReply` has no place
for; the API accepts a history with none of them.

Threat: Supply chain attacks
"""

from collections.abc import Callable

from app.providers.late_provider import LateProvider, WireSession
from app.providers.prices import MODELS, Models

PUBLIC_BASE_URL = "https://api.anthropic.com"


def anthropic_provider(
    key: Callable[[], str], *, base_url: str | None = None, models: Models = MODELS
) -> LateProvider:
    """The provider `anthropic`. The environment cannot redirect prompts."""

    def opened() -> WireSession:
        from app.providers.messages_session import (  # noqa: PLC0415  # imports the SDK
            MessagesSession,
        )

        return MessagesSession(base_url or PUBLIC_BASE_URL)

    return LateProvider("anthropic", opened, key, models)
