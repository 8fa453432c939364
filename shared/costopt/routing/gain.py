"""The trained estimator: what would the stronger model add, by the user's own outcomes?"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from costopt.embedding import Embedder
from costopt.errors import ConfigError
from costopt.routing.answers import AnswerEstimator, AnswerModel, fit_answer_model
from costopt.routing.estimator import Scores, Vectors
from costopt.routing.features import FEATURES
from costopt.routing.files import read_router, write_router
from costopt.routing.outcomes import Outcomes, fingerprints
from costopt.routing.prompt_model import PromptModel, fit_prompt_model

__all__ = ["ROUTES_FROM", "SHADOWS_FROM", "GainEstimator", "Mode", "Training", "load_router", "train_router"]

Mode = Literal["off", "shadow", "route"]

SHADOWS_FROM, ROUTES_FROM = 100, 300
"""How many labelled prompts it takes to route on paper, and to route."""

_FEWEST = 10
_ANSWERS = "answer_"


@dataclass(frozen=True, eq=False)
class GainEstimator:
    """Predicts from a prompt what each stronger tier would add, in quality, to the cheaper ones.

    Made by `train_router` or `costopt router train`; for the tiers that it was trained for, and no others. Under 100
    labelled prompts it is off (no opinion on anything), under 300 it shadows (routers decide on paper only).

    Attributes:
        tiers: Names of the tiers, cheapest first.
        embedder: Name of the embedder whose vectors it reads.
        rows: How many labelled prompts it was trained on.
        model: What was learned of prompts.
        answer_model: What was learned of the cheapest tier's answers; None if the outcomes had none.
        seen: Fingerprints of the prompts that it was trained on, shape (rows,).
        thresholds: As `costopt router calibrate` set them, one for each step; None before.
        cascade_threshold: Likewise, of `for_answers().scores`.
        about: Where it comes from: hash of the data, seed, date and figures. Nothing is decided by it.

    Example:
        >>> rows = [('%d and %d?' % (n, n * n), (n % 2, 1.0)) for n in range(20)]
        >>> outcomes = Outcomes(tuple(p for p, _ in rows), ("small", "big"), np.array([s for _, s in rows]))
        >>> router = train_router(outcomes, default_embedder()).router
        >>> router.save(tmp / "router"); GainEstimator.load(tmp / "router").tiers, router.mode
        (('small', 'big'), 'off')
    """

    tiers: tuple[str, ...]
    embedder: str
    rows: int
    model: PromptModel
    answer_model: AnswerModel | None = None
    seen: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    thresholds: tuple[float, ...] | None = None
    cascade_threshold: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    name = "gain"
    wants_vectors = True

    @property
    def mode(self) -> Mode:
        """Whether there are labels enough: "off" under 100, "shadow" under 300, else "route"."""
        if self.rows < SHADOWS_FROM:
            return "off"
        return "shadow" if self.rows < ROUTES_FROM else "route"

    def scores(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        """Column i: what the best stronger tier is expected to add to tier i, shape (len(texts), tiers - 1).

        NaN for a prompt that is unlike all that was trained on, and for every prompt while the router is off.

        Raises:
            ConfigError: If there are no vectors, or they are not the embedder's.
        """
        found = self.model.predict(texts, self._checked(texts, vectors))
        expected = found.expected
        # The best of what lies above each tier: a running maximum from the strongest down.
        above = np.maximum.accumulate(expected[:, :0:-1], axis=1)[:, ::-1]
        novel = ~(found.nearest >= self.model.floor)
        return np.where(novel[:, None] | (self.mode == "off"), np.nan, above - expected[:, :-1])

    def tier_gains(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        """What each other tier adds to the cheapest, shape (len(texts), tiers - 1); novel prompts are not left out.

        While the router is off this is the mean over its labels, the same for every prompt.
        """
        gains = self.model.predict(texts, self._checked(texts, vectors)).gains
        if self.mode != "off":
            return gains
        means = np.asarray(self.about.get("mean_scores") or np.zeros(len(self.tiers)), np.float64)
        return np.broadcast_to(means[1:] - means[0], gains.shape)

    def gains(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        """What the strongest tier adds to the cheapest, shape (len(texts),); else as `tier_gains`."""
        strongest: Scores = self.tier_gains(texts, vectors)[:, -1]
        return strongest

    def expected(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        """Quality of each tier, shape (len(texts), tiers): right on average; one alone may be a little off [0, 1]."""
        return self.model.predict(texts, self._checked(texts, vectors)).expected

    def novel(self, texts: Sequence[str], vectors: Vectors | None) -> NDArray[np.bool_]:
        """Whether each prompt is unlike all that was trained on, shape (len(texts),)."""
        nearest = self.model.predict(texts, self._checked(texts, vectors)).nearest
        unlike: NDArray[np.bool_] = ~(nearest >= self.model.floor)
        return unlike

    def for_answers(self, embedder: Embedder | None = None) -> AnswerEstimator:
        """What a `Cascade` asks whether an answer of the cheapest tier will do.

        Raises:
            ConfigError: If the outcomes that it was trained on carried too few answers, or this is another embedder.
        """
        if self.answer_model is None:
            raise ConfigError(
                f"this router knows nothing of answers: train it on at least {SHADOWS_FROM} outcomes with "
                f'"answers": {{"{self.tiers[0]}": "..."}}'
            )
        return AnswerEstimator(self, self.answer_model, embedder)

    def calibrated(self, thresholds: Sequence[float], about: Mapping[str, Any], cascade: float | None) -> GainEstimator:
        """The same with these thresholds, and a note where they come from.

        Raises:
            ConfigError: If there are more or fewer than one for each step.
        """
        if len(thresholds) != len(self.tiers) - 1:
            raise ConfigError(f"{len(thresholds)} thresholds for {len(self.tiers)} tiers: give one for each step")
        noted = {**self.about, "calibration": dict(about)}
        values = tuple(float(value) for value in thresholds)
        return replace(self, thresholds=values, cascade_threshold=cascade, about=noted)

    def check(self, embedder: Embedder) -> None:
        """Make sure that it was trained with this embedder.

        Raises:
            ConfigError: If not; names both.
        """
        if embedder.name != self.embedder:
            raise ConfigError(
                f"this router was trained with the embedder {self.embedder!r}, and {embedder.name!r} is in use: "
                f"use {self.embedder!r}, or train the router again"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write F.npz and F.json.

        Raises:
            ConfigError: If they cannot be written.
        """
        arrays = {**self.model.arrays(), "seen": self.seen}
        if self.answer_model is not None:
            arrays |= {_ANSWERS + name: value for name, value in self.answer_model.arrays().items()}
        facts = {
            "tiers": self.tiers,
            "embedder": self.embedder,
            "rows": self.rows,
            "mode": self.mode,
            "thresholds": self.thresholds,
            "cascade_threshold": self.cascade_threshold,
            "features": FEATURES,
            "about": dict(self.about),
        }
        write_router(path, arrays, facts)

    @classmethod
    def load(cls, path: str | os.PathLike[str], embedder: Embedder | None = None) -> GainEstimator:
        """Read F.npz and F.json.

        Args:
            path: F, with or without an ending.
            embedder: To check that the router was trained with it; None: whoever uses the router checks.

        Raises:
            ConfigError: If a file is missing, damaged or of another version, or this is another embedder.
        """
        arrays, facts = read_router(path)
        try:
            if tuple(facts["features"]) != FEATURES:
                raise ConfigError(f"{os.fspath(path)} was made by another version of costopt: train again")
            of_answers = {k.removeprefix(_ANSWERS): v for k, v in arrays.items() if k.startswith(_ANSWERS)}
            thresholds, cascade = facts["thresholds"], facts["cascade_threshold"]
            router = cls(
                tuple(map(str, facts["tiers"])),
                str(facts["embedder"]),
                int(facts["rows"]),
                PromptModel.from_arrays(arrays),
                AnswerModel.from_arrays(of_answers) if of_answers else None,
                arrays["seen"].astype(np.uint64),
                None if thresholds is None else tuple(map(float, thresholds)),
                None if cascade is None else float(cascade),
                dict(facts["about"]),
            )
        except ConfigError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{os.fspath(path)} is no router ({error!r}): train again") from error
        if embedder is not None:
            router.check(embedder)
        return router

    def _checked(self, texts: Sequence[str], vectors: Vectors | None) -> Vectors:
        width = self.model.dimension
        if vectors is None or np.shape(vectors) != (len(texts), width):
            found = "none" if vectors is None else f"of shape {np.shape(vectors)}"
            raise ConfigError(
                f"this router reads embeddings of {self.embedder!r}, shape ({len(texts)}, {width}), and those given "
                f"are {found}"
            )
        return np.asarray(vectors, np.float32)


