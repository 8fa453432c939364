"""What each row of a log cost, and what it would cost elsewhere, in whole picodollars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.audit.charge import SLOT_S
from costopt.audit.columns import Flag, Log
from costopt.audit.money import picodollars
from costopt.pricing import ListedModel, Price, listed

__all__ = ["Bill", "Rates", "bill_of", "price_rates"]

Rates = NDArray[np.int64]
"""Picodollars for a token of input, output, cached input and input written to a cache, and for the request; shape
(rows, 5). -1 throughout where the price is not known."""

_DAY_S = 86_400
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Bill:
    """What a log cost.

    Attributes:
        rates: Of each row, as it was called.
        listed: By those rates; -1 where they are not known.
        billed: As the log has it, else by the rates; -1 where neither is known. Cache hits cost nothing.
    """

    rates: Rates
    listed: NDArray[np.int64]
    billed: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Which rows have a cost."""
        return self.billed >= 0


def bill_of(log: Log, prices: Mapping[str, Price] | None = None) -> Bill:
    """Price every row at its own moment.

    Args:
        log: The log.
        prices: Prices of one's own by the model's name, which go before the price list's.
    """
    rates = np.full((len(log), 5), -1, np.int64)
    batched = log.has(Flag.BATCHED)
    for number, (model, provider) in enumerate(log.models):
        for batch in (False, True):
            rows = np.flatnonzero((log["model"] == number) & (batched == batch))
            if len(rows):
                rates[rows] = price_rates(log, rows, model, provider, batch=batch, prices=prices)
    by_list = priced(log, rates)
    billed = np.where(log["billed"] >= 0, log["billed"], by_list)
    # Without tokens there is nothing to price: a call that failed at once, or one that the log says too little of.
    billed[log.has(Flag.UNCOUNTED) & (log["billed"] < 0)] = -1
    billed[log.has(Flag.FAILED) & (log["input"] + log["output"] == 0)] = 0
    billed[log.has(Flag.HIT)] = 0
    return Bill(rates, by_list, billed)


def priced(log: Log, rates: Rates) -> NDArray[np.int64]:
    """What the rows' tokens cost at these rates; -1 where they are not known."""
    fresh = log["input"].astype(np.int64) - log["cached"] - log["written"]
    cost: NDArray[np.int64] = (
        fresh * rates[:, 0]
        + log["output"] * rates[:, 1]
        + log["cached"] * rates[:, 2]
        + log["written"] * rates[:, 3]
        + rates[:, 4]
    )
    return np.where(rates[:, 0] < 0, -1, cost)


def price_rates(
    log: Log,
    rows: NDArray[np.intp],
    model: str,
    provider: str | None = None,
    *,
    batch: bool = False,
    prices: Mapping[str, Price] | None = None,
) -> Rates:
    """What these rows' tokens cost one by one if `model` had been called at their moments; shape (len(rows), 5)."""
    found = listed(model, provider=provider) or listed(model)
    own = (prices or {}).get(model)
    if own is not None:
        factor = found.batch_factor() if batch and found else None
        price = own if not batch else (own.scaled(factor) if factor else None)
        return np.tile(_row(price), (len(rows), 1))
    if found is None:
        return np.full((len(rows), 5), -1, np.int64)
    return _listed(log, rows, found, batch)


def _listed(log: Log, rows: NDArray[np.intp], found: ListedModel, batch: bool) -> Rates:
    starts = found.steps()
    # Past a start every token of the call pays that rate; at it, the one before.
    steps = np.searchsorted(starts, log["input"][rows], side="left") if starts else np.zeros(len(rows), np.intp)
    lengths = [*starts, (starts or [0])[-1] + 1]
    moments = log["started"][rows] if log.dated else np.full(len(rows), datetime.now(UTC).timestamp())

    def at(moment: float, step: int) -> Price | None:
        return found.price(lengths[step], batch=batch, when=datetime.fromtimestamp(moment, UTC))

    grain = SLOT_S if _changes_by_day(at, moments) else _DAY_S
    keys = (moments // grain).astype(np.int64) * (len(starts) + 1) + steps
    uniques, places = np.unique(keys, return_inverse=True)
    table = np.empty((len(uniques), 5), np.int64)
    for place, key in enumerate(uniques):
        slot, step = divmod(int(key), len(starts) + 1)
        table[place] = _row(at(slot * grain, step))
    return table[places]


def _changes_by_day(at: Callable[[float, int], Any], moments: NDArray[Any]) -> bool:
    """Whether the price depends on the time of day; looked at on the first day and on the last."""
    days = {float(edge // _DAY_S * _DAY_S) for edge in (moments.min(), moments.max())}
    return any(len({repr(at(day + slot * SLOT_S, 0)) for slot in range(48)}) > 1 for day in days)


def _row(price: Price | None) -> list[int]:
    if price is None:
        return [-1] * 5
    cached = price.input if price.cached_input is None else price.cached_input
    written = price.input if price.cache_write is None else price.cache_write
    rates = (price.input, price.output, cached, written)
    return [*(picodollars(rate / _MILLION) for rate in rates), picodollars(price.request)]
