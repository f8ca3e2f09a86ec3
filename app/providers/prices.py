"""Which models exist for this deployment and what their tokens cost, in integer micro-dollars.

A model that is not in this table is refused: a call whose cost nobody can state cannot be held to
a budget.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from app.domain.run import Usage

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LongPromptRate:
    """The rate for the whole call once its prompt is longer than `above_tokens`."""

    above_tokens: int
    input_micros_per_million: int
    output_micros_per_million: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPrice:
    """One model's price per million tokens in micro-dollars, and its limits in tokens."""

    name: str
    provider: str
    input_micros_per_million: int
    output_micros_per_million: int
    max_output_tokens: int
    context_tokens: int
    long_prompt: LongPromptRate | None = None


def _claude(  # a row of the table below, in dollars as price lists print them
    name: str,
    input_dollars: int,
    output_dollars: int,
    *,
    max_output: int = 128_000,
    context: int = 1_000_000,
) -> ModelPrice:
    return ModelPrice(
        name=name,
        provider="anthropic",
        input_micros_per_million=input_dollars * _MILLION,
        output_micros_per_million=output_dollars * _MILLION,
        max_output_tokens=max_output,
        context_tokens=context,
    )


def _hosted(  # a row of another provider, in dollars for a million tokens as price lists print them
    provider: str,
    name: str,
    rates: tuple[str, str],
    *,
    context: int,
    long_prompt: tuple[int, str, str] | None = None,
    max_output: int = 32_000,
) -> ModelPrice:
    return ModelPrice(
        name=name,
        provider=provider,
        input_micros_per_million=_micros(rates[0]),
        output_micros_per_million=_micros(rates[1]),
        # The most that is asked for: no more than the smallest limit of the provider's models.
        max_output_tokens=max_output,
        context_tokens=context,
        long_prompt=None
        if long_prompt is None
        else LongPromptRate(
            above_tokens=long_prompt[0],
            input_micros_per_million=_micros(long_prompt[1]),
            output_micros_per_million=_micros(long_prompt[2]),
        ),
    )


def _micros(dollars: str) -> int:
    return int(Decimal(dollars) * _MILLION)


def _openai(name: str, rates: tuple[str, str], long_rates: tuple[str, str] | None) -> ModelPrice:
    if long_rates is None:
        return _hosted("openai", name, rates, context=400_000)
    # The longer rate holds above 272,000 tokens.
    return _hosted("openai", name, rates, context=1_000_000, long_prompt=(272_000, *long_rates))


def _gemini(
    name: str, rates: tuple[str, str], long_prompt: tuple[int, str, str] | None = None
) -> ModelPrice:
    return _hosted("gemini", name, rates, context=1_000_000, long_prompt=long_prompt)