@dataclass(frozen=True, slots=True)
class Training:
    """A router, and what it would have said of each prompt without it.

    Attributes:
        router: Trained on all rows.
        gains: Of the strongest tier over the cheapest, shape (rows,).
        answer_gains: The same with the cheapest tier's answer at hand; NaN where there was none. None without answers.
    """

    router: GainEstimator
    gains: Scores
    answer_gains: Scores | None


def train_router(
    outcomes: Outcomes, embedder: Embedder, *, seed: int = 0, vectors: Vectors | None = None, today: str | None = None
) -> Training:
    """Train a router on measured outcomes; with the same outcomes and seed it is always the same.

    Args:
        outcomes: Prompts with the quality of each tier's answer, and perhaps the cheapest tier's answers.
        embedder: Reads the prompts, here and later.
        seed: Of what is random (which prompts stay as neighbours, if there are over 2,048).
        vectors: Embeddings of the prompts, if they are at hand.
        today: For the record; by default today.

    Raises:
        ConfigError: If there are fewer than ten prompts, or no tier ever differs from the cheapest by more or less.
    """
    _check_labels(outcomes)
    if vectors is None:
        vectors = embedder.embed(outcomes.prompts)
    model, left_out = fit_prompt_model(outcomes.prompts, vectors, outcomes.scores, seed)
    answer_model, answer_gains = _fit_answers(outcomes, left_out.gains)
    about = {
        "data": outcomes.digest,
        "seed": seed,
        "date": today or datetime.datetime.now(datetime.UTC).date().isoformat(),
        "incomplete": outcomes.incomplete,
        "merged": outcomes.merged,
        "mean_scores": [round(float(score), 6) for score in outcomes.scores.mean(axis=0)],
    }
    router = GainEstimator(
        outcomes.tiers, embedder.name, len(outcomes), model, answer_model, fingerprints(outcomes.prompts), about=about
    )
    return Training(router, left_out.gains[:, -1], answer_gains)


