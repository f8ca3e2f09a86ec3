"""What an operator says of language models: who answers, with which key, at which address.

Threat: Unauthorised API access
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from app.domain.errors import ConfigurationError
from app.egress.egress_settings import Hidden

# The providers' own names, without our prefix, so that a key that is already there is found.
ANTHROPIC_KEY = "ANTHROPIC_API_KEY"
OPENAI_KEY = "OPENAI_API_KEY"
GEMINI_KEY = "GEMINI_API_KEY"
KEY_NAMES = (ANTHROPIC_KEY, OPENAI_KEY, GEMINI_KEY)
NAMES = (
    "PROVIDER",
    "ANTHROPIC_BASE_URL",
    "OPENAI_BASE_URL",
    "GEMINI_BASE_URL",
    "BEDROCK_REGION",
    "BEDROCK_BASE_URL",
)
_REGION = re.compile(r"[a-z]{2,4}(?:-[a-z0-9]{1,16}){1,4}")

_Value = TypeVar("_Value")


class ProviderName(StrEnum):
    """Who answers model calls."""

    OFFLINE = "offline"
    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    GEMINI = "gemini"
    BEDROCK = "bedrock"


class ProviderReader(Protocol):
    """Whoever reads names of the environment, without our prefix, and notes what they came to."""

    def plain(
        self, name: str, parse: Callable[[str], _Value | None], default: _Value, rule: str
    ) -> _Value:
        """The parsed value or the default. ConfigurationError when it does not parse."""

    def choice(self, name: str, allowed: tuple[str, ...], default: str) -> str:
        """One of a few words."""

    def base_url(self, name: str) -> str | None:
        """An http(s) URL without credentials."""

    def secret(self, full: str, check: Callable[[str], str | None]) -> Hidden | None:
        """A secret by its whole name, or from the file that its twin names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """As read. A provider is there when it has a key; Bedrock, when it has a region."""

    chosen: ProviderName
    anthropic_key: Hidden | None
    anthropic_base_url: str | None
    openai_key: Hidden | None
    openai_base_url: str | None
    gemini_key: Hidden | None
    gemini_base_url: str | None
    bedrock_region: str | None
    bedrock_base_url: str | None

    @classmethod
    def read(cls, names: ProviderReader) -> "ProviderSettings":
        """From the environment; ConfigurationError names the first bad one."""
        keys = {name: names.secret(name, _printable) for name in KEY_NAMES}
        region = names.plain("BEDROCK_REGION", _region, None, "a region like eu-central-1")
        default = ProviderName.ANTHROPIC if keys[ANTHROPIC_KEY] else ProviderName.OFFLINE
        chosen = ProviderName(names.choice("PROVIDER", tuple(ProviderName), default))
        _check_is_there(chosen, keys, region)
        return cls(
            chosen=chosen,
            anthropic_key=keys[ANTHROPIC_KEY],
            anthropic_base_url=names.base_url("ANTHROPIC_BASE_URL"),
            openai_key=keys[OPENAI_KEY],
            openai_base_url=names.base_url("OPENAI_BASE_URL"),
            gemini_key=keys[GEMINI_KEY],
            gemini_base_url=names.base_url("GEMINI_BASE_URL"),
            bedrock_region=region,
            bedrock_base_url=names.base_url("BEDROCK_BASE_URL"),
        )

    def secret_values(self) -> list[str]:
        """The keys: what may stand in no log and no record."""
        held = (self.anthropic_key, self.openai_key, self.gemini_key)
        return [key.reveal() for key in held if key is not None]


def _check_is_there(
    chosen: ProviderName, keys: dict[str, Hidden | None], region: str | None
) -> None:
    """ConfigurationError when the provider that was named has no key."""
    needs = {
        ProviderName.ANTHROPIC: ANTHROPIC_KEY,
        ProviderName.OPENAI: OPENAI_KEY,
        ProviderName.GEMINI: GEMINI_KEY,
    }
    if chosen is ProviderName.BEDROCK and region is None:
        raise ConfigurationError(
            "MESHFLOW_PROVIDER is bedrock but MESHFLOW_BEDROCK_REGION is not set"
        )
    name = needs.get(chosen)
    if name is not None and keys[name] is None:
        raise ConfigurationError(
            f"MESHFLOW_PROVIDER is {chosen} but neither {name} nor {name}_FILE is set"
        )


def _region(raw: str) -> str | None:
    return raw if _REGION.fullmatch(raw) else None


def _printable(value: str) -> str | None:
    return value if value.isascii() and value.isprintable() and " " not in value else None
