"""An attempt costs what the price list says for its moment, and what is not known is None."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import Price, Usage
from costopt.audit.charge import Charges
from costopt.pricing import cost

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
THEN = datetime(2025, 3, 1, tzinfo=UTC)
MODELS = ("gpt-4o-mini", "gpt-5.4", "claude-sonnet-4-5", "claude-haiku-4-5", "my-own-model")
CHARGES = Charges()


@given(
    st.sampled_from(MODELS),
    st.integers(0, 400_000),
    st.integers(0, 10_000),
    st.booleans(),
    st.sampled_from([NOW, THEN]),
    st.sampled_from([None, "default", "flex", "priority"]),
)
def test_it_is_what_the_price_list_says(
    model: str, read: int, written: int, batch: bool, when: datetime, tier: str | None
) -> None:
    usage = Usage(read, written, read // 2, read // 4)
    charged = CHARGES.of(model, usage, batch=batch, when=when.timestamp(), service_tier=tier)
    assert charged.cost == cost(model, usage, batch=batch, when=when, service_tier=tier)
    assert bool(charged.source) is (charged.cost is not None)


@pytest.mark.parametrize("length", [200_000, 200_001])
def test_past_some_length_every_token_is_dearer(length: int) -> None:
    assert CHARGES.of("claude-sonnet-4-5", Usage(length)).cost == cost("claude-sonnet-4-5", Usage(length))
    assert CHARGES.of("claude-sonnet-4-5", Usage(200_001)).cost > 1  # type: ignore[operator]


def test_ones_own_price_goes_first_in_a_batch_too() -> None:
    charges = Charges({"gpt-4o": Price(2, 4), "mine": Price(2, 4)}, {"mine": Price(1, 2)})
    usage, at = Usage(1_000_000, 0), NOW.timestamp()
    assert (charges.of("gpt-4o", usage).cost, charges.of("gpt-4o", usage).source) == (2, "given")
    assert charges.of("gpt-4o", usage, batch=True, when=at).cost == 1  # by the list's factor
    assert charges.of("mine", usage, batch=True).cost == 1


def test_a_batch_price_that_nobody_gives_is_unknown() -> None:
    charged = Charges({"mine": Price(2, 4)}).of("mine", Usage(10, 10), batch=True)
    assert (charged.cost, charged.source) == (None, "")


def test_a_service_that_the_list_does_not_know_has_no_price() -> None:
    assert CHARGES.of("gpt-4o", Usage(10, 10), service_tier="warp").cost is None
    flex = CHARGES.of("gpt-5-mini", Usage(10, 10), service_tier="flex").cost
    assert flex == cost("gpt-5-mini", Usage(10, 10)) / 2  # type: ignore[operator]


@pytest.mark.parametrize("when", [-1e18, 1e18, 0.0])
def test_a_moment_of_no_calendar_is_no_error(when: float) -> None:
    assert CHARGES.of("gpt-4o", Usage(10, 10), when=when).cost in (None, Decimal("0.000125"))


@pytest.mark.parametrize("minute", [15, 45])
def test_a_price_may_change_at_half_past(minute: int) -> None:
    usage, at = Usage(1_000_000, 0), datetime(2025, 6, 2, 16, minute, tzinfo=UTC)
    assert CHARGES.of("deepseek-chat", usage, when=at.timestamp()).cost == cost("deepseek-chat", usage, when=at)
