"""Fit the judge's probability and threshold to a user's own pairs, and say honestly how far that carries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costopt.caching.evaluate import Pair, interval
from costopt.caching.guards import READ, veto
from costopt.caching.judge import CrossEncoderJudge, floor_of
from costopt.caching.policy import GRID, Policy, threshold_unfitted
from costopt.caching.request import normalise
from costopt.embedding import Embedder, fits
from costopt.errors import ConfigError

__all__ = ["Tuning", "tune"]

_FOLDS = 5
_FEWEST = 20


@dataclass(frozen=True, slots=True)
class Tuning:
    """A policy, and what it did on pairs that it was not fitted to (five folds).

    Attributes:
        policy: Fitted to all pairs; `SemanticCache(policy=...)` takes it, or the file with its `as_json()`.
        pairs: How many pairs there were.
        judged: How many of them the judge was asked about; the others are the same text, too long, kept back by a
            guard or too far apart.
        served: How many were served in the folds, the same text left out.
        wrong: How many of those want another answer.
        threshold: Least probability that is served, by the policy.
    """

    policy: Policy
    pairs: int
    judged: int
    served: int
    wrong: int
    threshold: float

    @property
    def coverage(self) -> float:
        """Share of all pairs that was served."""
        return self.served / self.pairs

    @property
    def error(self) -> float | None:
        """Share of the served pairs that want another answer; None if nothing was served."""
        return self.wrong / self.served if self.served else None

    def as_dict(self) -> dict[str, object]:
        """The figures with their 95 % intervals, for `--json`."""
        return {
            "pairs": self.pairs,
            "judged": self.judged,
            "served": self.served,
            "wrong": self.wrong,
            "coverage": self.coverage,
            "coverage_interval": interval(self.served, self.pairs),
            "error": self.error,
            "error_interval": interval(self.wrong, self.served),
            "max_error": self.policy.max_error,
            "threshold": self.threshold if self.threshold <= 1 else None,
        }


def tune(pairs: Iterable[Pair], embedder: Embedder, judge: CrossEncoderJudge, max_error: float) -> Tuning:
    """Fit a policy to labelled pairs.

    What the judge's own policy says counts as 50 pairs against them, so that a few labels move it a little and many
    decide. Rejected pairs alone make it stricter.

    Args:
        pairs: The user's own: labelled by hand, rejected, or compared in shadow mode.
        embedder: As in the cache.
        judge: Whose scores are to be fitted.
        max_error: Share of the served answers that may be wrong, in [0, 1).

    Raises:
        ConfigError: If there are fewer than 20 pairs that the judge can be asked about, or `max_error` is out of range.

    Example:
        >>> pairs = [Pair(f"what is {n} plus 1", f"{n} plus 1 is what", True) for n in "abcdefghijklmnopqrstuvwxyz"]
        >>> tuning = tune(pairs, default_embedder(), CrossEncoderJudge(), max_error=0.05)
        >>> tuning.policy.max_error, tuning.wrong
        (0.05, 0)
    """
    threshold_unfitted(max_error)  # for its checks
    everything = list(pairs)
    floor = floor_of(judge)
    chosen = _judged(everything, embedder, judge, floor)
    if len(chosen) < _FEWEST:
        raise ConfigError(
            f"{len(chosen)} of {len(everything)} pairs can be judged, and {_FEWEST} are needed: "
            "add pairs whose texts differ, are near, and pass the guards"
        )
    scores = np.array(judge.scores([(normalise(pair.b), normalise(pair.a)) for pair in chosen]), np.float64)
    same = np.array([pair.same for pair in chosen], bool)
    before = judge.policy or _unknown(scores, floor)
    served = _out_of_fold(scores, same, before, max_error)
    fitted = replace(before.updated(scores, same), max_error=max_error)
    about = {"fitted on": "pairs of the user's own", "pairs": len(everything), "judged": len(chosen)}
    return Tuning(
        replace(fitted, about=about),
        pairs=len(everything),
        judged=len(chosen),
        served=int(served.sum()),
        wrong=int((served & ~same).sum()),
        threshold=fitted.threshold(max_error),
    )


def _unknown(scores: NDArray[np.float64], floor: float) -> Policy:
    """For a model of which nothing is known: the middle of its scores is undecided, and their spread the unit."""
    finite = scores[np.isfinite(scores)]
    middle, spread = (float(finite.mean()), float(finite.std()) or 1.0) if len(finite) else (0.0, 1.0)
    return Policy(1 / spread, -middle / spread, tuple(round(1 - p, 3) for p in GRID), floor)


def _judged(pairs: list[Pair], embedder: Embedder, judge: CrossEncoderJudge, floor: float) -> list[Pair]:
    """The pairs that reach the judge's model."""
    texts = [(normalise(pair.a), normalise(pair.b)) for pair in pairs]
    vectors = embedder.embed([text for both in texts for text in both])
    near = np.einsum("ij,ij->i", vectors[::2], vectors[1::2]) >= floor
    return [
        pair
        for pair, (a, b), close in zip(pairs, texts, near, strict=True)
        if close
        and a
        and b
        and a != b
        and fits(embedder, a)
        and fits(embedder, b)
        and not (judge.guards and veto(b, a, leave=READ) is not None)
    ]


def _out_of_fold(
    scores: NDArray[np.float64], same: NDArray[np.bool_], before: Policy, max_error: float
) -> NDArray[np.bool_]:
    """What would be served by policies that were fitted to the other folds."""
    served = np.zeros(len(scores), bool)
    folds = np.random.default_rng(0).permutation(len(scores)) % _FOLDS
    for fold in range(_FOLDS):
        policy = before.updated(scores[folds != fold], same[folds != fold])
        least = policy.threshold(max_error)
        for i in np.flatnonzero(folds == fold):
            served[i] = policy.probability(float(scores[i])) >= least
    return served
