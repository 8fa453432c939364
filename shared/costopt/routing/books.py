"""What a router knows of costs: what a call is likely to cost, what it can cost at most, what all of them did cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from costopt.forks import ForkLock
from costopt.pricing import Usage
from costopt.routing.decision import Attempt, RouteDecision
from costopt.routing.request import RouteRequest
from costopt.routing.tier import Tier

__all__ = ["Books", "RouterStats"]

_OUTPUT_TOKENS = 250.0  # of an answer, until some were seen
_WEIGHT = 0.05  # of the newest answer in their mean


@dataclass(frozen=True, slots=True)
class RouterStats:
    """What a router has done so far.

    Attributes:
        answered: Answers by tier.
        failed: Calls that failed, by cause.
        rejected: Answers that would not do, by cause.
        estimator_failures: How often the estimator failed or had no opinion.
        cost: Dollars of all calls whose price is known.
        baseline: Dollars that the default tier would have cost for the same answers.
        unpriced: Answers whose cost, or that of a call before them, is not known, and which are in neither sum.
        overruns: Calls whose reported usage was more than the budget had reserved as their most.

    Example:
        >>> print(RouterStats({"gpt-4o-mini": 3}, cost=Decimal("0.01"), baseline=Decimal("0.04")))
        3 answers (3 gpt-4o-mini), $0.0100 against $0.0400 always at the default tier, 0 without a known price
    """

    answered: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    estimator_failures: int = 0
    cost: Decimal = Decimal(0)
    baseline: Decimal = Decimal(0)
    unpriced: int = 0
    overruns: int = 0

    def __str__(self) -> str:
        by_tier = ", ".join(f"{count} {name}" for name, count in self.answered.items())
        return (
            f"{sum(self.answered.values())} answers ({by_tier}), ${self.cost:.4f} against ${self.baseline:.4f} always "
            f"at the default tier, {self.unpriced} without a known price"
        )


class Books:
    """The books of one router. Safe to use from any thread."""

    def __init__(self, tiers: Sequence[Tier]) -> None:
        self._tiers = tiers
        self._lock = ForkLock()
        self._mean_output = [_OUTPUT_TOKENS] * len(tiers)
        self._answered: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._no_opinion = 0
        self._cost = self._baseline = Decimal(0)
        self._unpriced = 0
        self._overruns = 0

    def estimate(self, place: int, request: RouteRequest) -> Decimal | None:
        """Dollars that a call to this tier is likely to cost, by the answers it gave so far; None if not known."""
        output = self._mean_output[place]
        if request.max_output_tokens is not None:
            output = min(output, request.max_output_tokens)
        return self._tiers[place].cost(Usage(request.likely_tokens, round(output)))

    def bound(self, place: int, request: RouteRequest) -> Decimal:
        """Dollars that it can cost at most."""
        tier = self._tiers[place]
        limits = [limit for limit in (request.max_output_tokens, tier.most_output, tier.window) if limit is not None]
        output = min(limits) * request.generations
        # Dearer past some length with some models, and the true length is not above this one.
        prices = [tier.price_at(tokens) for tokens in (0, request.size)]
        return max(price.cost(Usage(request.size, output)) for price in prices if price is not None)

    def learn(self, place: int, output_tokens: int) -> None:
        """An answer of this tier had so many tokens."""
        self._mean_output[place] += _WEIGHT * (output_tokens - self._mean_output[place])

    def no_opinion(self) -> None:
        """The estimator failed, or had no opinion."""
        with self._lock:
            self._no_opinion += 1

    def overrun(self) -> bool:
        """A call reported more than it could cost; whether it is the first one."""
        with self._lock:
            self._overruns += 1
            return self._overruns == 1

    def attempted(self, attempt: Attempt) -> None:
        """A call was made, or not; those that failed, or whose answer would not do, are counted."""
        kind = {"failed": self._failed, "rejected": self._rejected}.get(attempt.outcome)
        if kind is not None:
            with self._lock:
                kind[attempt.cause or ""] += 1

    def closed(self, decision: RouteDecision, answered: bool) -> None:
        """A request was answered, or its answer was paid for and broke off."""
        with self._lock:
            if answered:
                self._answered[decision.chosen] += 1
            if decision.cost is None or decision.baseline_cost is None:
                self._unpriced += 1
                return
            self._cost += decision.cost
            self._baseline += decision.baseline_cost

    def stats(self) -> RouterStats:
        """All of it so far."""
        with self._lock:
            return RouterStats(
                answered=dict(self._answered),
                failed=dict(self._failed),
                rejected=dict(self._rejected),
                estimator_failures=self._no_opinion,
                cost=self._cost,
                baseline=self._baseline,
                unpriced=self._unpriced,
                overruns=self._overruns,
            )
