"""A target becomes thresholds that meet it on the prompts they were set by, and never wrongly claim to."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from costopt import ConfigError
from costopt.routing import DollarsPer1000, Policy, QualityFloor, StrongShare, Thresholds
from costopt.routing.policies import choices

NUMBERS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])


@st.composite
def tables(draw: st.DrawFn) -> np.ndarray:
    """Scores of some prompts, of which an estimator has no opinion on a few."""
    rows, steps = draw(st.integers(1, 40)), draw(st.integers(1, 3))
    table = draw(arrays(np.float64, (rows, steps), elements=NUMBERS))
    table[draw(arrays(np.bool_, rows))] = np.nan
    return table


def test_the_textbook_three_tiers() -> None:
    thresholds = Thresholds((0.3, 0.7)).thresholds(np.zeros((0, 1)), np.zeros((0, 3)))
    assert choices(np.array([[0.29], [0.3], [0.69], [0.7]]), thresholds).tolist() == [0, 1, 1, 2]


def test_each_step_has_a_score_of_its_own() -> None:
    """Nothing to gain beyond the middle tier, though the first one would lose much."""
    assert choices(np.array([[0.6, 0.1], [0.1, 0.6], [0.6, 0.6]]), (0.3, 0.3)).tolist() == [1, 0, 2]


@given(tables(), st.floats(0, 1))
def test_the_strong_share_is_never_exceeded(scores: np.ndarray, share: float) -> None:
    steps = scores.shape[1]
    thresholds = StrongShare(share).thresholds(scores, np.zeros((len(scores), steps + 1)))
    used = float(np.mean(choices(scores, thresholds) == steps))
    novel = float(np.mean(np.isnan(scores).all(axis=1)))
    assert used <= max(share, novel) + 1e-9


def test_the_strong_share_is_used_up_where_scores_tell_prompts_apart() -> None:
    scores = np.random.default_rng(0).random((200, 1))
    for share in (0, 0.1, 0.305, 1):
        thresholds = StrongShare(share).thresholds(scores, np.zeros((200, 2)))
        assert np.mean(choices(scores, thresholds)) == pytest.approx(share, abs=0.005)


@given(tables(), st.floats(1, 20))
def test_dollars_are_never_exceeded_where_the_cheapest_tier_is_within_them(scores: np.ndarray, dollars: float) -> None:
    tiers = scores.shape[1] + 1
    costs = np.tile(np.geomspace(0.001, 0.02, tiers), (len(scores), 1))
    thresholds = DollarsPer1000(Decimal(repr(dollars))).thresholds(scores, costs)
    chosen = choices(scores, thresholds)
    spent = float(costs[np.arange(len(scores)), chosen].mean()) * 1_000
    known = ~np.isnan(scores).any(axis=1)
    assert spent <= dollars * (1 + 1e-6) or (chosen[known] == 0).all()


def test_dollars_that_not_even_the_cheapest_tier_keeps_to_send_all_to_it() -> None:
    costs = np.full((3, 2), 0.01)
    assert DollarsPer1000(Decimal(1)).thresholds(np.array([[0.1], [0.2], [0.3]]), costs) == (math.inf,)


def test_a_quality_floor_is_kept_with_as_few_strong_calls_as_can_be() -> None:
    chosen = np.random.default_rng(1)
    cheap, strong = chosen.random(500) * 0.5, np.full(500, 0.9)
    expected = np.stack([cheap, strong], axis=1)
    scores = (strong - cheap)[:, None]
    floor = QualityFloor(0.8, margin=0)
    (threshold,) = floor.thresholds(scores, np.zeros((500, 2)), expected)

    def kept(at: float) -> float:
        return float(expected[np.arange(500), choices(scores, (at,))].mean())

    assert kept(threshold) >= 0.8 * 0.9
    above = float(np.min(scores[scores > threshold]))
    assert kept(above + 1e-9) < 0.8 * 0.9
    (careful,) = QualityFloor(0.8).thresholds(scores, np.zeros((500, 2)), expected)
    assert careful < threshold


def test_a_floor_that_cannot_be_kept_goes_to_the_strongest_tier() -> None:
    expected = np.array([[0.5, 0.9], [0.4, 0.9]])
    assert QualityFloor(1.0).thresholds(expected[:, 1:] - expected[:, :1], np.zeros((2, 2)), expected) == (-math.inf,)


def test_a_floor_of_what_the_cheapest_tier_gives_anyway_goes_to_it() -> None:
    expected = np.array([[0.9, 0.9], [0.89, 0.9]])
    assert QualityFloor(0.9).thresholds(expected[:, 1:] - expected[:, :1], np.zeros((2, 2)), expected) == (math.inf,)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: StrongShare(1.2), "share in"),
        (lambda: StrongShare(math.nan), "share in"),
        (lambda: DollarsPer1000(Decimal(0)), "above 0"),
        (lambda: DollarsPer1000(Decimal("nan")), "above 0"),
        (lambda: QualityFloor(0), "quality floor"),
        (lambda: QualityFloor(0.9, margin=-1), "margin"),
        (lambda: Thresholds(()), "one number for each step"),
        (lambda: Thresholds((0.1, math.nan)), "one number for each step"),
        (lambda: StrongShare(0.5).thresholds(np.zeros((0, 1)), np.zeros((0, 2))), "no recent prompts"),
        (lambda: DollarsPer1000(Decimal(1)).thresholds(np.zeros((0, 1)), np.zeros((0, 2))), "no recent prompts"),
        (lambda: QualityFloor(0.9).thresholds(np.zeros((3, 1)), np.zeros((3, 2))), "router train"),
        (
            lambda: DollarsPer1000(Decimal(1)).thresholds(np.zeros((2, 1)), np.array([[1, np.nan], [1, 1]])),
            r"tier 2 \(of 2.*has no price",
        ),
    ],
)
def test_a_target_that_is_none_is_named(make: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        make()  # type: ignore[operator]


def test_five_thousand_prompts_take_no_time_to_speak_of() -> None:
    """At most some thousand thresholds are tried, however many scores there are."""
    scores = np.random.default_rng(0).random((5_000, 1))
    policy: Policy = StrongShare(0.3)
    assert policy.thresholds(scores, np.zeros((5_000, 2)))[0] == pytest.approx(0.7, abs=0.02)
