"""Paired intervals of what a lever saves and what becomes of the answers, by resampling whole clusters of requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costopt.caching.evaluate import interval

__all__ = ["Change", "Measured", "Sampler"]

Numbers = NDArray[np.float64]

_RESAMPLES = 2_000
_BOUNDS = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def as_list(self) -> list[float]:
        """For JSON."""
        return [round(self.value, 6), round(self.low, 6), round(self.high, 6)]


@dataclass(frozen=True, slots=True)
class Change:
    """One way to serve requests against another.

    Attributes:
        saved: Share of the bill that is gone.
        quality: Share of right answers.
        change: Right answers more or less, as a share of the other side's.
    """

    saved: Measured
    quality: Measured
    change: Measured


class Sampler:
    """Draws clusters of requests again, with replacement, within each part of a stream; each draw serves all sides.

    Args:
        clusters: Of each request: what it shares with others that do not say anything new, shape (requests,).
        parts: Of each request: the part of the stream whose share is to stay as it is, shape (requests,).
        resamples: How many draws.
        seed: Of the draws.
    """

    def __init__(
        self, clusters: Sequence[object], parts: Sequence[str], resamples: int = _RESAMPLES, seed: int = 0
    ) -> None:
        places: dict[tuple[str, object], int] = {}
        self._rows = np.array([places.setdefault(pair, len(places)) for pair in zip(parts, clusters, strict=True)])
        chosen = np.random.default_rng(seed)
        self._weights = np.zeros((resamples, len(places)))
        for part in dict.fromkeys(parts):
            own = [place for (of, _), place in places.items() if of == part]
            self._weights[:, own] = chosen.multinomial(len(own), [1 / len(own)] * len(own), size=resamples)

    def change(
        self, cost: Numbers, right: Numbers, plain_cost: Numbers, plain_right: Numbers, where: NDArray[np.bool_]
    ) -> Change:
        """What one side saves against the plain one, and what becomes of its answers, over some of the requests.

        Args:
            cost: Of each request, shape (requests,).
            right: 1 where the answer is right, shape (requests,).
            plain_cost: The same of the other side.
            plain_right: The same of the other side.
            where: The requests that are looked at, shape (requests,).
        """
        ones = np.ones(len(cost))
        columns = np.stack([cost, right, plain_cost, plain_right, ones], axis=1) * where[:, None]
        sums = np.zeros((self._weights.shape[1], columns.shape[1]))
        np.add.at(sums, self._rows, columns)
        drawn = _ratios(self._weights @ sums)
        found = _ratios(columns.sum(axis=0)[None])[0]
        low, high = np.nanpercentile(drawn, _BOUNDS, axis=0)
        saved, quality, change = (Measured(*map(float, each)) for each in zip(found, low, high, strict=True))
        if np.array_equal(right[where], plain_right[where]):
            change = _nothing_lost(len(set(self._rows[where].tolist())))
        return Change(saved, quality, change)


def _nothing_lost(cases: int) -> Measured:
    """Where no answer differs there is nothing to draw again: the bound is Wilson's, for none of so many cases."""
    bounds = interval(0, cases)
    return Measured(0.0, 0.0 if bounds is None else -bounds[1], 0.0)


def _ratios(sums: Numbers) -> Numbers:
    cost, right, plain_cost, plain_right, count = sums.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([1 - cost / plain_cost, right / count, right / plain_right - 1], axis=1)
