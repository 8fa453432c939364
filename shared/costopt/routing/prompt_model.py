"""From a prompt to the quality to expect of each tier: ridge regression and nearest neighbours, blended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costopt.routing.estimator import Vectors
from costopt.routing.features import LEAST_SPREAD, features
from costopt.routing.smoothing import Blend, Neighbours, blend, fit_neighbours, fit_ridge, principal_axes

__all__ = ["Prediction", "PromptModel", "fit_prompt_model"]

Numbers = NDArray[np.float64]
Singles = NDArray[np.float32]

_CLIP = 3.0
# What one standard deviation of a feature counts beside an embedding of length 1.
_IN_RIDGE, _IN_NEIGHBOURS = 0.1, 0.12
_AXES = 128  # of the space in which neighbours are sought; more cost time and told nothing
_NOVEL = 0.01  # share of the training prompts that are farther from the others than a prompt may be


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is expected of some prompts.

    Attributes:
        level: Quality of the cheapest tier, shape (prompts,).
        gains: What each other tier adds to that, shape (prompts, tiers - 1).
        nearest: Cosine of the nearest prompt that was trained on, shape (prompts,).
    """

    level: Numbers
    gains: Numbers
    nearest: Numbers

    @property
    def expected(self) -> Numbers:
        """Quality of each tier, shape (prompts, tiers)."""
        level = self.level[:, None]
        return np.concatenate([level, level + self.gains], axis=1)


@dataclass(frozen=True, slots=True)
class PromptModel:
    """What was learned.

    Attributes:
        centre: Means of the features, shape (features,).
        spread: Their standard deviations, shape (features,).
        projection: The weights of the ridge regression for the level and each gain, and beside them the axes of the
            space of the neighbours, shape (dimension + features, tiers + axes).
        intercept: Of the ridge regression, shape (tiers,).
        neighbours: Their targets are the gains.
        blend: Of the gains that both say.
        floor: Cosine of the nearest prompt below which a prompt is novel.
    """

    centre: Numbers
    spread: Numbers
    projection: Singles
    intercept: Numbers
    neighbours: Neighbours
    blend: Blend
    floor: float

    def predict(self, texts: Sequence[str], vectors: Vectors) -> Prediction:
        """What is expected of these prompts, given with their embeddings, shape (prompts, dimension)."""
        both = np.concatenate([vectors, _traits(features(texts), self.centre, self.spread)], axis=1)
        projected, tiers = both @ self.projection, len(self.intercept)
        linear = projected[:, :tiers] + self.intercept
        placed = projected[:, tiers:] / _lengths(both, vectors.shape[1])
        # Not brought to length 1 again: what lies off the axes is far from everything.
        near, nearest = self.neighbours.predict(placed)
        return Prediction(linear[:, 0], self.blend.apply(linear[:, 1:], near), nearest)

    @property
    def dimension(self) -> int:
        """Of the embeddings that it reads."""
        return len(self.projection) - len(self.centre)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What `from_arrays` takes."""
        return {
            "centre": self.centre,
            "spread": self.spread,
            "projection": self.projection,
            "intercept": self.intercept,
            "neighbours": self.neighbours.rows,
            "neighbour_gains": self.neighbours.targets,
            "blend_weights": self.blend.weights,
            "blend_intercept": self.blend.intercept,
            "scalars": np.array([self.neighbours.sharpness, self.floor]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> PromptModel:
        """The model in these arrays.

        Raises:
            KeyError: If one is missing.
        """
        given = {name: np.asarray(arrays[name], np.float64) for name in ("centre", "spread", "intercept", "scalars")}
        projection, rows, gains = (
            np.asarray(arrays[name], np.float32) for name in ("projection", "neighbours", "neighbour_gains")
        )
        stretch = (np.asarray(arrays[name], np.float64) for name in ("blend_weights", "blend_intercept"))
        sharpness, floor = (float(value) for value in given["scalars"])
        near = Neighbours(rows, gains, sharpness)
        return cls(given["centre"], given["spread"], projection, given["intercept"], near, Blend(*stretch), floor)


def fit_prompt_model(
    texts: Sequence[str], vectors: Vectors, scores: Numbers, seed: int = 0
) -> tuple[PromptModel, Prediction]:
    """Fit everything; all that is chosen is chosen by what each prompt's prediction would be without it.

    Args:
        texts: The prompts, each once.
        vectors: Their embeddings, shape (prompts, dimension).
        scores: Quality of each tier, cheapest first, shape (prompts, tiers).
        seed: Of the prompts kept as neighbours, where there are too many.

    Returns:
        The model, and what it would have said of each prompt without it.
    """
    raw = features(texts)
    centre, spread = raw.mean(axis=0), np.maximum(raw.std(axis=0), LEAST_SPREAD)
    both = np.concatenate([vectors, _traits(raw, centre, spread)], axis=1)
    dimension = vectors.shape[1]
    in_ridge = np.where(np.arange(both.shape[1]) < dimension, 1.0, _IN_RIDGE)
    in_space = np.where(np.arange(both.shape[1]) < dimension, 1.0, _IN_NEIGHBOURS).astype(np.float32)
    rows = both * in_ridge
    level, gains = scores[:, :1], scores[:, 1:] - scores[:, :1]
    low, low_out = fit_ridge(rows, level)
    high, high_out = fit_ridge(rows, gains)
    spanned: Singles = (both * in_space / _lengths(both, dimension)).astype(np.float32)
    axes = principal_axes(spanned, _AXES)
    near, near_out, nearest = fit_neighbours((spanned @ axes).astype(np.float32), gains, seed=seed)
    weights = np.concatenate([low.weights, high.weights], axis=1) * in_ridge[:, None]
    blended = blend(high_out, near_out, gains)
    model = PromptModel(
        centre,
        spread,
        np.concatenate([weights, axes * in_space[:, None]], axis=1).astype(np.float32),
        np.concatenate([low.intercept, high.intercept]),
        near,
        blended,
        float(np.quantile(nearest, _NOVEL)),
    )
    return model, Prediction(low_out[:, 0], blended.apply(high_out, near_out), nearest)


def _traits(raw: Numbers, centre: Numbers, spread: Numbers) -> Singles:
    traits: Singles = np.clip((raw - centre) / spread, -_CLIP, _CLIP).astype(np.float32)
    return traits


def _lengths(both: Singles, dimension: int) -> Singles:
    """Length of embedding and features taken together, shape (rows, 1)."""
    vectors, traits = both[:, :dimension], both[:, dimension:]
    squares = np.einsum("ij,ij->i", vectors, vectors) + _IN_NEIGHBOURS**2 * np.einsum("ij,ij->i", traits, traits)
    lengths: Singles = np.sqrt(squares)[:, None].astype(np.float32)
    return lengths
