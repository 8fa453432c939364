"""Tiers, and which of them may serve a request at all."""

from __future__ import annotations

import logging
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from costopt import ConfigError, Price, RouteRequest, Tier, Usage
from costopt.routing.request import eligible
from costopt.routing.tier import checked_tiers


def test_name_price_and_window_come_from_the_model() -> None:
    tier = Tier(SimpleNamespace(model_name="gpt-4o-mini"))
    assert (tier.name, tier.window, tier.cost(Usage(1_000_000, 0))) == ("gpt-4o-mini", 128_000, Decimal("0.15"))
    bound = SimpleNamespace(bound=SimpleNamespace(model_name="gpt-4o-mini"), kwargs={"model": "gpt-4o"})
    assert Tier(bound).name == "gpt-4o"
    assert Tier(SimpleNamespace(metadata=SimpleNamespace(model_name="gpt-4o"))).name == "gpt-4o"


def test_what_is_given_goes_before_what_is_known() -> None:
    tier = Tier("gpt-4o-mini", name="cheap", price=Price(1, 1), context_window=10, max_output_tokens=5)
    assert (tier.name, tier.window, tier.most_output, tier.cost(Usage(500_000, 500_000))) == ("cheap", 10, 5, 1)


def test_a_model_that_says_what_it_can_do_is_believed() -> None:
    profile = {"tool_calling": False, "image_inputs": False, "max_input_tokens": 99, "max_output_tokens": 9}
    said = SimpleNamespace(model_name="m", profile=profile)
    assert (Tier(said).lacks(True, False, False), Tier(said).window, Tier(said).most_output) == ("tools", 99, 9)
    assert Tier(said, tools=True).lacks(True, False, False) is None
    assert Tier("unheard-of").lacks(True, True, True) is None


@pytest.mark.parametrize(
    ("tiers", "message"),
    [
        ([], "there are no tiers"),
        ([object()], "does not say its name"),
        (["gpt-4o", "gpt-4o"], "two tiers are called 'gpt-4o'"),
        (["gpt-4o", "gpt-4o-mini"], "from the cheapest to the strongest"),
    ],
)
def test_tiers_that_do_not_fit_together_are_refused(tiers: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked_tiers(tiers)


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="context_window=0"):
        Tier("m", context_window=0)


def test_tiers_without_known_prices_stand_as_they_are_given() -> None:
    assert [tier.name for tier in checked_tiers(["b", "a"])] == ["b", "a"]


TIERS = [
    Tier("small", tools=False, vision=False, json=False, context_window=100, region="us"),
    Tier("middle", vision=False, context_window=1_000, region="eu", tags={"hipaa", "soc2"}),
    Tier("large", region="eu", tags="hipaa"),
]


@pytest.mark.parametrize(
    ("fields", "may", "reason"),
    [
        ({}, [0, 1, 2], None),
        ({"tools": True}, [1, 2], "no tools"),
        ({"vision": True}, [2], "no vision"),
        ({"json": True}, [1, 2], "no json"),
        ({"regions": frozenset({"eu"})}, [1, 2], "region us is not among eu"),
        ({"tags": frozenset({"hipaa"})}, [1, 2], "no tag hipaa"),
        ({"size": 101, "text": "a " * 200}, [1, 2], "needs"),
        ({"max_output_tokens": 95}, [1, 2], "has 100"),
        ({"barred": {"small": "it is Sunday"}}, [1, 2], "it is Sunday"),
        ({"tier": "middle"}, [1], "another was asked for"),
    ],
)
def test_eligibility(fields: dict[str, Any], may: list[int], reason: str | None) -> None:
    found, excluded = eligible(TIERS, RouteRequest(**{"text": "What is a tier that may serve this?", **fields}))
    assert found == may
    assert reason is None or reason in excluded["small"]


def test_where_bytes_leave_a_doubt_tokens_are_counted() -> None:
    """A thousand bytes are some 250 tokens: that they might be a thousand is no reason to ask the dear model."""
    tiers = [Tier("gpt-4o-mini", context_window=300), Tier("gpt-4o")]
    assert eligible(tiers, RouteRequest("four " * 200))[0] == [0, 1]
    assert eligible(tiers, RouteRequest("four " * 400))[0] == [1]


def test_no_tier_eligible_names_each_and_why() -> None:
    with pytest.raises(ConfigError) as caught:
        eligible(TIERS[:2], RouteRequest("Look!", vision=True))
    assert "'small': no vision; 'middle': no vision" in str(caught.value)
    with pytest.raises(ConfigError, match="the tiers are 'small', 'middle', 'large'"):
        eligible(TIERS, RouteRequest("Hello", tier="huge"))
    with pytest.raises(ConfigError, match="which was asked for, may not serve this request: no tools"):
        eligible(TIERS, RouteRequest("Hello", tier="small", tools=True))


def test_a_router_keeps_to_regions_and_tags_too() -> None:
    assert eligible(TIERS, RouteRequest("Hi"), frozenset({"eu"}), frozenset({"soc2"}))[0] == [1]


def test_an_unknown_price_is_said(caplog: pytest.LogCaptureFixture) -> None:
    from costopt import Router

    with caplog.at_level(logging.WARNING):
        Router(["unheard-of", "gpt-4o"])
    assert "no price is known for unheard-of" in caplog.text
