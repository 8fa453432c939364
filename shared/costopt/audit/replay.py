"""What each lever would have saved: the log played again with it, and with all of them one on top of the other.

Every lever has three cases: "low" counts what is sure, "likely" what is the best guess, "high" what is possible. Each
bears its own cost: looking up and judging take processor time, and what is written to a provider's prompt cache a
surcharge.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.audit.batchable import Batchable
from costopt.audit.bill import Bill, Rates, price_rates
from costopt.audit.columns import Flag, Log
from costopt.audit.context import Context
from costopt.audit.money import PICO
from costopt.audit.overrouted import Routing
from costopt.pricing import Price

__all__ = ["LEVERS", "OWN_COST", "Amounts", "LeverResult", "Replay"]

Amounts = NDArray[np.float64]

LEVERS = ("exact cache", "semantic cache", "routing", "compression", "prompt cache", "batch")
"""In the order in which a request meets them."""

OWN_COST: Mapping[str, float] = {"exact cache": 0.001, "semantic cache": 0.012, "routing": 0.006}
"""Processor seconds that a lever takes for each call: a lookup; embedding and judging; embedding and scoring."""

_CASES = ("low", "likely", "high")
_CACHES = frozenset(("exact cache", "semantic cache"))
_QUALITY = {
    "exact cache": (
        "None lost: the same question in the same scope gets the same answer, also where it was meant to vary."
    ),
    "semantic cache": (
        "The log cannot say whether the answers would have done: the judge is set to at most 5 % wrong ones (1 % in "
        "the low case, 10 % in the high one). Measure it on your own pairs by `costopt cache eval`."
    ),
    "compression": "None lost: only blanks in JSON and passages that are there twice; high: definitions of tools, too.",
    "prompt cache": "None lost: the provider reads the same tokens at a lower price.",
    "batch": "The same answers, within a day instead of at once.",
}
_ROUTED = "By the router's own estimate; the log holds no answer of the cheaper model. Let it shadow before it routes."
_UNROUTED = "Unknown: nothing in the log tells whether a cheaper model's answer would have done."


@dataclass(frozen=True, slots=True)
class LeverResult:
    """What one lever would have saved by itself, net of its own cost.

    Attributes:
        name: One of `LEVERS`.
        low: US dollars that it would surely have saved.
        likely: The best guess.
        high: What is possible; None if nothing bounds it.
        own_cost: What it would have cost by itself; taken off already.
        calls: How many calls it would have touched, in the likely case.
        known: Whether the log and what was given besides tell; if not, `likely`, `own_cost` and `calls` are 0.
        quality: What it would have meant for the answers.
    """

    name: str
    low: Decimal
    likely: Decimal
    high: Decimal | None
    own_cost: Decimal
    calls: int
    known: bool
    quality: str


class Replay:
    """A log with everything that the levers need to know of it.

    Args:
        log: The log.
        bill: What it cost.
        context: Of what its prompts consist.
        exact: Rows that the exact tier of a cache would have answered.
        worded: The chance of each row to be answered by the semantic tier, by case; shape (3, rows).
        routing: What routing would have done.
        waiting: What could have waited.
        prices: Prices of one's own.
        cpu_hour: US dollars for an hour of one processor core, for what the levers themselves take.
        semantic_known: Whether the semantic tier was played through at all.
    """

    def __init__(
        self,
        log: Log,
        bill: Bill,
        context: Context,
        exact: NDArray[np.bool_],
        worded: Amounts,
        routing: Routing,
        waiting: Batchable,
        *,
        prices: Mapping[str, Price] | None = None,
        cpu_hour: float = 0.05,
        semantic_known: bool = True,
    ) -> None:
        self._log, self._bill, self._context = log, bill, context
        self._exact, self._worded, self._routing, self._waiting = exact, worded, routing, waiting
        self._cpu_second = cpu_hour / 3_600
        self._semantic_known = semantic_known
        self._paid = bill.known & ~log.has(Flag.HIT)
        self._billed = np.where(self._paid, bill.billed, 0) / PICO
        # What the log says it cost, to what the list says: discounts, and prices that were others then.
        known = self._paid & (bill.listed > 0)
        self._scale = np.where(known, bill.billed / np.where(known, bill.listed, 1), 0.0)
        self._totals: dict[tuple[tuple[str, ...], str], float] = {}
        self._useful: dict[tuple[str, str], bool] = {}
        self._batch_rates = self._by_model(bill.rates, prices, batch=True)

    @property
    def before(self) -> float:
        """What was paid, in US dollars."""
        return self.total((), "likely")

    def total(self, levers: Collection[str], case: str) -> float:
        """What would have been paid with these levers, their own cost included."""
        # What does nothing on this log need not be computed, nor what was computed already.
        used = tuple(lever for lever in levers if self._does_something(lever, case))
        if (used, case) not in self._totals:
            self._totals[used, case] = float(self.costs(used, case).sum()) + self.own_cost(used, case)
        return self._totals[used, case]

    def results(self) -> list[LeverResult]:
        """Each lever by itself."""
        return [self._result(lever) for lever in LEVERS]

    def steps(self) -> list[tuple[str, float]]:
        """What each lever saves, in the likely case, on top of those before it."""
        found, on, paid = [], list[str](), self.before
        for lever in LEVERS:
            on.append(lever)
            now = self.total(on, "likely")
            found.append((lever, paid - now))
            paid = now
        return found

    def own_cost(self, levers: Collection[str], case: str) -> float:
        """US dollars of processor time that the levers take for themselves."""
        calls = int((self._paid & ~self._waiting.already).sum())
        # Nobody would switch on what does nothing.
        used = [lever for lever in levers if lever in OWN_COST and self._does_something(lever, case)]
        return sum(OWN_COST[lever] for lever in used) * self._cpu_second * calls

    def costs(self, levers: Collection[str], case: str) -> Amounts:
        """What each row would have cost, in US dollars; its own cost left out."""
        place = _CASES.index(case)
        costs = self._billed
        if not _CACHES.issuperset(levers):
            costs = np.where(self._scale > 0, self._by_tokens(levers, case) * self._scale, self._billed)
        missed = np.ones(len(self._log))
        if "exact cache" in levers:
            missed[self._exact] = 0.0
        if "semantic cache" in levers:
            missed *= 1.0 - self._worded[place]
        return np.asarray(costs * missed, np.float64)

    def _by_tokens(self, levers: Collection[str], case: str) -> Amounts:
        """What the tokens cost by the list, once per row."""
        log, rates = self._log, self._bill.rates
        moved = self._routing.moved[_CASES.index(case)] if "routing" in levers else None
        batch_rates = self._batch_rates
        if moved is not None:
            rates = np.where(moved[:, None], self._routing.rates, rates)
            # The cheaper model's discount is taken to be that of the one that was called.
            with np.errstate(divide="ignore", invalid="ignore"):
                part = np.where(self._bill.rates > 0, batch_rates / self._bill.rates, 1.0)
            batch_rates = np.where(moved[:, None] & (batch_rates >= 0), rates * part, batch_rates)
        read = log["input"].astype(np.float64)
        cached, written = log["cached"].astype(np.float64), log["written"].astype(np.float64)
        fresh = read - cached - written
        if "compression" in levers:
            # What is left out lies in each part alike, as far as one can tell.
            left = 1.0 - self._left_out(case) / np.maximum(read, 1.0)
            fresh, cached, written = fresh * left, cached * left, written * left
        if "prompt cache" in levers:
            more, opened = self._prefixes(fresh, cached, case)
            fresh, cached, written = fresh - more - opened, cached + more, written + opened
        used = np.where(self._batched(levers, case)[:, None] & (batch_rates >= 0), batch_rates, rates)
        tokens = np.stack([fresh, log["output"].astype(np.float64), cached, written, np.ones(len(log))], axis=1)
        return np.asarray((tokens * np.maximum(used, 0)).sum(axis=1) / PICO, np.float64)

    def _left_out(self, case: str) -> Amounts:
        context = self._context
        found = context.blanks if case == "low" else context.blanks + context.twice
        if case == "high":
            found = found + context.unused
        return np.asarray(np.minimum(found, self._log["input"]), np.float64)

    def _prefixes(self, fresh: Amounts, cached: Amounts, case: str) -> tuple[Amounts, Amounts]:
        """(tokens read from a provider's prompt cache that were not, tokens written to it that were not)."""
        # Where the log does not tell of cached tokens, they may have been cached all along.
        sure = np.True_ if case == "high" else self._log.has(Flag.TELLS_CACHED)
        rates = self._bill.rates
        worth = sure & (rates[:, 2] < rates[:, 0]) & self._paid
        more = np.where(worth, np.clip(self._context.prefix - cached, 0, np.maximum(fresh, 0)), 0.0)
        opens = worth & (rates[:, 3] > rates[:, 0]) & (self._log["written"] == 0)
        opened = np.where(opens, np.clip(self._context.opening - cached, 0, np.maximum(fresh - more, 0)), 0.0)
        return more, opened

    def _batched(self, levers: Collection[str], case: str) -> NDArray[np.bool_]:
        if "batch" not in levers:
            return np.zeros(len(self._log), np.bool_)
        return self._waiting.marked if case == "low" else self._waiting.marked | self._waiting.bursts

    def _by_model(self, rates: Rates, prices: Mapping[str, Price] | None, *, batch: bool) -> Rates:
        found = np.full_like(rates, -1)
        wanted = self._waiting.marked | self._waiting.bursts
        for number, (model, provider) in enumerate(self._log.models):
            rows = np.flatnonzero(wanted & (self._log["model"] == number))
            if len(rows):
                found[rows] = price_rates(self._log, rows, model, provider, batch=batch, prices=prices)
        return found

    def _does_something(self, lever: str, case: str) -> bool:
        if (lever, case) not in self._useful:
            self._useful[lever, case] = bool(self._touched(lever, case).any())
        return self._useful[lever, case]

    def _touched(self, lever: str, case: str) -> NDArray[Any]:
        """Which calls a lever changes; for the semantic cache the chance of it."""
        place = _CASES.index(case)
        if lever == "exact cache":
            return np.asarray(self._exact & self._paid)
        if lever == "semantic cache":
            return np.asarray(self._worded[place] * self._paid)
        if lever == "routing":
            return np.asarray(self._routing.moved[place])
        if lever == "compression":
            return np.asarray(self._left_out(case) > 0)
        if lever == "batch":
            return self._batched(["batch"], case)
        more, opened = self._prefixes(*self._parts(), case)
        return np.asarray((more > 0) | (opened > 0))

    def _result(self, lever: str) -> LeverResult:
        saved = {case: self.before - self.total([lever], case) for case in _CASES}
        low, likely, high = sorted(saved.values())
        known = {"routing": self._routing.known, "semantic cache": self._semantic_known}.get(lever, True)
        quality = _QUALITY.get(lever) or (_ROUTED if self._routing.known else _UNROUTED)
        own = self.own_cost([lever], "likely")
        return LeverResult(
            lever,
            _usd(low),
            _usd(likely),
            # Without the pass over the questions nothing is known of the semantic tier, not even a bound.
            _usd(high) if known or lever == "routing" else None,
            _usd(own),
            round(float(self._touched(lever, "likely").sum())),
            known,
            quality,
        )

    def _parts(self) -> tuple[Amounts, Amounts]:
        cached = self._log["cached"].astype(np.float64)
        return self._log["input"] - cached - self._log["written"], cached


def _usd(amount: float) -> Decimal:
    return Decimal(repr(amount)).quantize(Decimal("0.000001"))
