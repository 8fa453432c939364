"""From a judge's score to a decision: the probability it stands for, and the threshold that keeps the error small.

score        what a model says of two texts, on any scale on which more is surer
probability  that both want the same answer: logistic(slope * score + intercept), after Platt (1999)
error        share of the served answers that are wrong, if everything with at least this probability is served
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costopt.arguments import number
from costopt.caching.cross_encoder import SHIPPED
from costopt.errors import ConfigError

__all__ = [
    "GRID",
    "Policy",
    "default_policy",
    "error_curve",
    "falling",
    "fit_platt",
    "load_policy",
    "threshold_unfitted",
]

Numbers = NDArray[np.float64]

GRID = (*(i / 200 for i in range(100, 200)), 0.996, 0.997, 0.998, 0.999)
"""Probabilities at which the error is known; nothing below the first is ever served."""

NOTHING = math.inf
_VERSION = 1
_FIELDS = ("slope", "intercept", "errors", "min_similarity", "max_error", "overlap")
_PRIOR_PAIRS = 50.0
_STEPS = 50
_FLATTEST = 1e-3  # slope for one standard deviation of the scores


@dataclass(frozen=True, slots=True)
class Policy:
    """How scores become decisions; made by `costopt cache tune`, or by the training of the shipped judge.

    Attributes:
        slope: Of the logistic function that turns a score into a probability; above 0.
        intercept: Of the same.
        errors: Expected share of wrong answers among the served ones for each threshold in `GRID`; never rising.
        min_similarity: Least cosine similarity at which a pair is judged at all.
        max_error: What the policy was tuned for; None if the user of it is to say.
        about: Where it comes from: data, sizes, figures. Nothing is decided by it.
        overlap: What is added to a score if both texts have all words in common, and in part if some: texts that
            differ in one word only deserve more doubt than the model has.

    Example:
        >>> policy = default_policy()
        >>> policy.threshold(0.01) >= policy.threshold(0.05), policy.threshold(0)
        (True, inf)
    """

    slope: float
    intercept: float
    errors: tuple[float, ...]
    min_similarity: float
    max_error: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    overlap: float = 0.0

    def __post_init__(self) -> None:
        never_rises = all(a >= b for a, b in zip(self.errors, self.errors[1:], strict=False))
        if len(self.errors) != len(GRID) or not never_rises or not all(0 <= e <= 1 for e in self.errors):
            raise ConfigError(f"a policy has {len(GRID)} errors in [0, 1] that never rise: make one by `cache tune`")
        finite = math.isfinite(self.intercept) and math.isfinite(self.overlap)
        if not (0 < self.slope < math.inf and finite and -1 <= self.min_similarity <= 1):
            raise ConfigError("a policy has a slope above 0, a finite intercept and a cosine: make one by `cache tune`")
        if self.max_error is not None:
            threshold_unfitted(self.max_error)  # for its checks

    def probability(self, score: float) -> float:
        """Probability in [0, 1] that both texts want the same answer; 0 for a score that is no number."""
        value = self.slope * score + self.intercept
        return 1 / (1 + math.exp(-value)) if value > -700 else 0.0

    def threshold(self, max_error: float) -> float:
        """Least probability to serve at, so that at most this share of what is served is wrong.

        Never falls as `max_error` gets stricter. Infinite, so that nothing is served, for 0, and where no
        threshold is known to be strict enough.

        Raises:
            ConfigError: If `max_error` is outside [0, 1).
        """
        if threshold_unfitted(max_error) == NOTHING:
            return NOTHING
        place = next((i for i, error in enumerate(self.errors) if error <= max_error), None)
        return NOTHING if place is None else GRID[place]

    def as_json(self) -> str:
        """The file that `SemanticCache(policy=...)` loads."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        return json.dumps({"version": _VERSION, **fields, "about": dict(self.about)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Policy:
        """The policy in such a file.

        Raises:
            ConfigError: If it is none, or of another version.
        """
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise ConfigError(f"this policy is of version {data['version']}, not {_VERSION}: tune another")
            errors = tuple(float(error) for error in data["errors"])
            max_error = None if data["max_error"] is None else float(data["max_error"])
            names = ("slope", "intercept", "min_similarity", "overlap")
            slope, intercept, floor, overlap = (float(data[name]) for name in names)
            return cls(slope, intercept, errors, floor, max_error, dict(data["about"]), overlap)
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ConfigError(f"this is no policy ({error!r}): make one by `costopt cache tune`") from error

    def updated(self, scores: ArrayLike, same: ArrayLike, *, prior: float = _PRIOR_PAIRS) -> Policy:
        """This policy, and what labelled pairs say, in one.

        Rejected pairs alone make it stricter, confirmed ones alone laxer: for every score, not only for theirs.

        Args:
            scores: Of the pairs, shape (n,); those of pairs below `min_similarity` left out.
            same: Whether each wants the same answer, shape (n,).
            prior: How many pairs this policy counts for against them.
        """
        x, y = np.asarray(scores, np.float64), np.asarray(same, bool)
        slope, intercept = fit_platt(x, y, (self.slope, self.intercept), prior)
        moved = replace(self, slope=slope, intercept=intercept)
        errors = error_curve([moved.probability(score) for score in x], y, self.errors, prior)
        return replace(moved, errors=errors)


