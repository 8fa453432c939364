"""Thresholds for a target, from prompts without labels, and what is to be expected of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.errors import ConfigError
from costopt.pricing import Price, Usage, listed
from costopt.routing.estimator import Vectors
from costopt.routing.gain import ROUTES_FROM, SHADOWS_FROM, GainEstimator
from costopt.routing.policies import DollarsPer1000, Policy, choices
from costopt.tokens import estimate_tokens

__all__ = ["Calibration", "calibrate_router", "request_costs"]

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A router with thresholds, and what they do to the prompts that they were set by.

    Attributes:
        router: With its thresholds set.
        prompts: How many prompts there were.
        novel: How many of them the router has no opinion on.
        shares: Part of the prompts that goes to each tier.
        quality: Expected quality, as a share of what the strongest tier alone is expected to score.
        dollars: Cost of 1,000 such requests; None if a price is not known.
        dollars_strong: The same by the strongest tier alone.
    """

    router: GainEstimator
    prompts: int
    novel: int
    shares: Mapping[str, float]
    quality: float
    dollars: float | None
    dollars_strong: float | None

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "thresholds": self.router.thresholds,
            "cascade_threshold": self.router.cascade_threshold,
            "prompts": self.prompts,
            "novel": self.novel,
            "shares": dict(self.shares),
            "quality": self.quality,
            "dollars_per_1000": self.dollars,
            "dollars_per_1000_strong": self.dollars_strong,
            "mode": self.router.mode,
        }


def request_costs(
    texts: Sequence[str], tiers: Sequence[str], prices: Mapping[str, Price], output_tokens: int
) -> Numbers:
    """What each prompt would cost with each tier in dollars, NaN where the price is not known; shape (texts, tiers).

    Args:
        texts: The prompts; their tokens are estimated.
        tiers: Names of the models.
        prices: Prices that go before the price list's.
        output_tokens: Tokens of a typical answer.

    Example:
        >>> request_costs(["a" * 4_000], ["gpt-4o-mini", "my-own"], {}, 1_000).round(6).tolist()
        [[0.00075, nan]]
    """
    found = np.full((len(texts), len(tiers)), math.nan)
    tokens = [estimate_tokens(text) for text in texts]
    for column, tier in enumerate(tiers):
        known = None if tier in prices else listed(tier)  # once: looking for a model that is not listed takes long
        for row, count in enumerate(tokens):
            price = known.price(count) if known else prices.get(tier)
            if price is None:
                break
            found[row, column] = float(price.cost(Usage(count, output_tokens)))
    return found


def calibrate_router(
    router: GainEstimator,
    policy: Policy,
    texts: Sequence[str],
    vectors: Vectors,
    costs: Numbers,
    answers: Sequence[str | None] = (),
) -> Calibration:
    """Set a router's thresholds.

    Args:
        router: As it was trained.
        policy: The target.
        texts: Prompts like those to come; 200 are enough for a point of quality or so.
        vectors: Their embeddings, shape (prompts, dimension).
        costs: In dollars, shape (prompts, tiers); NaN where unknown.
        answers: The cheapest tier's answers, if they are at hand, for the threshold of the cascade.

    Raises:
        ConfigError: If the router is off, there are no prompts, or the target cannot be met.
    """
    if router.mode == "off":
        raise ConfigError(
            f"this router is off: it has {router.rows} labels, and needs {SHADOWS_FROM} to shadow and {ROUTES_FROM} "
            "to route"
        )
    scores, expected = router.scores(texts, vectors), router.expected(texts, vectors)
    thresholds = policy.thresholds(scores, costs, expected)
    chosen, rows = choices(scores, thresholds), np.arange(len(texts))
    priced = not np.isnan(costs).any()
    dollars = float(costs[rows, chosen].mean() * 1_000) if priced else None
    if isinstance(policy, DollarsPer1000) and dollars is not None and dollars > float(policy.dollars) * (1 + 1e-9):
        raise ConfigError(
            f"1,000 such requests cost {dollars:,.4f} dollars at least (the cheapest tier for all that are not novel): "
            f"{policy.dollars} cannot be met"
        )
    cascade = _cascade_threshold(router, policy, texts, vectors, costs, answers)
    about = {"policy": str(policy), "prompts": len(texts)}
    strongest = float(expected[:, -1].mean())
    return Calibration(
        router.calibrated(thresholds, about, cascade),
        prompts=len(texts),
        novel=int(np.isnan(scores).any(axis=1).sum()),
        shares={name: float(np.mean(chosen == place)) for place, name in enumerate(router.tiers)},
        quality=float(expected[rows, chosen].mean()) / strongest if strongest > 0 else math.nan,
        dollars=dollars,
        dollars_strong=float(costs[:, -1].mean() * 1_000) if priced else None,
    )


def _cascade_threshold(
    router: GainEstimator,
    policy: Policy,
    texts: Sequence[str],
    vectors: Vectors,
    costs: Numbers,
    answers: Sequence[str | None],
) -> float | None:
    """What `for_answers().scores` must reach, for the same target; None if that cannot be said."""
    rows = [i for i, answer in enumerate(answers) if answer is not None]
    if router.answer_model is None or not rows:
        return None
    prompts, given = [texts[i] for i in rows], [answers[i] or "" for i in rows]
    gains = router.for_answers().gains(prompts, given, vectors[rows])
    best = router.expected(prompts, vectors[rows])[:, -1]
    # An answer that is not good enough has been paid for all the same.
    both = np.stack([costs[rows, 0], costs[rows, 0] + costs[rows, -1]], axis=1)
    (threshold,) = policy.thresholds(gains[:, None], both, np.stack([best - gains, best], axis=1))
    return float(np.clip(1 - threshold, 0.0, 1.0))
