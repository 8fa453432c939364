"""Estimators for tests: real objects, that say what the prompt says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Scored:
    """The prompt is the score, e.g. "0.3" or "nan"; several, parted by "/", are the scores of the steps."""

    name = "scored"
    wants_vectors = False

    def __init__(self, tiers: tuple[str, ...] | None = None) -> None:
        self.tiers = tiers
        self.asked = 0

    def scores(self, texts: Sequence[str], vectors: Any) -> NDArray[np.float64]:
        self.asked += len(texts)
        return np.array([[float(part) for part in text.split("/")] for text in texts])


class ByVector(Scored):
    """Reads the first number of the embedding."""

    wants_vectors = True

    def scores(self, texts: Sequence[str], vectors: Any) -> NDArray[np.float64]:
        assert vectors.shape[0] == len(texts)
        return np.asarray(vectors[:, :1], np.float64)


class Broken(Scored):
    """Fails, or hands back what are no scores."""

    def __init__(self, found: Any = None) -> None:
        super().__init__()
        self.found = found

    def scores(self, texts: Sequence[str], vectors: Any) -> NDArray[np.float64]:
        if self.found is None:
            raise RuntimeError("the estimator is broken")
        return self.found  # type: ignore[no-any-return]


class Vectors:
    """An embedder: the first number is the prompt, the second the rest of a unit."""

    name = "numbers"
    dimension = 2

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls.append(list(texts))
        first = np.array([float(text) for text in texts], np.float32)
        return np.stack([first, np.sqrt(1 - first**2)], 1)
