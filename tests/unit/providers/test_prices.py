"""Costs are whole micro-dollars, rounded up, and bounded before a call is made."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.prices import MODELS, ModelPrice, cost_micros, model_named, upper_bound, usage_of

tokens = st.integers(min_value=0, max_value=2_000_000)
prices = st.sampled_from(sorted(MODELS.values(), key=lambda price: price.name))


@given(prices, tokens, tokens)
def test_a_cost_is_the_exact_one_rounded_up(price: ModelPrice, read: int, written: int) -> None:
    rates = price.input_micros_per_million, price.output_micros_per_million
    if price.long_prompt is not None and read > price.long_prompt.above_tokens:
        long = price.long_prompt
        rates = long.input_micros_per_million, long.output_micros_per_million
    exact = Fraction(read * rates[0] + written * rates[1], 1_000_000)
    cost = cost_micros(price, input_tokens=read, output_tokens=written)
    assert exact <= cost < exact + 1


@given(prices, tokens, tokens, tokens, tokens)
def test_no_call_within_its_limits_costs_more_than_its_upper_bound(
    price: ModelPrice, read: int, more: int, written: int, limit: int
) -> None:
    allowed = min(written, limit, price.max_output_tokens)
    cost = cost_micros(price, input_tokens=read, output_tokens=allowed)
    assert cost <= upper_bound(price, read + more, limit)


def test_one_token_of_a_paid_model_is_never_free() -> None:
    for price in MODELS.values():
        cost = cost_micros(price, input_tokens=1, output_tokens=0)
        assert (cost > 0) == (price.provider != "offline")


def test_a_long_prompt_moves_the_whole_call_to_the_higher_rate() -> None:
    haiku = MODELS["claude-haiku-5-5"]
    assert cost_micros(haiku, input_tokens=100_000, output_tokens=1_000) == 10_500
    assert cost_micros(haiku, input_tokens=100_001, output_tokens=1_000) == 52_501


def test_usage_carries_tokens_and_cost() -> None:
    usage = usage_of(MODELS["scripted"], input_tokens=10, output_tokens=2)
    assert (usage.input_tokens, usage.output_tokens, usage.cost_micros) == (10, 2, 60)


def test_an_unknown_model_has_no_price() -> None:
    assert model_named("claude-imaginary") is None
    assert model_named("") is None


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="not negative"):
        cost_micros(MODELS["scripted"], input_tokens=-1, output_tokens=0)


def test_every_row_is_under_its_own_name_and_has_limits() -> None:
    for name, price in MODELS.items():
        assert price.name == name
        assert 0 < price.max_output_tokens < price.context_tokens
