"""From scores to thresholds: how much of the strong model is wanted, said in three ways.

One request goes to the first tier i, cheapest first, whose score[i] < threshold[i], else to the last. A policy looks
at the scores of recent prompts, which need no labels, and says what the thresholds are to be. A score that is NaN
counts as one that goes to the last tier.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from costopt.errors import ConfigError

__all__ = ["DollarsPer1000", "Policy", "QualityFloor", "StrongShare", "Thresholds", "choices"]

Numbers = NDArray[np.float64]

_MOST_RUNGS = 1_000


class Policy(Protocol):
    """Says at which scores a request goes on to the next tier."""

    def thresholds(self, scores: Numbers, costs: Numbers, expected: Numbers | None = None) -> tuple[float, ...]:
        """One threshold for each step of tiers.

        Args:
            scores: Of recent prompts, shape (prompts, tiers - 1), or (prompts, 1) for one that holds for each step.
            costs: Of the same prompts in dollars, shape (prompts, tiers); NaN where unknown.
            expected: Quality expected of each tier, shape (prompts, tiers); None from an estimator that does not say.
        """
        ...


def choices(scores: Numbers, thresholds: tuple[float, ...]) -> NDArray[np.intp]:
    """The tier of each prompt, 0 the cheapest, shape (prompts,).

    Example:
        >>> choices(np.array([[0.1], [0.5], [0.9], [np.nan]]), (0.3, 0.7)).tolist()
        [0, 1, 2, 2]
    """
    given = np.broadcast_to(scores, (len(scores), len(thresholds)))
    stays = given < np.asarray(thresholds)  # False for NaN
    return np.where(stays.any(axis=1), stays.argmax(axis=1), len(thresholds))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Thresholds as given, one for each step, whatever the prompts.

    Raises:
        ConfigError: If there are none, or one is NaN.

    Example:
        >>> Thresholds((0.3, 0.7)).thresholds(np.zeros((0, 1)), np.zeros((0, 3)))
        (0.3, 0.7)
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values or any(math.isnan(value) for value in self.values):
            raise ConfigError(f"thresholds are {self.values}: give one number for each step, as in (0.3, 0.7)")

    def thresholds(self, scores: Numbers, costs: Numbers, expected: Numbers | None = None) -> tuple[float, ...]:
        """As given."""
        return self.values


@dataclass(frozen=True, slots=True)
class StrongShare:
    """At most this share of the requests goes to the strongest tier.

    Raises:
        ConfigError: If the share is outside [0, 1].

    Example:
        >>> StrongShare(0.25).thresholds(np.array([[0.1], [0.2], [0.3], [0.4]]), np.zeros((4, 2)))
        (0.35,)
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"the strong share is {self.share}: give a share in [0, 1], e.g. 0.3")

    def thresholds(self, scores: Numbers, costs: Numbers, expected: Numbers | None = None) -> tuple[float, ...]:
        """One threshold for all steps."""
        _some(scores)
        steps = costs.shape[1] - 1
        return _lowest(scores, steps, lambda tiers: float(np.mean(tiers == steps)) <= self.share + 1e-12)


@dataclass(frozen=True, slots=True)
class DollarsPer1000:
    """1,000 requests like the recent ones cost at most this many dollars, as far as that can be had.

    Where even the cheapest tier costs more, everything goes there.

    Raises:
        ConfigError: If the amount is not above 0, or (from `thresholds`) a tier has no price.

    Example:
        >>> scores, costs = np.array([[0.1], [0.9]]), np.array([[0.001, 0.01], [0.001, 0.01]])
        >>> DollarsPer1000(Decimal("6")).thresholds(scores, costs)
        (0.5,)
    """

    dollars: Decimal

    def __post_init__(self) -> None:
        if not (Decimal(self.dollars).is_finite() and self.dollars > 0):
            raise ConfigError(f"the target is {self.dollars} dollars for 1,000 requests: give an amount above 0")

    def thresholds(self, scores: Numbers, costs: Numbers, expected: Numbers | None = None) -> tuple[float, ...]:
        """One threshold for all steps."""
        _some(scores)
        unknown = np.flatnonzero(np.isnan(costs).any(axis=0))
        if len(unknown):
            raise ConfigError(
                f"tier {', '.join(str(tier + 1) for tier in unknown)} (of {costs.shape[1]}, cheapest first) has no "
                "price for some prompts: give its price, or a target by strong share or quality"
            )
        most, rows = float(self.dollars) / 1000 * (1 + 1e-9), np.arange(len(costs))
        return _lowest(scores, costs.shape[1] - 1, lambda tiers: float(costs[rows, tiers].mean()) <= most)


