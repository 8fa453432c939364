"""Ridge regression and nearest neighbours in closed form, with what each would have said of a row it had not seen.

Only the mean of all targets is kept when a row is left out. Without its own target the mean would move the other way,
and where little can be predicted that alone makes predictions look as if they pointed the wrong way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Blend", "Neighbours", "Ridge", "blend", "fit_neighbours", "fit_ridge", "principal_axes"]

Numbers = NDArray[np.float64]
Singles = NDArray[np.float32]

_PENALTIES = tuple(float(value) for value in np.geomspace(0.03, 300, 13))
_SHARPNESS = (4.0, 6.0, 8.0, 10.0)
_MOST_NEIGHBOURS = 2_048  # rows to look among: a decision must stay cheap
_CHUNK = 512
_SHARES = (1 / 3, 2 / 3)  # of the ridge and of the neighbours in the blend
_LEAST_SLOPE = 0.05


@dataclass(frozen=True, slots=True)
class Ridge:
    """A linear function: `rows @ weights + intercept`.

    Attributes:
        weights: Shape (columns, targets).
        intercept: Shape (targets,).
        penalty: Chosen by leave-one-out error.
    """

    weights: Numbers
    intercept: Numbers
    penalty: float


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Means of the targets of known rows, weighted by exp(sharpness * cosine).

    Attributes:
        rows: What is known, shape (known, dimension).
        targets: Their targets, shape (known, targets).
        sharpness: How much nearer ones count; chosen by leave-one-out error.
    """

    rows: Singles
    targets: Singles
    sharpness: float

    def predict(self, asked: Singles) -> tuple[Numbers, Numbers]:
        """(weighted mean of the targets, cosine of the nearest row) for each row, (asked, targets) and (asked,)."""
        cosines = asked @ self.rows.T
        nearest = cosines.max(axis=1)
        # Less the largest: the weights cannot vanish all at once.
        weights = np.exp(self.sharpness * (cosines - nearest[:, None]))
        found = (weights @ self.targets) / weights.sum(axis=1, keepdims=True)
        return found.astype(np.float64), nearest.astype(np.float64)


@dataclass(frozen=True, slots=True)
class Blend:
    """How much each of two predictions counts, so that their sum is calibrated.

    Attributes:
        weights: Shape (2, targets); above 0.
        intercept: Shape (targets,).
    """

    weights: Numbers
    intercept: Numbers

    def apply(self, one: Numbers, other: Numbers) -> Numbers:
        """The blended prediction, shape (rows, targets)."""
        blended: Numbers = one * self.weights[0] + other * self.weights[1] + self.intercept
        return blended


def fit_ridge(rows: Numbers, targets: Numbers, penalties: Sequence[float] = _PENALTIES) -> tuple[Ridge, Numbers]:
    """Fit ridge regression; the penalty is the one of the least leave-one-out error over all targets.

    Args:
        rows: Shape (rows, columns).
        targets: Shape (rows, targets).
        penalties: To choose from.

    Returns:
        The function, and what it would have said of each row without it, shape (rows, targets).

    Example:
        >>> x = np.arange(20.0)[:, None]
        >>> ridge, left_out = fit_ridge(x, 2 * x + 1)
        >>> ridge.weights.round(2).tolist(), left_out.shape
        ([[2.0]], (20, 1))
    """
    middle, level = rows.mean(axis=0), targets.mean(axis=0)
    centred, wanted = rows - middle, targets - level
    values, axes = np.linalg.eigh(centred.T @ centred)
    values = np.maximum(values, 0.0)
    turned = centred @ axes
    squared, projected = turned**2, turned.T @ wanted
    scale = np.maximum(wanted.var(axis=0), 1e-12)
    best: tuple[float, float, Numbers] | None = None
    for penalty in penalties:
        shrunk = 1 / (values + penalty)
        own = np.minimum(squared @ shrunk, 1 - 1e-6)
        missed = (wanted - turned @ (shrunk[:, None] * projected)) / (1 - own)[:, None]
        error = float(np.mean(missed**2 / scale))
        if best is None or error < best[0]:
            best = error, penalty, targets - missed
    assert best is not None
    _, penalty, left_out = best
    weights = axes @ (projected / (values + penalty)[:, None])
    return Ridge(weights, level - middle @ weights, penalty), left_out


