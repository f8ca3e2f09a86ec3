"""The models and prices of this deployment: the built-in table, and what its operator says instead.

Fails closed: a file that is malformed, too large or says a word that is not known stops the start,
for a price with a typing error in it would be a budget that nobody holds to.

Threat: Privilege escalation via tool calls
"""

from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.domain.errors import ConfigurationError
from app.keys.agent_catalogue import read_table
from app.providers.prices import MODELS, LongPromptRate, ModelPrice, Models

FILE_NAME = "prices.toml"
_MOST_MODELS = 500
_STAND_INS = frozenset({"offline", "scripted"})

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\-]{1,128}\z")]
_Rate = Annotated[int, Field(ge=0, le=10**12)]
_Tokens = Annotated[int, Field(ge=1, le=10**9)]


class _Closed(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        regex_engine="rust-regex",
    )


class _LongPrompt(_Closed):
    above_tokens: _Tokens
    input_micros_per_million: _Rate
    output_micros_per_million: _Rate


class _Model(_Closed):
    provider: Literal["anthropic", "openai", "gemini", "bedrock"]
    input_micros_per_million: _Rate
    output_micros_per_million: _Rate
    max_output_tokens: _Tokens
    context_tokens: _Tokens
    long_prompt: _LongPrompt | None = None


class _File(_Closed):
    models: Annotated[dict[_Name, _Model], Field(max_length=_MOST_MODELS)]


def load_prices(config_dir: Path | None) -> Models:
    """Every model by name. A row of `prices.toml` stands in the place of the built-in one.

    ConfigurationError for a file that is not right, or that names one of the stand-ins.
    """
    path = None if config_dir is None else config_dir / FILE_NAME
    if path is None or not path.exists():
        return MODELS
    rows = read_table(path, FILE_NAME, _checked)
    _require_no_stand_in(rows)
    own = {name: _price(name, row) for name, row in rows.items()}
    return MappingProxyType({**MODELS, **own})


def _checked(table: object) -> dict[str, _Model]:
    return _File.model_validate(table).models


def _require_no_stand_in(names: Iterable[str]) -> None:
    for name in names:
        known = MODELS.get(name)
        if known is not None and known.provider in _STAND_INS:
            raise ConfigurationError(f"{FILE_NAME}: {name} is a stand-in and costs what it costs")


def _price(name: str, row: _Model) -> ModelPrice:
    longer = row.long_prompt
    return ModelPrice(
        name=name,
        provider=row.provider,
        input_micros_per_million=row.input_micros_per_million,
        output_micros_per_million=row.output_micros_per_million,
        max_output_tokens=row.max_output_tokens,
        context_tokens=row.context_tokens,
        long_prompt=None if longer is None else LongPromptRate(**longer.model_dump()),
    )
