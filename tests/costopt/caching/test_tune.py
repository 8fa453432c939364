"""Fitting the judge to labelled pairs: with the shipped model and with one of the user's own."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt import Answer, ConfigError, CrossEncoderJudge, LocalStore, SemanticCache, default_embedder
from costopt.caching.evaluate import Pair, evaluate
from costopt.caching.policy import GRID, Policy
from costopt.caching.request import normalise
from costopt.caching.tune import Tuning, _out_of_fold, tune
from costopt.jsonl import read_jsonl

CLUSTERS = Path(__file__).parents[3] / "cookbook" / "training" / "pairs" / "support.jsonl"

Model = Callable[[str, str], float]


def real_pairs() -> list[Pair]:
    """Reworded questions of customers, and near misses."""
    found = []
    for _, row in list(read_jsonl(CLUSTERS))[:40]:
        found += [Pair(row["question"], other, True) for other in row["same"]]
        found += [Pair(row["question"], other, False) for other in row["different"]]
    return found


PAIRS = real_pairs()


def mostly_right(scale: float = 1.0, offset: float = 0.0) -> Model:
    """A model that knows the labels, with noise; its scores are no probabilities."""
    noise, known = random.Random(0), {}
    for pair in PAIRS:
        known[normalise(pair.b), normalise(pair.a)] = scale * ((1 if pair.same else -1) + noise.gauss(0, 0.7)) + offset
    return lambda asked, cached: known.get((asked, cached), -scale)


def tuned(model: Model | None = None, max_error: float = 0.05, pairs: list[Pair] | None = None) -> Tuning:
    return tune(PAIRS if pairs is None else pairs, default_embedder(), CrossEncoderJudge(model), max_error)


def test_the_shipped_judge_is_fitted_and_its_figures_say_how_sure_they_are() -> None:
    found = tuned(max_error=0.1)
    figures = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert figures["pairs"] == len(PAIRS) > found.judged >= found.served > found.wrong
    low, high = figures["coverage_interval"]
    assert low < figures["coverage"] == found.served / len(PAIRS) < high
    low, high = figures["error_interval"]
    assert low <= figures["error"] == found.wrong / found.served < high
    assert low <= 0.1, "what was measured contradicts what was asked for"
    assert figures["threshold"] == found.policy.threshold(0.1)
    assert found.policy.max_error == 0.1
    assert found.policy != CrossEncoderJudge().policy


def test_a_stricter_max_error_serves_less_and_0_nothing() -> None:
    lax, strict, nothing = (tuned(mostly_right(), error) for error in (0.2, 0.05, 0))
    assert lax.served > strict.served > 0
    assert lax.threshold < strict.threshold
    assert (nothing.served, nothing.error, nothing.as_dict()["threshold"]) == (0, None, None)
    assert nothing.as_dict()["error_interval"] is None


@pytest.mark.parametrize(("scale", "offset"), [(1e-3, 0.5), (1e3, -5e3)])
def test_a_model_may_score_on_any_scale(scale: float, offset: float) -> None:
    one, other = tuned(mostly_right()), tuned(mostly_right(scale, offset))
    assert (other.served, other.wrong, other.threshold) == (one.served, one.wrong, one.threshold)
    assert one.served > 0


def test_a_model_that_knows_nothing_is_not_served_by() -> None:
    """Nor one that says the contrary."""
    blind = random.Random(1)
    assert tuned(lambda asked, cached: blind.random()).served == 0
    right = mostly_right()
    assert tuned(lambda asked, cached: -right(asked, cached)).served == 0


def test_scores_that_are_no_numbers_serve_nothing_and_break_nothing() -> None:
    assert tuned(lambda asked, cached: float("nan")).served == 0
    assert tuned(lambda asked, cached: float("-inf")).served == 0


def hits(folder: Path, model: Model, policy: Path) -> tuple[int, int]:
    """(served, wrong) by a cache: each pair is stored and asked by itself."""
    cache = SemanticCache(LocalStore(folder / "cache.db"), judge=model, policy=policy, time_budget=30.0).warm()
    served = wrong = 0
    for i, pair in enumerate(PAIRS):
        stored, asked = (
            cache.request([{"role": "user", "content": text}], model=f"model {i}") for text in (pair.a, pair.b)
        )
        cache.update(stored, Answer(({"kind": "chat", "content": "An answer."},)))
        hit = cache.lookup(asked)
        served += hit is not None
        wrong += hit is not None and not pair.same
    assert cache.stats().failures == {}
    cache.close()
    return served, wrong


def test_a_cache_loads_the_file_and_a_stricter_one_serves_less(tmp_path: Path) -> None:
    counts = {}
    for error in (0.05, 0.2):
        file = tmp_path / f"{error}.json"
        file.write_text(tuned(mostly_right(), error).policy.as_json())
        (tmp_path / str(error)).mkdir()
        counts[error] = hits(tmp_path / str(error), mostly_right(), file)
        judge = CrossEncoderJudge(mostly_right(), policy=file)
        figures = evaluate(PAIRS, default_embedder(), judge)
        assert counts[error] == (figures.served, figures.served - figures.right), "tune, eval and cache agree"
    assert 0 < counts[0.05][0] < counts[0.2][0]
    assert counts[0.05][1] <= counts[0.2][1] < counts[0.2][0] / 10


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        PAIRS[:19],
        [Pair(f"What is {n}?", f" What is {n}?\r\n", True) for n in range(30)],
        [Pair(f"Name the top {n} films", f"Name the top {n + 1} films", False) for n in range(3, 30)],
        [Pair(f"Where is parcel {n}?", "How do I bake bread?", False) for n in range(30)],
        [Pair("", mark, False) for mark in ".?-!_" * 6],
    ],
    ids=["none", "too few", "the same text", "kept back by a guard", "too far apart", "empty"],
)
def test_too_few_pairs_that_can_be_judged_are_refused_with_the_mend(pairs: list[Pair]) -> None:
    with pytest.raises(ConfigError, match=r"pairs can be judged, and 20 are needed: add pairs whose texts differ"):
        tuned(pairs=pairs)


@pytest.mark.parametrize("max_error", [-0.1, 1.0, float("nan")])
def test_a_max_error_that_is_no_share_is_refused(max_error: float) -> None:
    with pytest.raises(ConfigError, match="share of served answers"):
        tuned(max_error=max_error, pairs=[])


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=20, max_size=40),
    st.integers(0, 19),
    st.sampled_from([0.02, 0.1, 0.3]),
)
def test_whether_a_pair_counts_as_served_does_not_hang_on_its_own_label(
    pairs: list[tuple[float, bool]], which: int, max_error: float
) -> None:
    before = Policy(1.0, 0.0, tuple(round(1 - p, 3) for p in GRID), 0.6)
    scores, same = np.array([score for score, _ in pairs]), np.array([same for _, same in pairs])
    other = same.copy()
    other[which] = not other[which]
    one, two = (_out_of_fold(scores, labels, before, max_error) for labels in (same, other))
    assert one[which] == two[which]
