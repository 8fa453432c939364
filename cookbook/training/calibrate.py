"""From the judge's scores to a policy, and what it then does on pairs that it has never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cookbook.training.corpus import UNSEEN, Example, own_sets, public_sets
from costopt.caching.cross_encoder import CrossEncoder
from costopt.caching.guards import READ, overlap, veto
from costopt.caching.policy import GRID, Policy, falling
from costopt.caching.request import normalise
from costopt.embedding import default_model

__all__ = ["MAX_ERRORS", "Scored", "calibrated", "figures", "scored"]

FLOOR = 0.5
_SHARE_SAME = 0.4  # of the candidates that a cache meets, assumed; the development sets have .38 and .52
_SHARE_NEAR = 0.5  # of the others: near misses, assumed; the rest are neighbours
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
        overlap: Share of the words that both texts have.
    """

    score: NDArray[np.float64]
    same: NDArray[np.bool_]
    open: NDArray[np.bool_]
    cosine: NDArray[np.float64]
    exact: NDArray[np.bool_]
    overlap: NDArray[np.float64]

    def served(self, policy: Policy, max_error: float) -> NDArray[np.bool_]:
        """What the cache serves, the exact tier included."""
        least = policy.threshold(max_error)
        sure = np.array([policy.probability(score) >= least for score in self.score + policy.overlap * self.overlap])
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
        np.array([overlap(a, b) for a, b in texts]),
    )


def calibrated(judge: Path, data: Path) -> Policy:
    """The policy of a judge, fitted to the parts of our own domains that were kept for this.

    Half of the wrong candidates in it are near misses, so that the errors it expects are those of hard traffic. The
    question pairs help to weigh score and overlap; of errors their noisy labels cannot tell.
    """
    model = CrossEncoder(judge)
    misses, neighbours = own_sets()
    near = scored(model, [pair for domain in misses.values() for pair in domain.calibrate])
    far = scored(model, [pair for domain in neighbours.values() for pair in domain.calibrate if not pair.same])
    public = scored(model, public_sets(data)["questions"].calibrate)
    other = 1 - _SHARE_SAME
    own = [_seen(near, _SHARE_SAME, other * _SHARE_NEAR), _seen(far, 0, other * (1 - _SHARE_NEAR))]
    x, y, w = (np.concatenate(parts) for parts in zip(*own, _seen(public, _SHARE_SAME, other), strict=True))
    slope, overlap_weight, intercept = _platt(x, y, w * len(x) / w.sum())
    start = Policy(slope, intercept, tuple(1.0 for _ in GRID), FLOOR, overlap=overlap_weight / slope)
    x, y, w = (np.concatenate(parts) for parts in zip(*own, strict=True))
    sure = np.array([start.probability(score) for score in x[:, 0] + start.overlap * x[:, 1]])
    about = {
        "fitted on": "held-out clusters of the domains in cookbook/training/pairs, and of the question pairs",
        "pairs": len(x),
        "share of candidates that want the same answer, assumed": _SHARE_SAME,
        "share of near misses among the others, assumed": _SHARE_NEAR,
    }
    return replace(start, errors=_errors(sure, y, w), about=about)


def _seen(
    part: Scored, same: float, other: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
    """What the judge is asked of: score and overlap, shape (pairs, 2); labels; and weights.

    Those that want the same answer weigh `same` together, and the others `other`, counting what guards keep back.
    """
    near = part.cosine >= FLOOR
    one, two = same / max(1, (near & part.same).sum()), other / max(1, (near & ~part.same).sum())
    weights = np.where(part.same, one, two)
    return np.column_stack([part.score, part.overlap])[part.open], part.same[part.open], weights[part.open]


def _platt(x: NDArray[np.float64], y: NDArray[np.bool_], w: NDArray[np.float64]) -> tuple[float, float, float]:
    """Weighted logistic regression by Newton's method: the weights of score and overlap, and the intercept."""
    rows, weights = np.column_stack([x, np.ones(len(x))]), np.array([1.0, 0.0, 0.0])
    for _ in range(50):
        p = 1 / (1 + np.exp(-rows @ weights))
        curvature = (rows * (w * p * (1 - p))[:, None]).T @ rows + 1e-9 * np.eye(3)
        weights = weights - np.clip(np.linalg.solve(curvature, rows.T @ (w * (p - y))), -1, 1)
    return float(weights[0]), float(weights[1]), float(weights[2])


def _errors(p: NDArray[np.float64], y: NDArray[np.bool_], w: NDArray[np.float64]) -> tuple[float, ...]:
    """Weighted share of wrong ones among what is served at each threshold; half a wrong pair more than was seen."""
    half = float(np.median(w[~y])) / 2
    served = [w[p >= t].sum() + 2 * half for t in GRID]
    wrong = [w[(p >= t) & ~y].sum() + half for t in GRID]
    return falling([part / whole for part, whole in zip(wrong, served, strict=True)], served)


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
                    "precision": right / int(served.sum()) if served.any() else None,
                    "recall": right / int(part.same.sum()),
                }
            )
    return rows
