"""From scores to decisions: what a policy never does, whatever it was fitted to."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from costopt import ConfigError, LocalStore, SemanticCache
from costopt.caching.policy import GRID, Policy, default_policy, error_curve, falling, fit_platt, load_policy
from tests.costopt.caching.policies import max_errors, policies

any_score = st.floats(allow_nan=True)
scores = st.lists(st.floats(-50, 50), max_size=40)
KNOWN = Policy(1.0, 0.0, tuple(round(1 - p, 3) for p in GRID), 0.6)


def serves(policy: Policy, score: float, max_error: float) -> bool:
    return policy.probability(score) >= policy.threshold(max_error)


@given(policies, max_errors, max_errors)
def test_a_stricter_max_error_never_serves_more(policy: Policy, one: float, other: float) -> None:
    assert policy.threshold(min(one, other)) >= policy.threshold(max(one, other))


@given(policies, any_score)
def test_a_max_error_of_0_serves_nothing(policy: Policy, score: float) -> None:
    assert not serves(policy, score, 0)


@given(policies, any_score, any_score)
def test_a_probability_is_one_and_never_falls_with_the_score(policy: Policy, one: float, other: float) -> None:
    p, q = policy.probability(one), policy.probability(other)
    assert 0 <= p <= 1
    assert p <= q or not one <= other
    assert p == 0 or not math.isnan(one)
    assert (policy.probability(-math.inf), policy.probability(math.inf)) == (0, 1)


@pytest.mark.parametrize("max_error", [-0.01, 1, math.nan, math.inf])
def test_a_max_error_that_is_no_share_is_refused(max_error: float) -> None:
    with pytest.raises(ConfigError, match="share of served answers that may be wrong"):
        KNOWN.threshold(max_error)
    with pytest.raises(ConfigError, match="share of served answers that may be wrong"):
        Policy(1.0, 0.0, KNOWN.errors, 0.6, max_error)


@given(policies)
def test_a_file_holds_the_whole_policy(policy: Policy) -> None:
    assert Policy.from_json(policy.as_json()) == policy


def test_the_shipped_policy_serves_more_the_more_errors_are_allowed() -> None:
    thresholds = [default_policy().threshold(error) for error in (0.01, 0.02, 0.05, 0.1)]
    assert thresholds == sorted(thresholds, reverse=True)
    assert 0.5 <= thresholds[-1] < 1


def with_(**fields: Any) -> str:
    return json.dumps({**json.loads(KNOWN.as_json()), **fields})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\x00",
        "slope = 1",
        "[]",
        "null",
        "[" * 100_000,
        '{"version": 1}',
        with_(version=2),
        with_(version="1"),
        with_(slope=0),
        with_(slope=-1),
        with_(slope="steep"),
        with_(slope=10**400),
        with_(intercept=math.nan),
        with_(min_similarity=2),
        with_(errors=None),
        with_(errors=[0.1]),
        with_(errors=[*KNOWN.errors[:-1], math.nan]),
        with_(errors=[*KNOWN.errors[:-1], 1.0]),
        with_(errors=[1.5, *KNOWN.errors[1:]]),
        with_(max_error=5),
        with_(max_error=math.nan),
        with_(overlap=math.inf),
        with_(about=3),
    ],
)
def test_a_file_that_is_no_policy_is_refused_at_once_with_the_mend(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"tune|max_error=.*: give the share"):
        SemanticCache(LocalStore(tmp_path / "cache.db"), policy=file)


@pytest.mark.parametrize(
    "make", [lambda file: None, lambda file: file.mkdir(), lambda file: file.write_bytes(b"\xff\xfe\xff")]
)
def test_a_file_that_cannot_be_read_is_named_with_the_mend(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    file = tmp_path / "policy.json"
    make(file)
    with pytest.raises(ConfigError, match=r"policy\.json.* cannot be read .*`costopt cache tune` writes one"):
        load_policy(str(file))


@given(policies)
def test_without_labels_nothing_changes(policy: Policy) -> None:
    assert policy.updated([], []) == policy
    assert policy.updated([math.nan, -math.inf], [True, False]) == policy, "pairs that are never served"


@given(policies, scores, any_score, max_errors)
def test_rejected_pairs_alone_never_make_it_serve_more(
    policy: Policy, rejected: list[float], score: float, max_error: float
) -> None:
    after = policy.updated(rejected, [False] * len(rejected))
    assert serves(policy, score, max_error) or not serves(after, score, max_error)


# All confirmed, whether the judge was sure or not: "its score says nothing", a slope would learn from that.
@example(replace(KNOWN, slope=0.1), [-30.0] * 20 + [30.0] * 20, 47.0, 0.01)
@given(policies, scores, any_score, max_errors)
def test_confirmed_pairs_alone_never_make_it_serve_less(
    policy: Policy, confirmed: list[float], score: float, max_error: float
) -> None:
    after = policy.updated(confirmed, [True] * len(confirmed))
    assert serves(after, score, max_error) or not serves(policy, score, max_error)


weighted = st.lists(st.tuples(st.floats(0, 1), st.floats(1, 1_000)), min_size=1, max_size=40)


@given(weighted)
def test_errors_are_pooled_until_they_never_rise_and_none_is_lost(parts: list[tuple[float, float]]) -> None:
    values, weights = zip(*parts, strict=True)
    found = falling(values, weights)
    assert list(found) == sorted(found, reverse=True)
    assert np.dot(found, weights) == pytest.approx(np.dot(values, weights))
    assert falling(sorted(values, reverse=True), weights) == tuple(sorted(values, reverse=True))


def test_what_was_seen_and_what_was_expected_weigh_by_their_numbers() -> None:
    """50 pairs of which 10 were wrong, against a prior of 50 that expected as many as that, or none."""
    seen = [0.9] * 50, np.array([False] * 10 + [True] * 40)
    assert error_curve(*seen, before=[0.2] * len(GRID), prior=50) == pytest.approx([0.2] * len(GRID))
    below = [threshold <= 0.9 for threshold in GRID]
    assert error_curve(*seen, before=[0.0] * len(GRID), prior=50) == pytest.approx([0.1 * served for served in below])
    (pooled,) = set(error_curve([0.9] * 50, np.array([True] * 50), [0.2] * len(GRID), 50))
    assert 0.1 < pooled < 0.2, "those that are surer are no more often wrong than those that are less so"


def test_a_few_rejected_pairs_close_what_many_confirmed_ones_open() -> None:
    """The threshold moves by labels and not by the prior alone."""
    score = math.log(0.96 / 0.04)
    assert serves(KNOWN, score, 0.05)
    assert not serves(KNOWN.updated([score] * 5, [False] * 5), score, 0.05)
    less = score - 1
    assert not serves(KNOWN, less, 0.05)
    assert not serves(KNOWN.updated([less] * 5, [True] * 5), less, 0.05)
    assert serves(KNOWN.updated([less] * 400, [True] * 400), less, 0.05)


def labelled(slope: float, intercept: float, count: int = 20_000) -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    x = random.normal(1, 2, count)
    return x, random.random(count) < 1 / (1 + np.exp(-(slope * x + intercept)))


@pytest.mark.parametrize(("slope", "intercept"), [(2.0, -1.0), (0.3, 2.0), (5.0, 0.0)])
def test_many_labels_reveal_the_function_they_were_drawn_by(slope: float, intercept: float) -> None:
    found = fit_platt(*labelled(slope, intercept), start=(1.0, 0.5), prior=1.0)
    assert found == pytest.approx((slope, intercept), rel=0.1, abs=0.1)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_the_scores_does_not_matter(scale: float) -> None:
    x, y = labelled(2.0, -1.0, 500)
    slope, intercept = fit_platt(x, y, (1.0, 0.5), 50.0)
    assert fit_platt(x * scale, y, (1.0 / scale, 0.5), 50.0) == pytest.approx((slope / scale, intercept))


def test_a_judge_that_is_wrong_all_over_is_not_turned_round_but_no_longer_believed() -> None:
    """The slope was held above 0 and the intercept left where it was: all was taken to be the same."""
    x, y = labelled(-2.0, 10.0)
    slope, intercept = fit_platt(x, y, (1.0, 0.0), 50.0)
    assert slope > 0
    assert Policy(slope, intercept, KNOWN.errors, 0.6).probability(5.0) == pytest.approx(y.mean(), abs=0.02)
