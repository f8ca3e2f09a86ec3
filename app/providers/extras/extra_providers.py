"""The providers whose SDKs are extras: each is known here by name, and imported when it is used.

Threat: Supply chain attacks
"""

from collections.abc import Callable

from app.providers.late_provider import LateProvider, WireSession
from app.providers.prices import MODELS, Models


def openai_provider(
    key: Callable[[], str], *, base_url: str | None = None, models: Models = MODELS
) -> LateProvider:
    """The provider `openai`. The environment cannot redirect prompts."""

    def opened() -> WireSession:
        from app.providers.extras.openai_session import (  # noqa: PLC0415  # imports the SDK
            OpenAISession,
        )

        return OpenAISession(base_url or "https://api.openai.com/v1")

    return LateProvider("openai", opened, key, models)


def gemini_provider(
    key: Callable[[], str], *, base_url: str | None = None, models: Models = MODELS
) -> LateProvider:
    """The provider `gemini`. The environment cannot redirect prompts."""

    def opened() -> WireSession:
        from app.providers.extras.gemini_session import (  # noqa: PLC0415  # imports the SDK
            GeminiSession,
        )

        return GeminiSession(base_url or "https://generativelanguage.googleapis.com")

    return LateProvider("gemini", opened, key, models)


def bedrock_provider(
    region: str, *, base_url: str | None = None, models: Models = MODELS
) -> LateProvider:
    """The provider `bedrock`, with the credentials that the SDK finds.

    Its configuration of endpoints is not followed: it cannot redirect prompts.
    """

    def opened() -> WireSession:
        from app.providers.extras.bedrock_session import (  # noqa: PLC0415  # imports the SDK
            BedrockSession,
        )

        return BedrockSession(region, base_url)

    return LateProvider("bedrock", opened, None, models)
