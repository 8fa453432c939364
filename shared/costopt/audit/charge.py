"""What attempts cost, and whence that is known."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache

from costopt.arguments import prices as checked_prices
from costopt.pricing import ListedModel, Price, Usage, listed

__all__ = ["LOCAL", "SLOT_S", "Charge", "Charges"]

SLOT_S = 1_800
"""Seconds for which a price is looked up once: some change with the time of day, at half past."""

_MOST_KEPT = 20_000

# What LangChain, LlamaIndex and OpenTelemetry call those whom the price list calls otherwise.
_SELLERS = {
    "amazon_bedrock": "aws",
    "aws.bedrock": "aws",
    "azure.ai.openai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.vertex_ai": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "vertex_ai": "google",
    "x_ai": "x-ai",
    "xai": "x-ai",
}
LOCAL = frozenset("huggingface llama.cpp llamacpp lmstudio local mlx ollama quantized vllm".split())

_Key = tuple[str, str | None, bool, str | None, int]


@dataclass(frozen=True, slots=True)
class Charge:
    """What an attempt cost.

    Attributes:
        cost: US dollars; None if the price is not known, which is not zero.
        source: "given" or the name and version of the price list, each after "batch " for a batch; "" if not known.
    """

    cost: Decimal | None
    source: str


class Charges:
    """Prices attempts at the moment they were made; a model's price is looked up once in half an hour.

    Args:
        prices: Prices of one's own by the model's name, which go before the price list's.
        batch_prices: Likewise in the provider's batch API; without one, the list's factor for the model is applied
            to the price in `prices`.

    Raises:
        ConfigError: If one of them is no `Price`.

    Example:
        >>> charge = Charges().of("gpt-4o-mini", Usage(1_000_000, 0))
        >>> charge.cost == Decimal("0.15"), charge.source
        (True, 'genai-prices ...')
        >>> Charges({"my-model": Price(1, 2)}).of("my-model", Usage(1_000_000, 0))
        Charge(cost=Decimal('1'), source='given')
        >>> Charges().of("my-model", Usage(1_000_000, 0))
        Charge(cost=None, source='')
    """

    def __init__(
        self, prices: Mapping[str, Price] | None = None, batch_prices: Mapping[str, Price] | None = None
    ) -> None:
        self._prices = checked_prices("prices", prices)
        self._batch_prices = checked_prices("batch_prices", batch_prices)
        self._known: dict[_Key, _Rates | None] = {}

    def of(
        self,
        model: str,
        usage: Usage,
        *,
        provider: str | None = None,
        batch: bool = False,
        when: float | None = None,
        service_tier: str | None = None,
    ) -> Charge:
        """What these tokens cost.

        Args:
            model: The model's name.
            usage: The tokens.
            provider: Who sold it, where the model's name does not tell.
            batch: Whether it went through the provider's batch API.
            when: The moment of the call, in seconds since 1970; now if None.
            service_tier: The service that the provider says it gave, e.g. "flex".
        """
        moment = datetime.now(UTC).timestamp() if when is None else when
        key = (model, provider, batch, service_tier, int(moment // SLOT_S))
        try:
            rates = self._known[key]
        except KeyError:  # asked for first, as another thread may empty it
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            rates = self._known[key] = self._rates(*key)
        price = rates and rates.at(usage.input_tokens)
        return Charge(price.cost(usage), rates.source) if rates and price else Charge(None, "")

    def _rates(self, model: str, provider: str | None, batch: bool, tier: str | None, slot: int) -> _Rates | None:
        found = _found(model, provider)
        try:
            when = datetime.fromtimestamp(slot * SLOT_S, UTC)
        except (OverflowError, ValueError, OSError):  # a log's moment, from another calendar
            return None
        own = self._own(model, found, batch, when)
        if own is not None:
            return _Rates("batch given" if batch else "given", [], [own])
        if found is None or model in self._prices:
            return None
        starts = found.steps()
        # One price for the length at each start, and one beyond the last.
        prices = [
            found.price(at, batch=batch, when=when, service_tier=tier) for at in (*starts, (starts or [0])[-1] + 1)
        ]
        return _Rates(("batch " if batch else "") + _list_name(), starts, prices)

    def _own(self, model: str, found: ListedModel | None, batch: bool, when: datetime) -> Price | None:
        if not batch:
            return self._prices.get(model)
        if model in self._batch_prices or model not in self._prices:
            return self._batch_prices.get(model)
        factor = found.batch_factor(when=when) if found else None
        return None if factor is None else self._prices[model].scaled(factor)


@dataclass(frozen=True, slots=True)
class _Rates:
    """The prices of one model in one half hour, by length of input."""

    source: str
    starts: list[int]
    prices: list[Price] | list[Price | None]

    def at(self, input_tokens: int) -> Price | None:
        return self.prices[bisect_left(self.starts, input_tokens)]


def _found(model: str, provider: str | None) -> ListedModel | None:
    """The model in the list as this provider sells it; by its name alone if the list does not know the provider."""
    seller = (provider or "").lower()
    seller = _SELLERS.get(seller, seller)
    if seller in LOCAL:
        return None  # what others ask for a model of this name is not what it costs at home
    return listed(model, provider=seller if seller in _known_sellers() else None)


@cache
def _known_sellers() -> frozenset[str]:
    from genai_prices.data_snapshot import get_snapshot

    return frozenset(provider.id for provider in get_snapshot().providers)


@cache
def _list_name() -> str:
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"
