"""Units are taken in the order of their scores, never over the target, and nearly all of it is used."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.compression.select import choose


def total(sizes: np.ndarray, extra: int = 0) -> object:
    """The sum of the sizes; with `extra` tokens more for every unit than was thought."""
    return lambda chosen: int(sum(sizes[i] + extra for i in chosen))


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.integers(0, 60)), max_size=40),
    st.integers(0, 400),
    st.integers(-1, 3),
    st.data(),
)
def test_the_target_is_never_exceeded(
    given_: list[tuple[float, int]], target: int, extra: int, data: st.DataObject
) -> None:
    scores = np.array([score for score, _ in given_], np.float64)
    sizes = np.array([size for _, size in given_], np.int64)
    places = st.sets(st.integers(0, max(0, len(given_) - 1)), max_size=3)
    forced, barred = (data.draw(places) if given_ else set() for _ in range(2))

    def measure(chosen: Collection[int]) -> int:
        return max(0, int(sum(max(0, sizes[i] + extra) for i in chosen)))

    chosen = choose(scores, sizes, target, measure, forced, barred)
    assert forced <= chosen
    assert not chosen & barred - forced
    assert measure(chosen) <= target or chosen == forced


@pytest.mark.parametrize("seed", range(20))
def test_nearly_all_of_the_target_is_used(seed: int) -> None:
    """Sentences of 8 to 60 tokens, a few dozen of them, as a page or two has."""
    chosen_by = np.random.default_rng(seed)
    sizes = chosen_by.integers(8, 60, 40)
    scores = chosen_by.normal(size=40)
    for share in (0.2, 0.33, 0.5):
        target = int(share * sizes.sum())
        chosen = choose(scores, sizes, target, total(sizes))  # type: ignore[arg-type]
        used = sum(sizes[i] for i in chosen)
        assert 0.97 * target <= used <= target


@pytest.mark.parametrize("seed", range(10))
def test_the_best_are_not_given_up_to_use_more_of_it(seed: int) -> None:
    chosen_by = np.random.default_rng(seed)
    sizes = chosen_by.integers(8, 60, 40)
    scores = chosen_by.normal(size=40)
    target = int(0.33 * sizes.sum())
    chosen = choose(scores, sizes, target, total(sizes))  # type: ignore[arg-type]
    best = np.argsort(-scores)[: len(chosen) // 3]
    assert set(best.tolist()) <= chosen


def test_sizes_that_were_too_low_are_made_up_for() -> None:
    sizes = np.full(20, 10)
    chosen = choose(np.arange(20.0), sizes, 100, total(sizes, extra=3))  # type: ignore[arg-type]
    assert chosen == set(range(13, 20)), "seven of 13 tokens each"


def test_of_equals_the_first_is_taken() -> None:
    sizes = np.full(5, 10)
    assert choose(np.zeros(5), sizes, 20, total(sizes)) == {0, 1}  # type: ignore[arg-type]


def test_nothing_to_choose_from() -> None:
    assert choose(np.zeros(0), np.zeros(0, np.int64), 10, lambda chosen: 0) == set()
