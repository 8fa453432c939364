"""Why a request went where it went, and what that cost beside always asking the default tier."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from costopt.pricing import Usage

__all__ = ["Attempt", "RouteDecision"]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call that was made for a request, or was not.

    Attributes:
        tier: Whom it was made to.
        outcome: "answered"; "failed"; "rejected", if its answer would not do; "skipped", if it was not made.
        cause: Why it failed, was rejected or skipped, e.g. "rate limit", "truncated", "resting", "budget".
        usage: Its tokens; None if nobody said.
        cost: What it cost in US dollars: 0 if the provider answered with an error or was not reached; None if not
            known, as of a call that timed out.
        estimated: Whether its tokens are an estimate, because nobody said, or what was said cannot be.
    """

    tier: str
    outcome: str
    cause: str | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """Where a request goes, or went, and why.

    Attributes:
        chosen: The tier by name. After the call: the one that answered.
        why: "score", "default" (no opinion, or it is off), "only one", "asked for", "conversation", "explored",
            "budget", "shadow"; after the call also the cause of a change, e.g. "rate limit", "rejected: truncated".
        estimator: Who gave the score.
        score: What going beyond the chosen tier promises, by the estimator; None if nobody was asked.
        threshold: What the score was held against.
        excluded: Tiers that may not serve this request, each with the reason.
        default: The tier that would get everything without a router.
        estimated_cost: Of one call to the chosen tier, in US dollars; None if the price is not known.
        estimated_baseline: Of one call to the default tier likewise.
        previous: The tier of this conversation so far; None: none, or none known.
        moved: Why the conversation left that tier; None if it did not.
        paper: In shadow: the tier it would have gone to.
        propensity: With exploration: the probability with which this tier was chosen.
        candidates: Tiers that may serve it, from the cheapest to the strongest.
        attempts: The calls, in order; empty before the first.
        usage: Tokens of the answer that was given; None if nobody said.
        cost: Of all calls together, in US dollars; None before them, or if not known.
        baseline_cost: What the same tokens cost at the default tier likewise.
        id: By which a label finds its decision.

    Example:
        >>> router = Router([Tier("gpt-4o-mini"), Tier("gpt-4o")])
        >>> decision = router.decide(RouteRequest("What is the capital of France?"))
        >>> decision.chosen, decision.why, decision.default
        ('gpt-4o-mini', 'score', 'gpt-4o')
    """

    chosen: str
    why: str
    estimator: str | None = None
    score: float | None = None
    threshold: float | None = None
    excluded: Mapping[str, str] = field(default_factory=dict)
    default: str = ""
    estimated_cost: Decimal | None = None
    estimated_baseline: Decimal | None = None
    previous: str | None = None
    moved: str | None = None
    paper: str | None = None
    propensity: float | None = None
    candidates: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    usage: Usage | None = None
    cost: Decimal | None = None
    baseline_cost: Decimal | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def saved(self) -> Decimal | None:
        """Dollars that the default tier would have cost more; below 0 if it would have cost less."""
        return None if self.cost is None or self.baseline_cost is None else self.baseline_cost - self.cost

    def because(self, **changes: Any) -> RouteDecision:
        """The same decision with some of it changed."""
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-like data, without what is not known; amounts are text."""
        known = {name: getattr(self, name) for name in _PLAIN if getattr(self, name) is not None}
        amounts = {name: str(getattr(self, name)) for name in _AMOUNTS if getattr(self, name) is not None}
        tried = [_plain(attempt) for attempt in self.attempts]
        return {**known, "excluded": dict(self.excluded), **amounts, "attempts": tried}


_PLAIN = tuple("id chosen why estimator score threshold default previous moved paper propensity".split())
_PARTS = ("cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "reasoning_tokens")
_AMOUNTS = ("estimated_cost", "estimated_baseline", "cost", "baseline_cost", "saved")


def _plain(attempt: Attempt) -> dict[str, Any]:
    data: dict[str, Any] = {"tier": attempt.tier, "outcome": attempt.outcome}
    if attempt.cause:
        data["cause"] = attempt.cause
    if attempt.usage:
        data["input_tokens"], data["output_tokens"] = attempt.usage.input_tokens, attempt.usage.output_tokens
        data |= {name: count for name in _PARTS if (count := getattr(attempt.usage, name))}
    if attempt.estimated:
        data["estimated"] = True
    if attempt.cost is not None:
        data["usd"] = str(attempt.cost)
    return data
