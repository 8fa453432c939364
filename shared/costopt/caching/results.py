"""What the cache answers: a hit that explains itself, and the sums over all lookups."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Literal

from costopt.caching.answer import Answer

__all__ = ["STEPPED_OVER", "CacheHit", "CacheStats", "Missed", "Tally", "Tier"]

_TOTALS = ("lookups", "exact", "semantic", "in_flight", "stored", "rejected", "saved_tokens", "unpriced")
Tier = Literal["exact", "semantic", "in_flight"]


class Missed(str):
    """Why a question is not answered; one of few words, for they are counted (see `CacheStats.misses`)."""

    __slots__ = ()


STEPPED_OVER = Missed("stepped over")


@dataclass(frozen=True, slots=True)
class CacheHit:
    """An answer served from the cache, and why.

    Attributes:
        answer: What the model said when it was asked; its `usage` and `cost` are what this hit avoided.
        tier: "exact" (same text), "semantic" (judged to want the same answer), or "in_flight" (another
            caller was asking the same at this moment, and the answer was shared).
        asked: The text that was asked now; None where only an exact match was possible.
        cached: The text this answer was given to.
        similarity: Cosine of the two in [-1, 1]; 1.0 for an exact hit.
        reason: Why it was served.
        key: Address of the entry.
        request_key: Address the question itself has; differs from `key` in the semantic tier.
        tenant: Digest of the tenant.
        age: Seconds since the answer was given.
        scope: Digest of everything that matched exactly.
        probability: How likely both texts want the same answer, in [0, 1], as far as the judge says.
    """

    answer: Answer
    tier: Tier
    asked: str | None
    cached: str | None
    similarity: float
    reason: str
    key: str
    request_key: str
    tenant: str
    age: float
    scope: str = ""
    probability: float | None = None

    def __str__(self) -> str:
        avoided = self.answer.cost
        money = "price unknown" if avoided is None else f"${avoided:.6f}"
        return (
            f"{self.tier} hit ({self.reason}), {self.age:.0f} s old, {self.answer.usage.total_tokens} tokens "
            f"and {money} avoided: {self.asked!r} answered as {self.cached!r}"
        )


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Sums since the cache object was made.

    Attributes:
        lookups: Questions asked.
        exact: Hits on the same text.
        semantic: Hits on another text, accepted by the judge.
        in_flight: Answers shared with a caller who asked the same at the same moment.
        shadow: Hits found and not served (`shadow=True`).
        agreed: Of the semantic ones among those, how many the model then answered alike.
        disagreed: How many it answered otherwise; what is in neither could not be told.
        stored: Answers kept.
        refused: Answers not kept, by reason ("truncated", "empty", "too_large", ...).
        failures: Operations that failed and were stepped over, by kind ("lookup: StoreTimeoutError", ...).
        rejected: Wrong answers reported by `reject`.
        saved_tokens: Tokens that hits avoided, input and output.
        saved_usd: What hits avoided, in US dollars, over the hits whose price is known.
        unpriced: Hits whose model has no known price; they are not in `saved_usd`.
        misses: Questions that were not answered, by reason: "other scope" (nothing is stored that matches all that
            must match exactly), "not near" (something is, but no question like this one), "guard: number" (or
            another guard) and "judge" (one was near, and may not be served), "too long" (or of unknown words: exact
            only), "exact only" (this cache, or a call without a human text), "stepped over" (store, embedder or
            judge failed or took too long, see `failures`), "not shared" (the call that was waited for brought
            nothing), "unfit" (the framework cannot make a response of what was found).
    """

    lookups: int
    exact: int
    semantic: int
    in_flight: int
    shadow: int
    agreed: int
    disagreed: int
    stored: int
    rejected: int
    saved_tokens: int
    unpriced: int
    saved_usd: Decimal
    refused: Mapping[str, int]
    failures: Mapping[str, int]
    misses: Mapping[str, int]

    @property
    def hits(self) -> int:
        """Answers that were served and not paid for."""
        return self.exact + self.semantic + self.in_flight

    @property
    def hit_rate(self) -> float:
        """Share of lookups that were served, in [0, 1]."""
        return self.hits / self.lookups if self.lookups else 0.0

    def __str__(self) -> str:
        unpriced = f" ({self.unpriced} hits without a known price)" if self.unpriced else ""
        failed = f", {sum(self.failures.values())} failures stepped over" if self.failures else ""
        kept_back = (
            f", {self.shadow} found and not served ({self.agreed} agreed with the model, {self.disagreed} did not)"
            if self.shadow
            else ""
        )
        return (
            f"{self.lookups} lookups, {self.hits} hits ({self.hit_rate:.1%}: {self.exact} exact, {self.semantic} "
            f"semantic, {self.in_flight} in flight), {self.saved_tokens:,} tokens and ${self.saved_usd:.4f} "
            f"saved{unpriced}{kept_back}{failed}"
        )


class Tally:
    """Thread-safe counters behind `CacheStats`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._misses: Counter[str] = Counter()
        self._written: Counter[str] = Counter()
        self._saved_usd = Decimal(0)

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of the plain counters."""
        with self._lock:
            self._counts[name] += by

    def refuse(self, reason: str) -> None:
        """An answer was not kept."""
        with self._lock:
            self._refused[reason] += 1

    def miss(self, reason: str) -> None:
        """A question was not answered."""
        with self._lock:
            self._misses[reason] += 1

    def fail(self, kind: str) -> bool:
        """An operation failed; True the first time this kind is seen (the time to log it)."""
        with self._lock:
            self._failures[kind] += 1
            return self._failures[kind] == 1

    def hit(self, hit: CacheHit, by: int = 1) -> None:
        """An answer was served; with -1, it was not after all."""
        with self._lock:
            self._counts[hit.tier] += by
            self._counts["saved_tokens"] += by * hit.answer.usage.total_tokens
            if hit.answer.cost is None:
                self._counts["unpriced"] += by
            else:
                self._saved_usd += by * hit.answer.cost

    def unwritten(self) -> dict[str, int]:
        """What has been added since the last call, as whole numbers (money in billionths of a dollar)."""
        with self._lock:
            sums = {name: self._counts[name] for name in _TOTALS}
            sums["saved_nanousd"] = int(self._saved_usd * 1_000_000_000)
            new = {name: value - self._written[name] for name, value in sums.items()}
            self._written.update(new)  # a Counter's update adds
            return {name: value for name, value in new.items() if value}

    def put_back(self, totals: Mapping[str, int]) -> None:
        """What `unwritten` gave could not be written: give it again next time."""
        with self._lock:
            self._written.subtract(totals)

    def snapshot(self) -> CacheStats:
        """The sums at this moment."""
        with self._lock:
            plain = {
                name: self._counts[name]
                for name in CacheStats.__dataclass_fields__
                if name not in ("saved_usd", "refused", "failures", "misses")
            }
            return CacheStats(
                **plain,
                saved_usd=self._saved_usd,
                refused=MappingProxyType(dict(self._refused)),
                failures=MappingProxyType(dict(self._failures)),
                misses=MappingProxyType(dict(self._misses)),
            )
