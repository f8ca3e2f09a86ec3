"""The one shape of every language model provider, and the closed list of ways a call can fail."""

from enum import StrEnum
from typing import Protocol

from app.domain.errors import ModelError
from app.domain.step import ModelReply
from app.domain.verdict import ClearedRequest


class ModelFailure(StrEnum):
    """Every code a provider's `ModelError` may carry. Records and callers see these words."""

    AUTHENTICATION = "model.authentication"  # the key is missing, wrong, or may not use the model
    RATE_LIMITED = "model.rate_limited"
    OVERLOADED = "model.overloaded"
    SERVER_ERROR = "model.server_error"
    TIMEOUT = "model.timeout"  # the request's own deadline passed
    UNREACHABLE = "model.unreachable"  # no connection: nothing was sent
    STREAM_BROKEN = "model.stream_broken"  # the reply stopped before its end
    MALFORMED_REPLY = "model.malformed_reply"  # a reply that is not what the API promises
    REFUSED = "model.refused"  # a whole reply whose stop reason is a refusal ends a run with this
    CUT_OFF = "model.max_tokens"  # a reply that ran into its token limit ends a run with this
    INVALID_REQUEST = "model.invalid_request"  # the provider did not accept what was asked
    UNKNOWN_MODEL = "model.unknown_model"  # not in the price table, so nothing was sent
    SCRIPT_EXHAUSTED = "model.script_exhausted"  # a test asked for more replies than it wrote


def model_error(failure: ModelFailure) -> ModelError:
    """The error for a failure. It carries the code and nothing of the provider's own words."""
    return ModelError(failure.value)


class ModelProvider(Protocol):
    """Something that answers a cleared request with one whole reply, or raises `ModelError`."""

    @property
    def name(self) -> str:
        """What records call this provider."""
        ...

    async def complete(self, cleared: ClearedRequest) -> ModelReply:
        """One reply, whole.

        Sends at most one request: retries are the caller's, each with its own record. Raises
        `ModelError` with a code of `ModelFailure`. Cancellation propagates and closes the
        connection.
        """
        ...

    async def warm_up(self) -> None:
        """Pay the first call's fixed costs now. Sends nothing; may be called more than once."""
        ...

    async def close(self) -> None:
        """Close what is open. The provider is not used afterwards."""
        ...
