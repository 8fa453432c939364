"""APGR, CPT and the like are what RouteLLM says they are, and the controls and intervals are what they claim to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError
from costopt.routing.metrics import METRICS, compare, controls, curve, points

CHEAP = np.array([1.0, 0.0, 0.0, 1.0, 1.0])
STRONG = np.array([1.0, 1.0, 1.0, 1.0, 0.0])


def test_the_curve_by_hand() -> None:
    """Five prompts in the order of their scores: +1, 0, +1, 0, -1, so the gap is 1/5."""
    found = curve([0.5, 0.9, 0.7, 0.6, 0.1], CHEAP, STRONG)
    assert found.shares.tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert found.pgr.tolist() == pytest.approx([0, 1, 2, 2, 2, 1])
    assert found.apgr == pytest.approx(0.2 * (0.5 + 1.5 + 2 + 2 + 1.5))
    assert (found.cpt(0.5), found.cpt(0.8)) == pytest.approx((0.1, 0.16))
    assert found.share_at_95 == pytest.approx(0.2 * (0.95 * 0.8 - 0.6) / 0.2)


def test_the_best_order_is_the_oracle_s_and_the_worst_its_reverse() -> None:
    gains = STRONG - CHEAP
    best, worst = curve(gains, CHEAP, STRONG).apgr, curve(-gains, CHEAP, STRONG).apgr
    assert worst == pytest.approx(1 - best)
    assert best > 1


def test_cpt_is_the_least_share_even_where_the_curve_falls_again() -> None:
    found = curve([4, 3, 2, 1], cheap=[0, 0, 1, 0], strong=[1, 0, 0, 1])
    assert found.pgr.tolist() == pytest.approx([0, 1, 1, 0, 1])
    assert found.cpt(0.8) == pytest.approx(0.2)


def test_nothing_need_go_to_the_strong_model_that_is_hardly_better() -> None:
    found = curve([1, 2], cheap=[0.97, 0.97], strong=[1.0, 1.0])
    assert found.share_at_95 == 0


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.booleans()), min_size=2, max_size=40))
def test_a_tie_is_worth_what_its_orders_are_worth_on_average(rows: list[tuple[int, bool, bool]]) -> None:
    scores, cheap, strong = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    if not strong.mean() > cheap.mean():
        with pytest.raises(ConfigError, match="no gap to recover"):
            curve(scores, cheap, strong)
        return
    found = curve(scores, cheap, strong)
    assert curve(scores * 3 + 1, cheap, strong).apgr == pytest.approx(found.apgr), "only the order counts"
    assert found.qualities[0] == pytest.approx(cheap.mean())
    assert found.qualities[-1] == pytest.approx(strong.mean())
    chosen = np.random.default_rng(0)
    broken = [curve(scores + 1e-6 * chosen.random(len(rows)), cheap, strong).apgr for _ in range(300)]
    error = 5 * float(np.std(broken)) / 300**0.5 + 1e-9
    assert found.apgr == pytest.approx(float(np.mean(broken)), abs=error)


def test_scores_that_are_all_the_same_are_worth_chance() -> None:
    found = curve([0.3] * 5, CHEAP, STRONG)
    assert found.apgr == pytest.approx(0.5)
    assert found.cpt(0.8) == pytest.approx(0.8)


def test_a_score_that_is_nan_goes_to_the_strong_model_first() -> None:
    unsure = curve([np.nan, 0.9, 0.7, 0.6, 0.1], CHEAP, STRONG)
    assert unsure.apgr == curve([9, 0.9, 0.7, 0.6, 0.1], CHEAP, STRONG).apgr


@pytest.mark.parametrize(("cheap", "strong", "named"), [([], [], "no prompts"), ([1, 1], [1, 0], "cheapest first")])
def test_what_cannot_be_measured_is_named(cheap: list[float], strong: list[float], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        curve(np.arange(len(cheap)), cheap, strong)


def sample(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores that know something of the gains of so many prompts."""
    chosen = np.random.default_rng(seed)
    hard = chosen.random(count)
    cheap = (chosen.random(count) > 0.2 + 0.5 * hard).astype(float)
    strong = (chosen.random(count) > 0.1 + 0.1 * hard).astype(float)
    return hard + 0.2 * chosen.standard_normal(count), cheap, strong


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth = curve(*sample(99, 400_000)).figures()
    held = dict.fromkeys(METRICS, 0)
    for seed in range(60):
        scores, cheap, strong = sample(seed, 500)
        found = compare({"length": scores}, cheap, strong, resamples=200, seed=seed)["length"].figures
        for name in METRICS:
            low, high = found[name].interval or (np.nan, np.nan)
            held[name] += low <= truth[name] <= high
    assert all(50 <= count <= 60 for count in held.values()), held


def test_the_difference_to_length_is_measured_on_the_same_resamples() -> None:
    scores, cheap, strong = sample(1, 500)
    found = compare({"length": scores, "same": scores * 2, "worse": -scores}, cheap, strong, resamples=100)
    same, worse = found["same"].over_length["apgr"], found["worse"].over_length["apgr"]
    assert (same.value, same.interval) == (0, (0, 0))
    assert worse.interval is not None
    assert worse.interval[1] < 0


def test_the_same_seed_draws_the_same() -> None:
    scores, cheap, strong = sample(1, 100)
    one, two, other = (
        compare({"length": scores}, cheap, strong, resamples=50, seed=seed)["length"].figures for seed in (3, 3, 4)
    )
    assert one == two != other


def test_the_controls() -> None:
    """Random and shuffled are worth chance; nothing beats the oracle."""
    scores, cheap, strong = sample(2, 4_000)
    found = controls(scores, ["x" * n for n in range(4_000)], strong - cheap)
    assert found["length"].tolist() == list(range(4_000))
    assert sorted(found["shuffled"]) == sorted(scores)
    areas = {name: curve(each, cheap, strong).apgr for name, each in found.items()}
    assert abs(areas["random"] - 0.5) < 0.06
    assert abs(areas["shuffled"] - 0.5) < 0.06
    assert areas["oracle"] > curve(scores, cheap, strong).apgr > 0.55


def test_points_lie_on_the_curve_and_in_their_intervals() -> None:
    scores, cheap, strong = sample(3, 600)
    found, whole = points(scores, cheap, strong, [0, 0.25, 1], resamples=200), curve(scores, cheap, strong)
    for point in found:
        assert point.quality.value == pytest.approx(whole.quality(point.share))
        low, high = point.quality.interval or (1, 0)
        assert low < point.quality.value < high


def test_an_interval_that_resampling_cannot_give_is_none() -> None:
    """The strong model is ahead by one prompt in many: about half of the resamples have no gap to recover."""
    cheap, strong = np.zeros(400), np.zeros(400)
    cheap[:195], strong[200:396] = 1, 1
    found = compare({"length": np.arange(400)}, cheap, strong, resamples=300)["length"].figures["apgr"]
    assert found.interval is None
    assert compare({"length": np.arange(400)}, cheap, np.ones(400), resamples=99)["length"].figures["apgr"].interval
