"""For the cascade: with the cheap answer on the table, what would a stronger model still add?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from costopt.embedding import Embedder
from costopt.errors import ConfigError
from costopt.routing.answer_features import ANSWER_FEATURES, answer_features
from costopt.routing.estimator import Vectors
from costopt.routing.smoothing import fit_ridge

__all__ = ["AnswerEstimator", "AnswerModel", "fit_answer_model"]

Numbers = NDArray[np.float64]

_CLIP = 3.0
_LEAST_SPREAD = 0.1
_OF_PROMPT = 3.0  # what the gain expected from the prompt counts beside one feature


class PromptGains(Protocol):
    """What an `AnswerEstimator` asks of the router that it comes with."""

    @property
    def embedder(self) -> str:
        """Name of the embedder that it reads."""

    def tier_gains(self, texts: Sequence[str], vectors: Vectors) -> Numbers:
        """What each tier is expected to add to the cheapest, by the prompt, shape (len(texts), tiers - 1)."""


@dataclass(frozen=True, slots=True)
class AnswerModel:
    """What was learned about answers of the cheapest tier.

    Attributes:
        centre: Means of the answers' features and of the gains that the prompts promise.
        spread: Their standard deviations.
        weights: Shape (features + tiers - 1, tiers - 1).
        intercept: Shape (tiers - 1,).
    """

    centre: Numbers
    spread: Numbers
    weights: Numbers
    intercept: Numbers

    def predict(self, prompts: Sequence[str], answers: Sequence[str], gains: Numbers) -> Numbers:
        """What each stronger tier would add to these answers, shape (prompts, tiers - 1)."""
        rows = _rows(answer_features(prompts, answers), gains, self.centre, self.spread)
        found: Numbers = rows @ self.weights + self.intercept
        return found

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """What `from_arrays` takes."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> AnswerModel:
        """The model in these arrays.

        Raises:
            KeyError: If one is missing.
        """
        return cls(*(np.asarray(arrays[name], np.float64) for name in ("centre", "spread", "weights", "intercept")))


class AnswerEstimator:
    """Reads the cheapest tier's answer: do its sums add up, was it cut short, does it hedge or refuse?

    It comes out of a router's file, `GainEstimator.load(F).for_answers()`, where the outcomes that the router was
    trained on carried answers, and knows answers of that router's cheapest tier only.

    Args:
        router: What expects something of the prompt alone.
        model: What was learned about answers.
        embedder: Reads the prompts, which it has most often just read; by default the one that all levers share.

    Raises:
        ConfigError: If the router was trained with another embedder.
    """

    name = "answer"

    def __init__(self, router: PromptGains, model: AnswerModel, embedder: Embedder | None = None) -> None:
        self._router = router
        self._model = model
        self._embedder = embedder
        if embedder is not None and embedder.name != router.embedder:
            raise ConfigError(
                f"this router was trained with the embedder {router.embedder!r}, and {embedder.name!r} is given: "
                f"give {router.embedder!r}, or train again"
            )

    def gains(self, prompts: Sequence[str], answers: Sequence[str], vectors: Vectors | None = None) -> Numbers:
        """What going beyond the cheapest tier would add to its answers, shape (prompts,).

        Args:
            prompts: What was asked.
            answers: What the cheapest tier answered, in the same order.
            vectors: Embeddings of the prompts, shape (prompts, dimension); None: they are embedded here.
        """
        if len(prompts) != len(answers):
            raise ConfigError(f"{len(prompts)} prompts and {len(answers)} answers: give one answer for each prompt")
        if not prompts:
            return np.zeros(0)
        if vectors is None:
            vectors = self._reader().embed(prompts)
        found: Numbers = self._model.predict(prompts, answers, self._router.tier_gains(prompts, vectors)).max(axis=1)
        return found

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> Numbers:
        """How surely the answers will do, in [0, 1], shape (prompts,): 1 less what a stronger tier would add.

        `Cascade(estimator=..., threshold=...)` sends on what scores less than its threshold.
        """
        return np.clip(1 - self.gains(prompts, answers), 0.0, 1.0)

    def _reader(self) -> Embedder:
        if self._embedder is None:
            from costopt.embedding import default_embedder

            self._embedder = default_embedder()
            if self._embedder.name != self._router.embedder:
                raise ConfigError(f"give embedder=: this router was trained with {self._router.embedder!r}")
        return self._embedder


def fit_answer_model(
    prompts: Sequence[str], answers: Sequence[str], gains: Numbers, promised: Numbers
) -> tuple[AnswerModel, Numbers]:
    """Fit ridge regression on what the answers give away, and on what the prompts promised.

    Args:
        prompts: What was asked.
        answers: What the cheapest tier answered.
        gains: What each stronger tier added, shape (prompts, tiers - 1).
        promised: The same, as it is predicted by a model that had not seen the prompt.

    Returns:
        The model, and what it would have said of each answer without it, shape (prompts, tiers - 1).
    """
    raw = np.concatenate([answer_features(prompts, answers), promised], axis=1)
    least = np.concatenate([np.full(len(ANSWER_FEATURES), _LEAST_SPREAD), np.full(promised.shape[1], 1e-6)])
    centre, spread = raw.mean(axis=0), np.maximum(raw.std(axis=0), least)
    ridge, left_out = fit_ridge(_rows(raw[:, : len(ANSWER_FEATURES)], promised, centre, spread), gains, _PENALTIES)
    return AnswerModel(centre, spread, ridge.weights, ridge.intercept), left_out


_PENALTIES = tuple(float(value) for value in np.geomspace(3, 3000, 11))  # features are not scaled down here


def _rows(read: Numbers, gains: Numbers, centre: Numbers, spread: Numbers) -> Numbers:
    rows = np.clip((np.concatenate([read, gains], axis=1) - centre) / spread, -_CLIP, _CLIP)
    rows[:, len(ANSWER_FEATURES) :] *= _OF_PROMPT
    return rows