def fit_neighbours(
    rows: Singles, targets: Numbers, sharpness: Sequence[float] = _SHARPNESS, seed: int = 0
) -> tuple[Neighbours, Numbers, Numbers]:
    """Keep the rows (or 2,048 of them), and choose how sharply to weigh by leave-one-out error.

    Args:
        rows: Shape (rows, dimension); unit length or less.
        targets: Shape (rows, targets).
        sharpness: To choose from.
        seed: Of the rows that are kept.

    Returns:
        The neighbours; what they would have said of each row without it, shape (rows, targets); and the cosine of the
        nearest other row, shape (rows,).
    """
    kept = np.arange(len(rows))
    if len(rows) > _MOST_NEIGHBOURS:
        kept = np.sort(np.random.default_rng(seed).choice(len(rows), _MOST_NEIGHBOURS, replace=False))
    known, answers = rows[kept], targets[kept].astype(np.float32)
    said = np.empty((len(sharpness), *targets.shape))
    nearest = np.empty(len(rows))
    for start in range(0, len(rows), _CHUNK):
        part = np.arange(start, min(start + _CHUNK, len(rows)))
        cosines = rows[part] @ known.T
        cosines[kept[None] == part[:, None]] = -np.inf  # nobody is a neighbour of themself
        nearest[part] = cosines.max(axis=1)
        for i, sharp in enumerate(sharpness):
            weights = np.exp(sharp * (cosines - nearest[part][:, None].astype(np.float32)))
            said[i, part] = (weights @ answers) / weights.sum(axis=1, keepdims=True)
    said += (targets - targets.mean(axis=0)) / (len(rows) - 1)
    scale = np.maximum(targets.var(axis=0), 1e-12)
    # By what is left after the best line: how far the means are drawn to the middle is the blend's business.
    errors = [float(np.mean(_off_line(each, targets) / scale)) for each in said]
    best = int(np.argmin(errors))
    return Neighbours(known, answers, float(sharpness[best])), said[best], nearest


def _off_line(said: Numbers, targets: Numbers) -> Numbers:
    """Mean squared error of each target after the best rising line through what was said, shape (targets,)."""
    x, y = said - said.mean(axis=0), targets - targets.mean(axis=0)
    slope = np.maximum((x * y).mean(axis=0), 0) / np.maximum((x * x).mean(axis=0), 1e-12)
    left: Numbers = ((y - slope * x) ** 2).mean(axis=0)
    return left


def blend(one: Numbers, other: Numbers, targets: Numbers, shares: tuple[float, float] = _SHARES) -> Blend:
    """Blend two predictions of rows that neither had seen, and stretch the blend so that it is calibrated.

    Each counts by its share once both are brought to one spread: weights fitted to some hundred rows were worse than
    fixed ones. What is fitted is the line that makes the blend right on average at every level it names.

    Args:
        one: Shape (rows, targets).
        other: Shape (rows, targets).
        targets: Shape (rows, targets).
        shares: Of both.

    Example:
        >>> said, true = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [2.0], [4.0]])
        >>> blend(said, said, true).apply(said, said).round(2).tolist()
        [[0.0], [2.0], [4.0]]
    """
    spreads = [np.maximum(each.std(axis=0), 1e-9) for each in (one, other)]
    weights = np.stack([share / spread for share, spread in zip(shares, spreads, strict=True)])
    said = one * weights[0] + other * weights[1]
    x, y = said - said.mean(axis=0), targets - targets.mean(axis=0)
    slope = (x * y).sum(axis=0) / np.maximum((x * x).sum(axis=0), 1e-12)
    # Labels that say the opposite of what they said when left in are noise: nearly level, but never turned round.
    weights *= np.maximum(slope, _LEAST_SLOPE * y.std(axis=0))
    return Blend(weights, targets.mean(axis=0) - one.mean(axis=0) * weights[0] - other.mean(axis=0) * weights[1])


def principal_axes(rows: Singles, most: int) -> Singles:
    """The directions in which unit vectors lie most, as columns, shape (dimension, at most `most`)."""
    values, axes = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    used = min(most, int((values > 1e-9 * values[-1]).sum()), rows.shape[1])
    return np.ascontiguousarray(axes[:, ::-1][:, :used], np.float32)
