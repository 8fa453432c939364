"""How good a router is, by the terms of RouteLLM (arXiv 2406.18665), beside controls that any router must beat.

share        part of the requests that goes to the strong model
PGR(share)   performance gap recovered: (quality at that share - cheap quality) / (strong quality - cheap quality)
APGR         mean of PGR over all shares, the area under the curve
CPT(x)       call performance threshold: the least share at which PGR is x
share_at_95  the least share at which the quality is 95 % of the strong model's

The curve sends prompts to the strong model in falling order of their scores. It is exact: every prompt is a point, and
prompts with one score are sent in no order, so that between the ends of a tie the curve is a straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from costopt.errors import ConfigError

__all__ = ["METRICS", "Curve", "Figure", "Point", "Ranking", "compare", "controls", "curve", "points"]

Numbers = NDArray[np.float64]

METRICS = ("apgr", "cpt50", "cpt80", "share_at_95")
_KEPT = 0.95
_ENOUGH = 0.975  # of the resamples; where more have no gap to recover, a bound would be made up
_RESAMPLES = 1_000
_CHUNK = 4_000_000  # numbers in memory at once


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality against share of strong calls, corner by corner; between them it is straight.

    Attributes:
        shares: Rising from 0 to 1, shape (corners,).
        qualities: Mean quality at these shares, shape (corners,).
    """

    shares: Numbers
    qualities: Numbers

    @property
    def pgr(self) -> Numbers:
        """Performance gap recovered at each corner: 0 for the cheap model alone, 1 for the strong one."""
        cheap, strong = self.qualities[0], self.qualities[-1]
        recovered: Numbers = (self.qualities - cheap) / (strong - cheap)
        return recovered

    @property
    def apgr(self) -> float:
        """Mean of PGR over all shares; 0.5 for a router that chooses at random."""
        return float(np.trapezoid(self.pgr, self.shares))

    def cpt(self, recovered: float) -> float:
        """The least share of strong calls that recovers this part of the gap, in [0, 1]."""
        return float(_first(self.shares[None], self.pgr[None], np.array([recovered]))[0])

    @property
    def share_at_95(self) -> float:
        """The least share of strong calls that scores 95 % of what the strong model alone does."""
        wanted = np.array([_KEPT * self.qualities[-1]])
        return float(_first(self.shares[None], self.qualities[None], wanted)[0])

    def quality(self, share: float) -> float:
        """Mean quality if this share of the requests goes to the strong model."""
        return float(np.interp(share, self.shares, self.qualities))

    def figures(self) -> dict[str, float]:
        """The four figures by name."""
        return {"apgr": self.apgr, "cpt50": self.cpt(0.5), "cpt80": self.cpt(0.8), "share_at_95": self.share_at_95}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % bootstrap interval (None where too few resamples have the figure)."""

    value: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both bounds, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Point:
    """Mean quality if this share of the requests goes to the strong model."""

    share: float
    quality: Figure

    def as_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {"share": self.share, "quality": self.quality.value, "interval": self.quality.interval}


@dataclass(frozen=True, slots=True)
class Ranking:
    """What one order of the prompts is worth.

    Attributes:
        curve: Quality against share of strong calls.
        figures: APGR, CPT(50 %), CPT(80 %), share at 95 %, by the names in `METRICS`.
        over_length: The same figures less those of sorting by length, on the same resamples.
    """

    curve: Curve
    figures: Mapping[str, Figure]
    over_length: Mapping[str, Figure]


def curve(scores: ArrayLike, cheap: ArrayLike, strong: ArrayLike) -> Curve:
    """The exact curve of a router that sends the prompts of the highest scores to the strong model.

    Args:
        scores: What the strong model is thought to add, on any scale, shape (prompts,); NaN counts as most.
        cheap: Quality of the cheap model's answers, shape (prompts,).
        strong: Quality of the strong model's answers, shape (prompts,).

    Raises:
        ConfigError: If there are no prompts, or the strong model scores no higher than the cheap one.

    Example:
        >>> found = curve([0.9, 0.1], cheap=[0, 1], strong=[1, 1])
        >>> found.apgr, found.cpt(0.5), curve([0, 0], [0, 1], [1, 1]).apgr
        (0.75, 0.25, 0.5)
    """
    order, ends = _sorted(np.asarray(scores, np.float64))
    low, high = np.asarray(cheap, np.float64), np.asarray(strong, np.float64)
    _check(low, high)
    gains = np.cumsum((high - low)[order])[ends]
    shares = np.concatenate([[0.0], (ends + 1) / len(order)])
    return Curve(shares, low.mean() + np.concatenate([[0.0], gains]) / len(order))


def controls(scores: ArrayLike, texts: Sequence[str], gains: ArrayLike, seed: int = 0) -> dict[str, Numbers]:
    """Scores that need no router: random ones, the length, these scores shuffled; and the best there can be.

    Args:
        scores: Of the router, shape (prompts,).
        texts: The prompts.
        gains: Strong quality less cheap quality, shape (prompts,).
        seed: Of what is random.
    """
    chosen = np.random.default_rng(seed)
    return {
        "random": chosen.random(len(texts)),
        "length": np.array([len(text) for text in texts], np.float64),
        "shuffled": chosen.permutation(np.asarray(scores, np.float64)),
        "oracle": np.asarray(gains, np.float64),
    }


def compare(
    rankings: Mapping[str, ArrayLike],
    cheap: ArrayLike,
    strong: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> dict[str, Ranking]:
    """Measure several orders of the same prompts on the same resamples, and each against `"length"`.

    Args:
        rankings: Scores by name, each of shape (prompts,); `"length"` is among them.
        cheap: Quality of the cheap model's answers, shape (prompts,).
        strong: Quality of the strong model's answers, shape (prompts,).
        seed: Of the bootstrap.
        resamples: How often prompts are drawn with replacement.

    Raises:
        ConfigError: If the strong model scores no higher than the cheap one.

    Example:
        >>> found = compare({"length": [1, 2, 3], "oracle": [0, 0, 1]}, [1, 1, 0], [1, 1, 1], resamples=50)
        >>> round(found["oracle"].figures["apgr"].value, 3), found["length"].over_length["apgr"].value
        (0.833, 0.0)
    """
    low, high = np.asarray(cheap, np.float64), np.asarray(strong, np.float64)
    curves = {name: curve(scores, low, high) for name, scores in rankings.items()}
    drawn = {name: np.empty((len(METRICS), 0)) for name in rankings}
    for counts in _draws(len(low), resamples, seed):
        for name, scores in rankings.items():
            found = _resampled(np.asarray(scores, np.float64), low, high, counts)
            drawn[name] = np.concatenate([drawn[name], found], axis=1)
    length, by_length = curves["length"].figures(), drawn["length"]
    return {
        name: Ranking(
            each,
            _figures(each.figures(), drawn[name]),
            _figures({key: value - length[key] for key, value in each.figures().items()}, drawn[name] - by_length),
        )
        for name, each in curves.items()
    }


def points(
    scores: ArrayLike,
    cheap: ArrayLike,
    strong: ArrayLike,
    shares: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> list[Point]:
    """Quality at some shares of strong calls, with bootstrap intervals; arguments as of `compare`.

    Example:
        >>> [point.quality.value for point in points([0.9, 0.1], [0, 1], [1, 1], [0.0, 0.5, 1.0], resamples=20)]
        [0.5, 1.0, 1.0]
    """
    ranks, low, high = (np.asarray(each, np.float64) for each in (scores, cheap, strong))
    found = curve(ranks, low, high)
    order, ends = _sorted(ranks)
    drawn = []
    for counts in _draws(len(low), resamples, seed):
        shared, gained, base = _corners(order, ends, low, high, counts)
        drawn += [np.interp(shares, shared[i], base[i] + gained[i]) for i in range(len(counts))]
    return [
        Point(float(share), _figure(found.quality(share), column))
        for share, column in zip(shares, np.array(drawn).T, strict=True)
    ]


def _check(cheap: Numbers, strong: Numbers) -> None:
    if not len(cheap):
        raise ConfigError("there are no prompts to measure on: give rows with the scores of both models")
    if not strong.mean() > cheap.mean():
        raise ConfigError(
            f"the strong model scores {strong.mean():.3f} and the cheap one {cheap.mean():.3f}: there is no gap to "
            "recover; name the tiers cheapest first, or use the cheap model for everything"
        )


def _sorted(scores: Numbers) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(the prompts in falling order of their scores, the last place of each tie)."""
    filled = np.where(np.isnan(scores), np.inf, scores)
    order = np.argsort(-filled, kind="stable")
    ordered = filled[order]
    return order, np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))