@dataclass(frozen=True, slots=True)
class QualityFloor:
    """As few dear calls as keep this share of what the strongest tier alone would score, by the estimator's word.

    Attributes:
        share: Of the strongest tier's score, in (0, 1].
        margin: Quality by which the expectation must exceed that. Expectations rest on a sample of labels and a sample
            of prompts; half a point is about one standard error for 1,500 labels and 200 prompts.

    Raises:
        ConfigError: If the share is outside (0, 1] or the margin outside [0, 1], or (from `thresholds`) the estimator
            does not say what quality it expects.

    Example:
        >>> expected = np.array([[0.9, 0.9], [0.1, 0.9]])
        >>> QualityFloor(0.95).thresholds(expected[:, 1:] - expected[:, :1], np.zeros((2, 2)), expected)
        (0.4,)
    """

    share: float
    margin: float = 0.005

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 1:
            raise ConfigError(f"the margin of the quality floor is {self.margin}: give quality in [0, 1], e.g. 0.005")
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"the quality floor is {self.share}: give a share of the strong score in (0, 1], e.g. 0.95"
            )

    def thresholds(self, scores: Numbers, costs: Numbers, expected: Numbers | None = None) -> tuple[float, ...]:
        """One threshold for all steps."""
        if expected is None:
            raise ConfigError(
                "this estimator does not say what quality it expects: train one (`costopt router train OUTCOMES "
                "--out F`), or give a target by strong share or dollars"
            )
        _some(scores)
        known = ~np.isnan(expected).any(axis=1)
        quality, rows = expected[known], np.arange(int(known.sum()))
        least = self.share * float(quality[:, -1].mean()) + self.margin if len(rows) else math.inf

        def kept(tiers: NDArray[np.intp]) -> bool:
            return bool(len(rows)) and float(quality[rows, tiers[known]].mean()) >= least - 1e-12

        return _highest(scores, expected.shape[1] - 1, kept)


def _some(scores: Numbers) -> None:
    if not len(scores):
        raise ConfigError("there are no recent prompts to set thresholds by: give some, or thresholds")


def _lowest(scores: Numbers, steps: int, allowed: Callable[[NDArray[np.intp]], bool]) -> tuple[float, ...]:
    """The lowest threshold, the same for all steps, at which the choices are allowed; infinite if there is none."""
    return next((each for each in _ladder(scores, steps) if allowed(choices(scores, each))), (math.inf,) * steps)


def _highest(scores: Numbers, steps: int, allowed: Callable[[NDArray[np.intp]], bool]) -> tuple[float, ...]:
    """The highest such threshold; minus infinity, so that all goes to the last tier, if there is none."""
    rungs = _ladder(scores, steps)[::-1]
    return next((each for each in rungs if allowed(choices(scores, each))), (-math.inf,) * steps)


def _ladder(scores: Numbers, steps: int) -> list[tuple[float, ...]]:
    """Every threshold that tells some of the scores from others, rising; at most 2,000 of them."""
    found = np.unique(scores[~np.isnan(scores)])
    middles = ((found[:-1] + found[1:]) / 2)[:: max(1, len(found) // _MOST_RUNGS)]
    return [(float(value),) * steps for value in (-math.inf, *middles.tolist(), math.inf)]
