"""What a row of a batch cost, and what it would have cost by itself."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from costopt.pricing import ListedModel, Price, Usage, listed

__all__ = ["BatchPrices"]


class BatchPrices:
    """Prices by model, looked up once: the price list takes milliseconds to look through.

    Args:
        given: The prices of single calls of your own, by model; the batch price is half of these.

    Example:
        >>> usage = Usage(input_tokens=1_000_000)
        >>> BatchPrices().of("gpt-4o-mini", "openai", usage)
        (Decimal('0.075'), Decimal('0.150'))
    """

    def __init__(self, given: Mapping[str, Price] | None = None) -> None:
        self._given = given or {}
        self._models: dict[tuple[str, str], tuple[ListedModel | None, list[int]]] = {}
        self._prices: dict[tuple[Any, ...], tuple[Price | None, Price | None]] = {}

    def of(self, model: str, provider: str, usage: Usage, answering: str = "") -> tuple[Decimal | None, Decimal | None]:
        """US dollars in a batch, and by itself; None for what is not known.

        Args:
            model: The model that was asked.
            provider: Who was.
            usage: The tokens.
            answering: The model that says it answered, which is more exact: one of a certain date, for instance.
        """
        for name in (model, answering):
            if name in self._given:
                full = self._given[name].cost(usage)
                return full / 2, full
        batch, single = self._listed(answering or model, provider, usage.input_tokens)
        if single is None and answering:
            batch, single = self._listed(model, provider, usage.input_tokens)
        return (None if batch is None else batch.cost(usage)), (None if single is None else single.cost(usage))

    def _listed(self, model: str, provider: str, tokens: int) -> tuple[Price | None, Price | None]:
        name = (model, provider)
        if name not in self._models:
            found = listed(model, provider=provider)
            self._models[name] = found, found.steps() if found else []
        known, steps = self._models[name]
        key = (*name, bisect.bisect_left(steps, tokens))
        if key not in self._prices:
            pair = (known.price(tokens, batch=True), known.price(tokens)) if known else (None, None)
            self._prices[key] = pair
        return self._prices[key]
