"""What each lever saved: on an attempt, which costs less than it would have cost, and beside attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal

from costopt.audit.attempt import Attempt
from costopt.audit.totals import DAY_S
from costopt.pricing import Usage

__all__ = ["LEVERS", "Lever", "Note", "Saving", "SavingSums", "compared", "savings_of"]

Lever = Literal["cache", "routing", "compression", "batch"]
LEVERS: tuple[Lever, ...] = ("cache", "routing", "compression", "batch")
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Saving:
    """What a lever saved.

    Attributes:
        requests: How many requests it worked on.
        tokens: The tokens concerned: answered by a cache, sent to another tier, left out, or sent in batches.
        dollars: US dollars saved, as far as they are known; below 0 if the lever cost more than it saved.
        unknown: For how many of the requests the dollars are not known.

    Example:
        >>> Saving(1, 100, Decimal("0.02")) + Saving(1, 50, unknown=1)
        Saving(requests=2, tokens=150, dollars=Decimal('0.02'), unknown=1)
    """

    requests: int = 0
    tokens: int = 0
    dollars: Decimal = _ZERO
    unknown: int = 0

    def __add__(self, other: Saving) -> Saving:
        """Both together."""
        return Saving(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Note:
    """A saving that is no attempt's: documents that were compressed before a prompt was made of them.

    Attributes:
        lever: Whose.
        saving: What it was.
        started: When, in seconds since 1970.
        tenant: Whose request it was for.
    """

    lever: Lever
    saving: Saving
    started: float
    tenant: str | None = None


def savings_of(attempt: Attempt) -> Iterator[tuple[Lever, Saving]]:
    """What the levers saved on an attempt. No dollar is in two of them: each begins where the one before it ended.

    A cache saved what the answer cost when it was bought; a router the difference to its default tier, at the price of
    a single call; a batch the difference to that; and compression what the tokens that it left out would have cost at
    the model that was asked.

    Example:
        >>> hit = Attempt("gpt-4o-mini", cache="exact", avoided_usage=Usage(900, 100), avoided_cost=Decimal("0.0002"))
        >>> list(savings_of(hit))
        [('cache', Saving(requests=1, tokens=1000, dollars=Decimal('0.0002'), unknown=0))]
    """
    if attempt.cache is not None:
        yield "cache", _saving(attempt.avoided_usage, attempt.avoided_cost)
    elif attempt.route is not None:
        yield from _by_routing(attempt)
    if attempt.batch is not None and attempt.cache is None and attempt.status == "ok":
        known = attempt.list_cost is not None and attempt.cost is not None
        yield "batch", _saving(attempt.usage, attempt.list_cost - attempt.cost if known else None)  # type: ignore[operator]
    # What was refused would have been refused in full, too.
    if attempt.trimmed_tokens and (attempt.status == "ok" or attempt.cost):
        yield "compression", _saving(Usage(attempt.trimmed_tokens), attempt.trimmed_cost)


def _by_routing(attempt: Attempt) -> Iterator[tuple[Lever, Saving]]:
    alone = attempt.cost if attempt.list_cost is None else attempt.list_cost
    if attempt.status != "ok" or attempt.baseline_cost == 0:  # without a router it would not have been made
        if alone:
            yield "routing", Saving(dollars=-alone)
    elif alone is None or attempt.baseline_cost is None:
        yield "routing", _saving(attempt.usage, None)
    elif alone != attempt.baseline_cost:
        yield "routing", _saving(attempt.usage, attempt.baseline_cost - alone)


def _saving(usage: Usage | None, dollars: Decimal | None) -> Saving:
    tokens = usage.total_tokens if usage else 0
    return Saving(1, tokens, _ZERO if dollars is None else dollars, int(dollars is None))


def compared(attempt: Attempt, charged: Callable[[Usage, bool], Decimal | None]) -> Attempt:
    """The attempt with what it would have cost outside a batch, and with what compression left out.

    Args:
        attempt: As it was billed.
        charged: Dollars for tokens at this attempt's model and moment; by themselves, or (True) in a batch.
    """
    usage = attempt.avoided_usage if attempt.cache is not None else attempt.usage
    if usage is None:
        return attempt
    if attempt.batch is not None and attempt.cache is None and attempt.cost and attempt.list_cost is None:
        attempt = replace(attempt, list_cost=charged(usage, False))
    if attempt.trimmed_tokens:
        batch = attempt.batch is not None
        more = _untrimmed(usage, attempt.trimmed_tokens)
        less, whole = charged(usage, batch), charged(more, batch)
        attempt = replace(attempt, trimmed_cost=None if less is None or whole is None else whole - less)
    return attempt


def _untrimmed(usage: Usage, tokens: int) -> Usage:
    """With the tokens that were left out. Where the provider's prompt cache was in use, it would have had them."""
    cached = usage.cached_tokens + (tokens if usage.cached_tokens else 0)
    return replace(usage, input_tokens=usage.input_tokens + tokens, cached_tokens=cached)


_Key = tuple[int, str, str]


@dataclass(slots=True)
class SavingSums:
    """Sums under way, by day, tenant and lever; "again" counts attempts at requests that had one before."""

    _made: dict[_Key, Saving] = field(default_factory=dict)

    def add(self, attempt: Attempt, *, again: bool) -> None:
        """Count one more attempt."""
        for lever, saving in savings_of(attempt):
            self._add(attempt.started, attempt.tenant, lever, saving)
        if again:
            self._add(attempt.started, attempt.tenant, "again", Saving(1))

    def note(self, note: Note) -> None:
        """Count what is no attempt's."""
        self._add(note.started, note.tenant, note.lever, note.saving)

    def items(self) -> Iterable[tuple[_Key, Saving]]:
        """(day, tenant, lever), and the sum."""
        return self._made.items()

    def _add(self, started: float, tenant: str | None, lever: str, saving: Saving) -> None:
        key: Any = (int(started // DAY_S), tenant or "", lever)
        self._made[key] = self._made.get(key, Saving()) + saving