def _check_labels(outcomes: Outcomes) -> None:
    if len(outcomes) < _FEWEST:
        raise ConfigError(
            f"{len(outcomes)} labelled prompts are too few to learn from: give at least {_FEWEST}; from {SHADOWS_FROM} "
            f"a router shadows, from {ROUTES_FROM} it routes"
        )
    gains = outcomes.scores[:, 1:] - outcomes.scores[:, :1]
    if not np.ptp(gains, axis=0).any():
        raise ConfigError(
            f"one class only: on every prompt {', '.join(outcomes.tiers[1:])} scores {gains[0].tolist()} more than "
            f"{outcomes.tiers[0]}, so there is nothing to learn: label prompts on which the models differ"
        )


def _fit_answers(outcomes: Outcomes, promised: Scores) -> tuple[AnswerModel | None, Scores | None]:
    answers = outcomes.answers.get(outcomes.tiers[0], ())
    rows = [i for i, answer in enumerate(answers) if answer is not None]
    if len(rows) < SHADOWS_FROM:
        return None, None
    gains = (outcomes.scores[:, 1:] - outcomes.scores[:, :1])[rows]
    prompts, texts = [outcomes.prompts[i] for i in rows], [answers[i] or "" for i in rows]
    model, left_out = fit_answer_model(prompts, texts, gains, promised[rows])
    found = np.full(len(outcomes), np.nan)
    found[rows] = left_out[:, -1]
    return model, found


def load_router(path: str | os.PathLike[str], embedder: Embedder | None = None) -> GainEstimator:
    """What `costopt router train` wrote; the same as `GainEstimator.load`.

    Raises:
        ConfigError: If a file is missing, damaged or of another version, or was made for another embedder.
    """
    return GainEstimator.load(path, embedder)
