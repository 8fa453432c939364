"""From the judge's scores to a policy, and what it then does on pairs that it has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cookbook.training.corpus import UNSEEN, Example, own_sets, public_sets
from costopt.caching.cross_encoder import CrossEncoder
from costopt.caching.guards import READ, veto
from costopt.caching.policy import GRID, Policy
from costopt.caching.request import normalise
from costopt.embedding import default_model

__all__ = ["Scored", "calibrated", "figures", "scored"]

FLOOR = 0.5
_SHARE_SAME = 0.4  # of the candidates that a cache meets, assumed; the development sets have .38 and .52
_SHARE_NEAR_MISSES = 0.25  # of those that want another answer, assumed
MAX_ERRORS = (0.01, 0.02, 0.05, 0.1)


@dataclass(frozen=True, slots=True)
class Scored:
    """Labelled pairs and what is known of them; all arrays of shape (pairs,).

    Attributes:
        score: What the judge says.
        same: Whether one answer serves both.
        open: Whether the judge is asked at all: no guard spoke up, and the similarity is at least `FLOOR`.
        cosine: Similarity of the embeddings.
        exact: Whether the exact tier serves it.
    """

    score: NDArray[np.float64]
    same: NDArray[np.bool_]
    open: NDArray[np.bool_]
    cosine: NDArray[np.float64]
    exact: NDArray[np.bool_]

    def served(self, policy: Policy, max_error: float) -> NDArray[np.bool_]:
        """What the cache serves, the exact tier included."""
        least = policy.threshold(max_error)
        sure = np.array([policy.probability(score) >= least for score in self.score])
        return self.exact | (self.open & sure)


def scored(judge: CrossEncoder, pairs: Sequence[Example]) -> Scored:
    """Ask the judge, the guards and the embedder, as the cache does."""
    texts = [(normalise(pair.a), normalise(pair.b)) for pair in pairs]
    vectors = default_model().embed([text for both in texts for text in both])
    cosine = np.einsum("ij,ij->i", vectors[::2], vectors[1::2]).astype(np.float64)
    free = np.array([veto(a, b, leave=READ) is None for a, b in texts])
    return Scored(
        np.array(judge.predict(texts)),
        np.array([pair.same for pair in pairs]),
        free & (cosine >= FLOOR),
        cosine,
        np.array([a == b for a, b in texts]),
    )


def calibrated(judge: Path, data: Path) -> Policy:
    """The policy of a judge, fitted to the parts of our own domains that were kept for this.

    The question pairs are left out: their labels are too noisy to tell 1 % of errors from 2 %.
    """
    model = CrossEncoder(judge)
    misses, neighbours = own_sets()
    score, same, weight = [], [], []
    for domain in misses:
        if not misses[domain].calibrate:
            continue
        near, far = (scored(model, part[domain].calibrate) for part in (misses, neighbours))
        positives = near.open & near.same
        others = [near.open & ~near.same, far.open & ~far.same]
        shares = (_SHARE_SAME, (1 - _SHARE_SAME) * _SHARE_NEAR_MISSES, (1 - _SHARE_SAME) * (1 - _SHARE_NEAR_MISSES))
        # Of all that are candidates, whether or not a guard keeps them back.
        sizes = (
            (near.cosine >= FLOOR) & near.same,
            (near.cosine >= FLOOR) & ~near.same,
            (far.cosine >= FLOOR) & ~far.same,
        )
        for mask, part, share, size in zip([positives, *others], (near, near, far), shares, sizes, strict=True):
            score.append(part.score[mask])
            same.append(part.same[mask])
            weight.append(np.full(int(mask.sum()), share / max(1, int(size.sum()))))
    x, y, w = np.concatenate(score), np.concatenate(same), np.concatenate(weight)
    slope, intercept = _platt(x, y, w * len(x) / w.sum())
    start = Policy(slope, intercept, tuple(1.0 for _ in GRID), FLOOR)
    errors = _errors(np.array([start.probability(value) for value in x]), y, w)
    about = {
        "fitted on": "held-out clusters of the domains in cookbook/training/pairs",
        "pairs": len(x),
        "share of candidates that want the same answer, assumed": _SHARE_SAME,
        "share of near misses among the others, assumed": _SHARE_NEAR_MISSES,
    }
    return Policy(slope, intercept, errors, FLOOR, None, about)


def _platt(x: NDArray[np.float64], y: NDArray[np.bool_], w: NDArray[np.float64]) -> tuple[float, float]:
    """Weighted logistic regression by Newton's method."""
    rows, weights = np.stack([x, np.ones_like(x)], 1), np.array([1.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-rows @ weights))
        curvature = (rows * (w * p * (1 - p))[:, None]).T @ rows + 1e-9 * np.eye(2)
        weights = weights - np.clip(np.linalg.solve(curvature, rows.T @ (w * (p - y))), -1, 1)
    return float(weights[0]), float(weights[1])


def _errors(p: NDArray[np.float64], y: NDArray[np.bool_], w: NDArray[np.float64]) -> tuple[float, ...]:
    """Weighted share of wrong ones among what is served at each threshold; one more wrong pair than was seen."""
    one = float(np.median(w[~y]))
    raw = [(w[(p >= t) & ~y].sum() + one) / (w[p >= t].sum() + 2 * one) for t in GRID]
    return tuple(float(error) for error in np.maximum.accumulate(raw[::-1])[::-1])


def figures(judge: Path, data: Path, policy: Policy) -> list[dict[str, object]]:
    """Precision and recall on what the judge has never seen, at each of `MAX_ERRORS`."""
    model = CrossEncoder(judge)
    public = public_sets(data)
    misses, neighbours = own_sets()
    tests = {
        "question pairs, unseen clusters": public["questions"].test,
        "prompt pairs, unseen clusters": public["prompts"].test,
        f"{UNSEEN} questions (unseen domain), neighbours": neighbours[UNSEEN].test,
        f"{UNSEEN} questions (unseen domain), near misses": misses[UNSEEN].test,
    }
    rows: list[dict[str, object]] = []
    for name, pairs in tests.items():
        part = scored(model, pairs)
        for max_error in MAX_ERRORS:
            served = part.served(policy, max_error)
            right = int((served & part.same).sum())
            rows.append(
                {
                    "set": name,
                    "pairs": len(pairs),
                    "max_error": max_error,
                    "precision": right / max(1, int(served.sum())),
                    "recall": right / int(part.same.sum()),
                }
            )
    return rows
