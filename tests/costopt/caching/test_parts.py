"""The small parts: salted vectors, the judge, the breaker, prices, sums, steps."""

from __future__ import annotations

import math
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import Answer, ConfigError, SimilarityJudge, Usage
from costopt.caching.breaker import CircuitBreaker
from costopt.caching.request import digest
from costopt.caching.results import CacheHit, Tally
from costopt.caching.steps import Flow, Step, adrive, drive
from costopt.caching.vector import SALT_DIMENSIONS, cosine, salted
from costopt.pricing import cost


def unit(seed: int, dimension: int = 384) -> Any:
    vector = np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.text("0123456789abcdef", min_size=1))
def test_within_a_scope_salting_keeps_the_cosine(a: int, b: int, scope: str) -> None:
    one, two = salted(unit(a), scope), salted(unit(b), scope)
    assert one.shape == (384 + SALT_DIMENSIONS,)
    assert math.isclose(float(one @ one), 1.0, abs_tol=1e-5)
    assert math.isclose(cosine(float(one @ two)), float(unit(a) @ unit(b)), abs_tol=1e-5)


def test_the_same_text_in_another_scope_is_further_than_any_acceptable_neighbour() -> None:
    mine = salted(unit(0), digest("scope", 0))
    others = [cosine(float(mine @ salted(unit(0), digest("scope", i)))) for i in range(1, 20_000)]
    assert max(others) < 0.7


@given(st.floats(0, 1), st.floats(-1, 1))
def test_the_judge_accepts_from_its_threshold_on(threshold: float, similarity: float) -> None:
    (verdict,) = SimilarityJudge(threshold).judge("Same text", [("Same text", similarity)])
    assert verdict.accepted == (similarity >= threshold)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        SimilarityJudge(threshold)


def test_a_similarity_that_is_no_number_is_never_accepted() -> None:
    (verdict,) = SimilarityJudge(0.0).judge("a", [("a", math.nan)])
    assert not verdict.accepted


def test_guards_can_be_switched_off() -> None:
    pair = [("Name the top 10 films", 0.99)]
    assert SimilarityJudge(0.9).judge("Name the top 5 films", pair)[0].reason == "guard: number"
    assert SimilarityJudge(0.9, guards=False).judge("Name the top 5 films", pair)[0].accepted


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_breaker_opens_at_once_when_somebody_had_to_wait() -> None:
    breaker = CircuitBreaker(Clock())
    breaker.failed(slow=True)
    assert breaker.is_open
    assert not breaker.allows()


def test_the_breaker_opens_at_the_third_quick_failure_in_a_row() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(2):
        breaker.failed(slow=False)
    breaker.succeeded()
    for _ in range(2):
        breaker.failed(slow=False)
    assert breaker.allows()
    breaker.failed(slow=False)
    assert not breaker.allows()


def test_the_breaker_lets_one_probe_through_and_closes_on_its_success() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    breaker.failed(slow=True)
    clock.now += 1.01
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert all(breaker.allows() for _ in range(3))


def test_calls_that_fail_together_count_as_one_failure() -> None:
    """Each of 64 doubled the rest, so that one burst meant 15 seconds without the semantic tier."""
    clock = Clock()
    breaker = CircuitBreaker(clock)
    assert all(breaker.allows() for _ in range(64))
    for _ in range(64):
        breaker.failed(slow=True)
    clock.now += 1.01
    assert breaker.allows()


def test_the_breaker_never_rests_for_longer_than_15_seconds() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    breaker.failed(slow=True)
    for _ in range(10):
        clock.now += 15.01
        assert breaker.allows()
        breaker.failed(slow=True)
    clock.now += 15.01
    assert breaker.allows()


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_cost_is_the_list_price_and_never_a_float(input_tokens: int, output_tokens: int) -> None:
    price = cost("gpt-4o-mini", Usage(input_tokens, output_tokens))
    assert price == Decimal("0.15") * input_tokens / 1_000_000 + Decimal("0.6") * output_tokens / 1_000_000


def test_cached_tokens_are_a_cheaper_part_of_the_input_and_not_added_to_it() -> None:
    plain, cached = cost("gpt-4o-mini", Usage(1000, 0)), cost("gpt-4o-mini", Usage(1000, 0, 1000))
    assert plain is not None
    assert cached == plain / 2


def test_an_unknown_model_has_no_price() -> None:
    assert cost("no-such-model", Usage(1000, 1000)) is None
    assert cost("", Usage(1000, 1000)) is None


def hit(cost: Decimal | None) -> CacheHit:
    return CacheHit(
        Answer(({"content": "a"},), Usage(10, 5), cost), "exact", "q", "q", 1.0, "same text", "k", "k", "t", 2.0
    )


def test_the_sums_say_what_is_not_priced_and_are_written_once() -> None:
    tally = Tally()
    tally.count("lookups", 4)
    for price in (Decimal("0.5"), Decimal("0.25"), None):
        tally.hit(hit(price))
    stats = tally.snapshot()
    assert (stats.hits, stats.hit_rate, stats.saved_usd, stats.unpriced) == (3, 0.75, Decimal("0.75"), 1)
    assert "1 hits without a known price" in str(stats)
    assert tally.unwritten()["saved_nanousd"] == 750_000_000
    assert tally.unwritten() == {}


def test_what_is_found_and_not_served_is_told() -> None:
    tally = Tally()
    assert "not served" not in str(tally.snapshot())
    tally.count("shadow", 2)
    tally.count("agreed")
    assert "2 found and not served (1 agreed with the model, 0 did not)" in str(tally.snapshot())


def test_sums_that_are_written_bit_by_bit_add_up() -> None:
    tally, written = Tally(), Counter[str]()
    for number in range(1, 6):
        tally.count("lookups", number)
        if number == 3:  # that time the store was down
            tally.put_back(tally.unwritten())
        else:
            written.update(tally.unwritten())
    assert (written["lookups"], tally.unwritten()) == (15, {})


def test_a_hit_explains_itself_in_a_line() -> None:
    assert str(hit(Decimal("0.002"))) == (
        "exact hit (same text), 2 s old, 15 tokens and $0.002000 avoided: 'q' answered as 'q'"
    )


def steps(fail: bool) -> Flow[str]:
    def work() -> int:
        if fail:
            raise OSError("broken")
        return 1

    async def awork() -> int:
        return work()

    try:
        value = yield Step(work, awork)
    except OSError as error:
        return str(error)
    return str(value)


@pytest.mark.parametrize("fail", [False, True])
async def test_both_drivers_carry_out_one_flow_alike(fail: bool) -> None:
    assert drive(steps(fail)) == await adrive(steps(fail)) == ("broken" if fail else "1")
