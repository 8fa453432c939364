"""How good is this router on measured outcomes that it has not seen? Beside the controls, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costopt.errors import ConfigError
from costopt.routing.gain import GainEstimator
from costopt.routing.metrics import METRICS, Point, Ranking, compare, controls, points
from costopt.routing.outcomes import Outcomes, fingerprints

__all__ = ["RouterEvaluation", "evaluate_router", "evaluate_scores", "unseen"]

Numbers = NDArray[np.float64]

_SHARES = tuple(round(0.1 * i, 1) for i in range(11))


@dataclass(frozen=True, slots=True)
class RouterEvaluation:
    """What a router is worth on some outcomes.

    Attributes:
        prompts: How many prompts it was measured on.
        trained_on: How many were left out, because the router was trained on them.
        cheap: Name and mean score of the cheapest tier.
        strong: Name and mean score of the strongest tier.
        router: By its own scores, from the prompt alone.
        controls: "random", "length", "shuffled" (its own scores, dealt to other prompts), "oracle".
        cascade: By its scores once the cheap answer is read; None if the outcomes or the router lack answers.
        points: Quality at shares of strong calls from 0 to 1.
    """

    prompts: int
    trained_on: int
    cheap: tuple[str, float]
    strong: tuple[str, float]
    router: Ranking
    controls: Mapping[str, Ranking]
    cascade: Ranking | None
    points: Sequence[Point]

    def as_dict(self) -> dict[str, object]:
        """The figures and their intervals, for `--json`."""
        return {
            **_flat(self.router),
            "over_length": _over(self.router),
            "controls": {name: _flat(ranking) for name, ranking in self.controls.items()},
            "cascade": None if self.cascade is None else {**_flat(self.cascade), "over_length": _over(self.cascade)},
            "points": [point.as_dict() for point in self.points],
            "prompts": self.prompts,
            "trained_on": self.trained_on,
            "tiers": {name: round(score, 6) for name, score in (self.cheap, self.strong)},
        }


def _flat(ranking: Ranking) -> dict[str, object]:
    found: dict[str, object] = {name: ranking.figures[name].value for name in METRICS}
    return {**found, "intervals": {name: ranking.figures[name].interval for name in METRICS}}


def _over(ranking: Ranking) -> dict[str, object]:
    return {
        name: {"value": ranking.over_length[name].value, "interval": ranking.over_length[name].interval}
        for name in METRICS
    }


def unseen(outcomes: Outcomes, router: GainEstimator) -> Outcomes:
    """The outcomes whose prompts the router was not trained on.

    Raises:
        ConfigError: If it was trained on all of them.
    """
    rows = np.flatnonzero(~np.isin(fingerprints(outcomes.prompts), router.seen))
    if not len(rows):
        raise ConfigError(
            f"this router was trained on all {len(outcomes)} prompts: measure it on others (`costopt router train "
            "--labels N` leaves some over)"
        )
    return outcomes if len(rows) == len(outcomes) else outcomes.take(rows)


def evaluate_router(
    outcomes: Outcomes,
    router: GainEstimator,
    vectors: NDArray[np.float32],
    *,
    seed: int = 0,
    resamples: int = 1_000,
    trained_on: int = 0,
) -> RouterEvaluation:
    """Measure a router; prompts that it was trained on must be gone (`unseen`).

    Args:
        outcomes: With the scores of the router's tiers, in its order.
        router: The router.
        vectors: Embeddings of the prompts, shape (prompts, dimension).
        seed: Of the bootstrap and of the random controls.
        resamples: Of the bootstrap.
        trained_on: For the record: how many prompts were left out.

    Raises:
        ConfigError: If the tiers are not the router's, or the strongest scores no higher than the cheapest.
    """
    if outcomes.tiers != router.tiers:
        raise ConfigError(
            f"the router was trained for {', '.join(router.tiers)}, and these are outcomes of "
            f"{', '.join(outcomes.tiers)}: read them with its tiers"
        )
    gains = router.gains(outcomes.prompts, vectors)
    answers = outcomes.answers.get(router.tiers[0], ())
    after = None
    if router.answer_model is not None and answers and all(answer is not None for answer in answers):
        texts = [answer or "" for answer in answers]
        after = router.for_answers().gains(outcomes.prompts, texts, vectors)
    return evaluate_scores(outcomes, gains, after, seed=seed, resamples=resamples, trained_on=trained_on)


def evaluate_scores(
    outcomes: Outcomes,
    scores: Numbers,
    after: Numbers | None = None,
    *,
    seed: int = 0,
    resamples: int = 1_000,
    trained_on: int = 0,
) -> RouterEvaluation:
    """Measure any scores, of a heuristic say, of the cheapest tier against the strongest.

    Args:
        outcomes: What to measure on.
        scores: What going to the strongest tier promises, on any scale, shape (prompts,).
        after: The same with the cheapest tier's answer at hand; None: not measured.
        seed: Of the bootstrap and of the random controls.
        resamples: Of the bootstrap.
        trained_on: For the record.

    Raises:
        ConfigError: If the strongest tier scores no higher than the cheapest.

    Example:
        >>> scores = np.array([[0.0, 1.0], [1.0, 1.0]])
        >>> found = evaluate_scores(Outcomes(("Why?", "Who?"), ("small", "big"), scores), np.array([0.9, 0.1]))
        >>> found.router.figures["apgr"].value, sorted(found.controls)
        (0.75, ['length', 'oracle', 'random', 'shuffled'])
    """
    cheap, strong = outcomes.scores[:, 0], outcomes.scores[:, -1]
    rankings = {"router": scores, **controls(scores, outcomes.prompts, outcomes.gains, seed)}
    if after is not None:
        rankings["cascade"] = after
    found = compare(rankings, cheap, strong, seed=seed, resamples=resamples)
    return RouterEvaluation(
        len(outcomes),
        trained_on,
        (outcomes.tiers[0], float(cheap.mean())),
        (outcomes.tiers[-1], float(strong.mean())),
        found.pop("router"),
        cascade=found.pop("cascade", None),
        controls=found,
        points=points(scores, cheap, strong, _SHARES, seed=seed, resamples=resamples),
    )