def _resampled(scores: Numbers, cheap: Numbers, strong: Numbers, counts: Numbers) -> Numbers:
    """The four figures of each resample, given as how often it holds each prompt; shape (4, resamples)."""
    shares, gained, base = _corners(*_sorted(scores), cheap, strong, counts)
    gap = gained[:, -1:]
    pgr = gained / np.where(gap > 0, gap, 1.0)
    areas = np.sum(np.diff(shares, axis=1) * (pgr[:, 1:] + pgr[:, :-1]) / 2, axis=1)
    found = np.stack([
        areas,
        _first(shares, pgr, np.full(len(counts), 0.5)),
        _first(shares, pgr, np.full(len(counts), 0.8)),
        _first(shares, base + gained, _KEPT * (base + gap)[:, 0]),
    ])  # fmt: skip
    found[:, gap[:, 0] <= 0] = np.nan  # no gap, nothing to recover
    return found


def _draws(of: int, resamples: int, seed: int) -> Iterator[Numbers]:
    """How often each resample holds each prompt, some resamples at a time, each of shape (resamples, prompts)."""
    chosen = np.random.default_rng(seed)
    step = max(1, _CHUNK // of)
    for start in range(0, resamples, step):
        yield chosen.multinomial(of, np.full(of, 1 / of), size=min(step, resamples - start)).astype(np.float64)


def _corners(
    order: NDArray[np.intp], ends: NDArray[np.intp], cheap: Numbers, strong: Numbers, counts: Numbers
) -> tuple[Numbers, Numbers, Numbers]:
    """Shares, quality gained at them (both (resamples, corners)), cheap quality (resamples, 1)."""
    weights, total = counts[:, order], counts.sum(axis=1, keepdims=True)
    shares = np.cumsum(weights, axis=1)[:, ends] / total
    gained = np.cumsum(weights * (strong - cheap)[order], axis=1)[:, ends] / total
    start = np.zeros((len(counts), 1))
    return np.hstack([start, shares]), np.hstack([start, gained]), (counts @ cheap)[:, None] / total


def _first(shares: Numbers, values: Numbers, wanted: Numbers) -> Numbers:
    """The share at which each row of `values` first reaches what is wanted; NaN where it never does."""
    reached = values >= wanted[:, None] - 1e-12
    place = reached.argmax(axis=1)
    rows = np.arange(len(values))
    before = np.maximum(place - 1, 0)
    low, high = values[rows, before], values[rows, place]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(high > low, (wanted - low) / (high - low), 0.0)
    found = shares[rows, before] + np.clip(part, 0, 1) * (shares[rows, place] - shares[rows, before])
    return np.where(reached.any(axis=1), np.where(place == 0, shares[:, 0], found), np.nan)


def _figures(values: Mapping[str, float], drawn: Numbers) -> dict[str, Figure]:
    return {name: _figure(values[name], drawn[i]) for i, name in enumerate(METRICS)}


def _figure(value: float, drawn: Numbers) -> Figure:
    usable = drawn[~np.isnan(drawn)]
    if len(usable) < _ENOUGH * len(drawn):
        return Figure(value, None, None)
    low, high = np.quantile(usable, [0.025, 0.975])
    return Figure(value, float(low), float(high))
