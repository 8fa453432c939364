"""Sums over attempts: what was asked, what it took and what it cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from costopt.audit.attempt import Attempt

__all__ = ["DAY_S", "SUMMED", "Sums", "Totals", "broken_days", "summed", "totals_of", "whole_days"]

DAY_S = 86_400.0
_ZERO = Decimal(0)
_FAR = 1 << 40  # days

SUMMED = tuple(
    "attempts failed cache_hits batched estimated unpriced input_tokens output_tokens cached_tokens cache_write_tokens "
    "reasoning_tokens cost avoided_cost".split()
)


@dataclass(frozen=True, slots=True)
class Totals:
    """What attempts took together.

    Attributes:
        attempts: How many there were.
        failed: Of those: with a status other than "ok".
        cache_hits: Of those: answered by a cache.
        batched: Of those: through a provider's batch API.
        estimated: Of those: with tokens that we had to estimate.
        unpriced: Of those: with tokens, and a cost that is not known; it is not in `cost`.
        input_tokens: All input, the cached part included.
        output_tokens: All output, reasoning included.
        cached_tokens: Of the input: read from providers' prompt caches.
        cache_write_tokens: Of the input: written to them.
        reasoning_tokens: Of the output: reasoning.
        cost: US dollars, as far as they are known.
        avoided_cost: US dollars that answers from a cache would have cost.
        complete: Whether no row that belongs to it had been removed to make room.

    Example:
        >>> print(summed([Attempt("gpt-4o-mini", usage=Usage(900, 100), cost=Decimal("0.0002"))]))
        1 attempts (0 failed, 0 from a cache), 900 tokens in, 100 out, $0.0002, 0 without a known price
    """

    attempts: int = 0
    failed: int = 0
    cache_hits: int = 0
    batched: int = 0
    estimated: int = 0
    unpriced: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = _ZERO
    avoided_cost: Decimal = _ZERO
    complete: bool = True

    def __str__(self) -> str:
        return (
            f"{self.attempts:,} attempts ({self.failed:,} failed, {self.cache_hits:,} from a cache), "
            f"{self.input_tokens:,} tokens in, {self.output_tokens:,} out, ${self.cost:.4f}, {self.unpriced:,} without "
            "a known price"
        )

    def __add__(self, other: Totals) -> Totals:
        """Both together."""
        both = {name: getattr(self, name) + getattr(other, name) for name in SUMMED}
        return Totals(**both, complete=self.complete and other.complete)


@dataclass(slots=True)
class Sums:
    """Sums under way, by day, tenant, provider, model and whether a router chose."""

    _made: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict)

    def add(self, attempt: Attempt) -> None:
        """Count one more."""
        key = (
            int(attempt.started // DAY_S), attempt.tenant or "", attempt.provider or "", attempt.model,
            int(attempt.route is not None),
        )  # fmt: skip
        held = self._made.get(key)
        if held is None:
            held = self._made[key] = {name: _ZERO if name.endswith("cost") else 0 for name in SUMMED}
        for name, value in _counted(attempt):
            held[name] += value

    def items(self) -> Iterable[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Keys, and the sums by name."""
        return self._made.items()


def summed(attempts: Iterable[Attempt]) -> Totals:
    """The totals of these attempts.

    Example:
        >>> summed([Attempt("gpt-4o-mini"), Attempt("gpt-4o-mini", status="error")]).failed
        1
    """
    sums = Sums()
    for attempt in attempts:
        sums.add(attempt)
    return sum((Totals(**made) for _, made in sums.items()), Totals())


def totals_of(row: Mapping[str, Any]) -> Totals:
    """The totals in a row of the table `days`."""
    made: dict[str, Any] = {name: Decimal(row[name]) if name.endswith("cost") else row[name] for name in SUMMED}
    return Totals(**made)


def _counted(attempt: Attempt) -> Iterator[tuple[str, Any]]:
    usage = attempt.usage
    yield "attempts", 1
    yield "failed", int(attempt.status != "ok")
    yield "cache_hits", int(attempt.cache is not None)
    yield "batched", int(attempt.batch is not None)
    yield "estimated", int(attempt.usage_estimated)
    yield "unpriced", int(attempt.cost is None and usage is not None and usage.total_tokens > 0)
    if usage is not None:
        for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"):
            yield name, getattr(usage, name)
    if attempt.cost is not None:
        yield "cost", attempt.cost
    if attempt.avoided_cost is not None:
        yield "avoided_cost", attempt.avoided_cost


def whole_days(since: float | None, until: float | None) -> tuple[int, int]:
    """The first whole UTC day in [since, until), and the one after the last."""
    first = -_FAR if since is None else math.ceil(since / DAY_S)
    return first, max(first, _FAR if until is None else math.floor(until / DAY_S))


def broken_days(since: float | None, until: float | None) -> Iterator[tuple[float, float]]:
    """What is left of [since, until) beside its whole days."""
    first, last = whole_days(since, until)
    if since is not None:
        end = first * DAY_S if until is None else min(until, first * DAY_S)
        if since < end:
            yield since, end
    if until is not None and last * DAY_S < until and (since is None or first * DAY_S <= until):
        yield last * DAY_S, until
