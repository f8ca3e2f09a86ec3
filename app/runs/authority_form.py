"""What a run may use at most, as records and the working copy spell it.

Threat: Privilege escalation via tool calls
"""

from decimal import Decimal

from pydantic import BaseModel, ConfigDict

from app.domain.capability import Capabilities
from app.domain.run import Json, JsonObject


class AuthorityForm(BaseModel):
    """The form that is read back. None is no bound."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, frozen=True)

    tools: list[str] | None
    recipients: list[str] | None
    domains: list[str] | None
    paths: list[str] | None
    max_amount: str | None
    max_calls: dict[str, int]
    readers: list[str] | None

    def opened(self) -> Capabilities:
        """The capabilities whose form this is."""
        return Capabilities(
            tools=_set(self.tools),
            recipients=_set(self.recipients),
            domains=_set(self.domains),
            paths=_set(self.paths),
            max_amount=None if self.max_amount is None else Decimal(self.max_amount),
            max_calls=self.max_calls,
            readers=_set(self.readers),
        )


def authority_json(said: Capabilities) -> JsonObject:
    """The one spelling."""
    return {
        "tools": _listed(said.tools),
        "recipients": _listed(said.recipients),
        "domains": _listed(said.domains),
        "paths": _listed(said.paths),
        "max_amount": None if said.max_amount is None else f"{said.max_amount.normalize():f}",
        "max_calls": dict(sorted(said.max_calls.items())),
        "readers": _listed(said.readers),
    }


def _listed(names: frozenset[str] | None) -> Json:
    return None if names is None else [*sorted(names)]


def _set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
