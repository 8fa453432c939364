"""Prices: as genai-prices has them, by tokens, dated, and unknown where they are unknown."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime
from decimal import Decimal

import genai_prices
import pytest
from genai_prices import data_snapshot

from costopt import ConfigError, Price, Usage
from costopt.pricing import ListedModel, cost, listed, price_list

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def test_costs_are_those_of_the_price_list() -> None:
    """Our sum, which is quick, against theirs, on models of all providers, with and without cached input."""
    models = [(seller, info) for seller in data_snapshot.get_snapshot().providers for info in seller.models]
    compared = 0
    for seller, info in random.Random(4).sample(models, 60):
        ours = ListedModel(info.id, seller.id, info.context_window, info, True)
        for usage in (Usage(100, 50), Usage(300_000, 50, 1_000), Usage(9_000, 50, 1_000, 2_000, 1_500)):
            price = ours.price(usage.input_tokens, when=NOW)
            if price is None:
                continue
            theirs = info.calc_price(
                genai_prices.Usage(
                    input_tokens=usage.input_tokens,
                    output_tokens=usage.output_tokens,
                    cache_read_tokens=usage.cached_tokens or None,
                    cache_write_tokens=usage.cache_write_tokens or None,
                    cache_write_1h_tokens=usage.cache_write_1h_tokens or None,
                ),
                seller,
                genai_request_timestamp=NOW,
            )
            assert price.cost(usage) == theirs.total_price, info.id
            compared += 1
    assert compared > 60


def test_long_inputs_cost_more_with_some_models() -> None:
    model = listed("gpt-5.4")
    assert model is not None
    (start,) = model.steps()
    short, long = model.price(start), model.price(start + 1)
    assert short is not None
    assert long is not None
    assert long.input == 2 * short.input


def test_cached_input_is_cheaper() -> None:
    whole, cached = cost("gpt-4o", Usage(1000, 0)), cost("gpt-4o", Usage(1000, 0, 1000))
    assert whole == 2 * cached  # type: ignore[operator]


def test_a_batch_costs_less_unit_by_unit() -> None:
    model = listed("gpt-4o")
    assert model is not None
    factor = model.batch_factor(when=NOW)
    assert factor is not None
    assert (factor.input, factor.output, factor.cached_input) == (Decimal("0.5"), Decimal("0.5"), Decimal(1))
    single = model.price(when=NOW)
    assert single is not None
    assert single.scaled(factor).cost(Usage(10, 10)) == cost("gpt-4o", Usage(10, 10), batch=True, when=NOW)


def test_a_batch_price_that_nobody_gives_is_unknown() -> None:
    assert cost("gpt-3.5-turbo-instruct", Usage(10, 10)) is not None
    early = datetime(2026, 1, 1, tzinfo=UTC)
    assert cost("gpt-4o", Usage(10, 10), batch=True, when=early) is None


def test_an_unknown_price_is_none_and_never_zero() -> None:
    assert listed("my-own-model") is None
    assert cost("my-own-model", Usage(10, 10)) is None
    assert cost("", Usage(10, 10)) is None
    for seller in data_snapshot.get_snapshot().providers:
        for info in seller.models:
            if info.prices == genai_prices.types.ModelPrice():  # type: ignore[attr-defined]
                assert ListedModel(info.id, seller.id, None, info, True).price() is None, info.id


def test_a_model_may_be_named_with_its_seller() -> None:
    assert listed("openai/gpt-4o") == listed("gpt-4o")
    assert listed("models/gemini-2.5-pro") == listed("gemini-2.5-pro")
    azure = listed("gpt-4o", provider="azure")
    assert azure is not None
    assert azure.provider == "azure"


def test_a_price_of_ones_own_goes_before_the_list() -> None:
    own = Price(1, 2.5, cached_input="0.1", request=Decimal("0.01"))
    assert (own.input, own.output, own.cached_input) == (Decimal(1), Decimal("2.5"), Decimal("0.1"))
    assert cost("gpt-4o", Usage(1_000_000, 1_000_000, 500_000), price=own) == Decimal("3.06")


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), "cheap", None])
def test_a_price_that_is_no_amount_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="not an amount"):
        Price(wrong, 1)  # type: ignore[arg-type]


def test_the_list_says_where_it_is_from() -> None:
    known = price_list()
    assert (known.name, known.updated) == ("genai-prices", None)
    assert known.models > 1000
    assert date(2026, 1, 1) < known.newest <= datetime.now(UTC).date()
    assert known.version in str(known)