# The provider's public list prices as read in November 2026, without batch, cache or contract
# discounts. Prices are configuration: the operator must check them against their own contract.
# Thinking is billed as output and counts towards the output limit. Models whose list price was not
# public then are left out on purpose, and so are those that their provider is about to retire.
_ROWS = (
    _claude("claude-fable-5-1", 10, 50),
    _claude("claude-fable-5", 10, 50),
    _claude("claude-opus-5-5", 4, 20),
    _claude("claude-opus-5", 5, 25),
    _claude("claude-opus-4-8", 5, 25),
    _claude("claude-opus-4-7", 5, 25),
    _claude("claude-opus-4-6", 5, 25),
    _claude("claude-sonnet-5-5", 2, 10),
    _claude("claude-sonnet-5", 2, 10),
    _claude("claude-sonnet-4-6", 3, 15, max_output=64_000),
    ModelPrice(
        name="claude-haiku-5-5",
        provider="anthropic",
        input_micros_per_million=100_000,
        output_micros_per_million=500_000,
        max_output_tokens=128_000,
        context_tokens=1_000_000,
        long_prompt=LongPromptRate(
            above_tokens=100_000,
            input_micros_per_million=500_000,
            output_micros_per_million=2_500_000,
        ),
    ),
    _claude("claude-haiku-4-5", 1, 5, max_output=64_000, context=200_000),
    _claude("claude-haiku-4-5-20251001", 1, 5, max_output=64_000, context=200_000),
    _openai("gpt-6-astra", ("10", "50"), ("20", "75")),
    _openai("gpt-6-sol", ("2", "10"), ("4", "15")),
    _openai("gpt-6-luna", ("0.1", "0.5"), ("0.2", "0.75")),
    _openai("gpt-6.1-sol", ("2", "10"), ("4", "15")),
    _openai("gpt-6.1-terra", ("1", "5"), ("2", "7.5")),
    _openai("gpt-5.6-sol", ("4", "20"), ("8", "30")),
    _openai("gpt-5.6-terra", ("2", "12"), ("4", "18")),
    _openai("gpt-5.6-luna", ("0.2", "1.2"), ("0.4", "1.8")),
    _openai("gpt-5.5", ("5", "30"), ("10", "45")),
    _openai("gpt-5.4", ("2.5", "15"), ("5", "22.5")),
    _openai("gpt-5.4-mini", ("0.75", "4.5"), None),
    _gemini("gemini-4-argon", ("4", "20")),
    _gemini("gemini-3.8-flash", ("1.5", "7.5")),
    _gemini("gemini-3.5-flash-lite", ("0.3", "2.5")),
    _gemini("gemini-3.1-flash-lite", ("0.25", "1.5")),
    _gemini("gemini-2.5-pro", ("1.25", "10"), (200_000, "2.5", "15")),
    _gemini("gemini-2.5-flash", ("0.3", "2.5")),
    _gemini("gemini-2.5-flash-lite", ("0.1", "0.4")),
    # Bedrock: global profiles. Those of one region cost more, so they are other models here.
    _hosted("bedrock", "global.anthropic.claude-opus-5-5", ("4", "20"), context=1_000_000),
    _hosted("bedrock", "global.anthropic.claude-opus-5", ("5", "25"), context=1_000_000),
    _hosted("bedrock", "global.anthropic.claude-sonnet-5-5", ("2", "10"), context=1_000_000),
    _hosted(
        "bedrock",
        "global.anthropic.claude-haiku-5-5",
        ("0.1", "0.5"),
        context=1_000_000,
        long_prompt=(100_000, "0.5", "2.5"),
    ),
    _hosted("bedrock", "global.amazon.nova-2-lite-v1:0", ("0.3", "2.5"), context=1_000_000),
    ModelPrice(
        name="offline",
        provider="offline",
        input_micros_per_million=0,
        output_micros_per_million=0,
        max_output_tokens=8_192,
        context_tokens=200_000,
    ),
    # For tests of budgets: a price that is not zero, so that spending can be seen.
    ModelPrice(
        name="scripted",
        provider="scripted",
        input_micros_per_million=3 * _MILLION,
        output_micros_per_million=15 * _MILLION,
        max_output_tokens=8_192,
        context_tokens=200_000,
    ),
)

Models: TypeAlias = Mapping[str, ModelPrice]
MODELS: Models = {row.name: row for row in _ROWS}


def model_named(name: str) -> ModelPrice | None:
    """The model's row of the built-in table, or None."""
    return MODELS.get(name)


def cost_micros(price: ModelPrice, *, input_tokens: int, output_tokens: int) -> int:
    """What this many tokens cost, in micro-dollars, rounded up."""
    if input_tokens < 0 or output_tokens < 0:
        raise ValueError("token counts are not negative")
    input_rate, output_rate = price.input_micros_per_million, price.output_micros_per_million
    if price.long_prompt is not None and input_tokens > price.long_prompt.above_tokens:
        input_rate = price.long_prompt.input_micros_per_million
        output_rate = price.long_prompt.output_micros_per_million
    exact = input_tokens * input_rate + output_tokens * output_rate
    return -(-exact // _MILLION)


def usage_of(price: ModelPrice, *, input_tokens: int, output_tokens: int) -> Usage:
    """The usage of one call, priced. `steps` is the caller's to count."""
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_micros=cost_micros(price, input_tokens=input_tokens, output_tokens=output_tokens),
    )


def upper_bound(price: ModelPrice, input_tokens_estimate: int, max_output: int) -> int:
    """The most a call can cost, in micro-dollars, if its prompt is no longer than the estimate.

    No model writes more than its own limit, so a larger `max_output` does not raise the bound.
    """
    return cost_micros(
        price,
        input_tokens=input_tokens_estimate,
        output_tokens=min(max_output, price.max_output_tokens),
    )
