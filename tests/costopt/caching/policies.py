"""Policies of any shape, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from costopt.caching.policy import GRID, Policy

__all__ = ["max_errors", "policies"]


def _stretched(errors: list[float]) -> tuple[float, ...]:
    falling = sorted(errors, reverse=True)
    return tuple(falling[i * len(falling) // len(GRID)] for i in range(len(GRID)))


max_errors = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 0.01, 0.02, 0.05, 0.1])

policies = st.builds(
    Policy,
    slope=st.floats(0.01, 100),
    intercept=st.floats(-20, 20),
    errors=st.lists(st.floats(0, 1) | st.floats(0, 0.1), min_size=1, max_size=12).map(_stretched),
    min_similarity=st.floats(-1, 1),
    max_error=st.none() | max_errors,
    overlap=st.floats(-5, 5),
)