def fit_platt(
    scores: Numbers, same: NDArray[np.bool_], start: tuple[float, float], prior: float
) -> tuple[float, float]:
    """Slope and intercept of the logistic function that fits labels best, drawn to `start`.

    Newton's method on the likelihood of Platt (1999) with a normal prior around `start` that weighs as much as
    `prior` undecided pairs of the same scores; so the scale of the scores is of no account.

    Args:
        scores: Shape (n,).
        same: Shape (n,).
        start: Slope and intercept to start from, and to stay at where the labels say nothing.
        prior: Weight of that.
    """
    finite = np.isfinite(scores)
    x, y = scores[finite], same[finite].astype(np.float64)
    if not len(x):
        return start
    middle, spread = float(x.mean()), float(x.std()) or 1.0
    rows = np.stack([(x - middle) / spread, np.ones_like(x)], 1)
    centre = np.array([start[0] * spread, start[1] + start[0] * middle])
    # Pairs of one kind say nothing of the slope.
    moved = _newton(rows, y, centre, prior, fixed=len(set(y)) == 1)
    flattest = min(_FLATTEST, float(centre[0]))
    if moved[0] < flattest:
        # More must stay surer: labels that say otherwise are no reason to turn the judge round.
        moved = _newton(rows, y, np.array([flattest, centre[1]]), prior, fixed=True)
    by = moved - centre
    return start[0] + float(by[0]) / spread, start[1] + float(by[1] - by[0] * middle / spread)


def _newton(rows: Numbers, y: Numbers, centre: Numbers, prior: float, *, fixed: bool) -> Numbers:
    """(slope, intercept) over standardised scores; a fixed slope stays what it is in `centre`."""
    weights = centre.copy()
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(rows @ weights, -500, 500)))
        gradient = rows.T @ (p - y) + prior * 0.25 * (weights - centre)
        curvature = (rows * (p * (1 - p))[:, None]).T @ rows + prior * 0.25 * np.eye(2)
        step = np.array([0.0, gradient[1] / curvature[1, 1]]) if fixed else np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -1, 1)
        if abs(step).max() < 1e-9:
            break
    return weights


def error_curve(
    probabilities: Sequence[float], same: NDArray[np.bool_], before: Sequence[float], prior: float
) -> tuple[float, ...]:
    """Expected error at each threshold in `GRID`: what was seen, and `prior` pairs of what was expected before.

    Never rises with the threshold: where so few pairs are left that it would, neighbours are pooled (`falling`).
    """
    p = np.asarray(probabilities, np.float64)
    raw, weights = [], []
    for threshold, expected in zip(GRID, before, strict=True):
        served = p >= threshold
        wrong = int((served & ~same).sum())
        weights.append(int(served.sum()) + prior)
        # (wrong + prior * expected) / weight, but exactly what was expected where nothing was seen.
        raw.append(expected + (wrong - int(served.sum()) * expected) / weights[-1])
    return falling(raw, weights)


def falling(values: Sequence[float], weights: Sequence[float]) -> tuple[float, ...]:
    """The nearest sequence that never rises: isotonic regression by pooling adjacent violators (Ayer et al., 1955).

    Example:
        >>> falling([0.5, 0.0, 0.25], [1, 1, 3])
        (0.5, 0.1875, 0.1875)
    """
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for value, weight in zip(values, weights, strict=True):
        pools.append((float(value), float(weight), 1))
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            (one, heavy, few), (other, light, many) = pools.pop(-2), pools.pop()
            pools.append(((one * heavy + other * light) / (heavy + light), heavy + light, few + many))
    return tuple(mean for mean, _, many in pools for _ in range(many))


def threshold_unfitted(max_error: float) -> float:
    """Least probability to serve at where nothing but the probability is known; infinite for 0.

    Raises:
        ConfigError: If `max_error` is outside [0, 1).
    """
    mend = "the share of served answers that may be wrong, e.g. 0.05"
    number("max_error", max_error, lambda share: 0 <= share < 1, mend)
    return 1 - max_error if max_error else NOTHING


def load_policy(source: Policy | str | os.PathLike[str] | None) -> Policy:
    """A policy as it is, out of a file, or (for None) the one that comes with the shipped judge.

    Raises:
        ConfigError: If there is no such file, or it holds no policy.
    """
    if source is None:
        return default_policy()
    if isinstance(source, Policy):
        return source
    try:
        text = Path(source).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the policy {os.fspath(source)!r} cannot be read ({error}): `costopt cache tune` writes one"
        ) from error
    return Policy.from_json(text)


@lru_cache(maxsize=1)
def default_policy() -> Policy:
    """The policy of the shipped judge."""
    return Policy.from_json((SHIPPED / "policy.json").read_text("utf-8"))
