"""What a model call costs: tokens times the price list of genai-prices, as Decimal US dollars.

The price list is the snapshot inside the installed genai-prices; nothing is fetched. A model it does not know
has no price, and that is None: never zero. A `Price` of one's own goes before the list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from costopt.errors import ConfigError

__all__ = ["BatchFactor", "ListedModel", "Price", "PriceList", "Usage", "cost", "listed", "price_list"]

Money = Decimal | int | float | str

_MILLION = Decimal(1_000_000)
_ZERO, _ONE = Decimal(0), Decimal(1)
_BATCH = {"processing": "batch"}
_UNITS = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "cache_write_1h_mtok")
# What providers call the service that everybody gets who asks for nothing else.
_ORDINARY = frozenset({"", "auto", "default", "standard", "standard_only"})


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider counted them.

    Attributes:
        input_tokens: All input, the cached part included.
        output_tokens: All output, reasoning included.
        cached_tokens: The part of the input that was read from the provider's prompt cache.
        cache_write_tokens: The part of the input that was written to it.
        cache_write_1h_tokens: The part of what was written that is kept for an hour, which costs more.
        reasoning_tokens: The part of the output that was reasoning.

    Example:
        >>> Usage(10, 5).total_tokens
        15
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        """The tokens of both."""
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class BatchFactor:
    """What a provider's batch price is of the ordinary one, unit by unit: not every unit is halved."""

    input: Decimal
    output: Decimal
    cached_input: Decimal
    cache_write: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens. Numbers may be given as they are; they are kept as Decimal.

    Attributes:
        input: Of input that is not cached.
        output: Of output, reasoning included.
        cached_input: Of input read from the provider's prompt cache; None: as `input`.
        request: Dollars for each call, whatever its tokens.
        cache_write: Of input written to the provider's prompt cache; None: as `input`.
        cache_write_1h: Of input written to be kept there for an hour; None: as `cache_write`.

    Raises:
        ConfigError: If one is no number, or below 0.

    Example:
        >>> Price(input="0.15", output="0.60").cost(Usage(1_000_000, 500_000))
        Decimal('0.45')
    """

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None
    request: Decimal = _ZERO
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None

    def __init__(
        self,
        input: Money,  # noqa: A002
        output: Money,
        cached_input: Money | None = None,
        request: Money = _ZERO,
        cache_write: Money | None = None,
        cache_write_1h: Money | None = None,
    ) -> None:
        object.__setattr__(self, "input", _money("input", input))
        object.__setattr__(self, "output", _money("output", output))
        object.__setattr__(self, "request", _money("request", request))
        optional = {"cached_input": cached_input, "cache_write": cache_write, "cache_write_1h": cache_write_1h}
        for name, value in optional.items():
            object.__setattr__(self, name, None if value is None else _money(name, value))

    def cost(self, usage: Usage) -> Decimal:
        """What these tokens cost in one call, in US dollars."""
        cached = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        tokens = fresh * self.input + usage.cached_tokens * cached + usage.output_tokens * self.output
        if usage.cache_write_tokens:
            short, long = self._write_rates()
            brief = usage.cache_write_tokens - usage.cache_write_1h_tokens
            tokens += brief * short + usage.cache_write_1h_tokens * long
        return tokens / _MILLION + self.request

    def scaled(self, by: BatchFactor) -> Price:
        """The price in a batch, from the price of single calls."""
        cached = self.input if self.cached_input is None else self.cached_input
        short, long = (rate * by.cache_write for rate in self._write_rates())
        return Price(
            self.input * by.input, self.output * by.output, cached * by.cached_input, self.request, short, long
        )  # fmt: skip

    def _write_rates(self) -> tuple[Decimal, Decimal]:
        """Of what is written to be kept for minutes, and for an hour."""
        short = self.input if self.cache_write is None else self.cache_write
        return short, short if self.cache_write_1h is None else self.cache_write_1h


@dataclass(frozen=True, slots=True)
class PriceList:
    """Where prices come from.

    Attributes:
        name: The package that holds the list.
        version: Of that package.
        newest: The last date up to today on which a price in it came into force: the list is no older than that.
        models: How many models it knows.
        updated: When it was fetched, if the application had genai-prices do that; None for the list as installed.
    """

    name: str
    version: str
    newest: date
    models: int
    updated: datetime | None = None

    def __str__(self) -> str:
        fetched = f", fetched {self.updated:%Y-%m-%d %H:%M}" if self.updated else ""
        return f"{self.name} {self.version} (prices up to {self.newest}{fetched}, {self.models:,} models)"


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as the price list has it.

    Attributes:
        model: Its name there.
        provider: Whose price it is: one model may be sold by several.
        context_window: Tokens, where the list says.
    """

    model: str
    provider: str
    context_window: int | None
    _info: Any = field(repr=False, compare=False)
    _own: bool = field(repr=False, compare=False)  # the provider's own entry, to which variants apply

    def price(
        self,
        input_tokens: int = 0,
        *,
        batch: bool = False,
        when: datetime | None = None,
        service_tier: str | None = None,
    ) -> Price | None:
        """Dollars per million tokens for a call with this much input, long inputs being dearer with some models.

        Args:
            input_tokens: All input of the call.
            batch: For the price in the provider's batch API.
            when: The moment of the call; now if None. Prices in the list are dated, and some depend on the hour.
            service_tier: The service that the provider says it gave, e.g. "flex" or "priority".

        Returns:
            The price; None if the list has no price by tokens for this, e.g. no batch price.

        Example:
            >>> listed("gpt-4o-mini").price(batch=True).output
            Decimal('0.3')
        """
        moment = when or datetime.now(UTC)
        if batch:
            return self._variant(_BATCH, moment, input_tokens)
        if service_tier is not None and service_tier not in _ORDINARY:
            return self._variant({"service_tier": service_tier}, moment, input_tokens)
        return _rates(self._info.get_prices(moment), input_tokens)

    def _variant(self, wanted: dict[str, str], moment: datetime, input_tokens: int) -> Price | None:
        active = self._own and any(
            variant.when == wanted and (variant.constraint is None or variant.constraint.active(moment))
            for variant in self._info.price_variants or ()
        )
        return _rates(self._info.get_prices(moment, wanted), input_tokens) if active else None

    def steps(self) -> list[int]:
        """Lengths of input, rising, past which a call is priced otherwise."""
        prices = self._info.get_prices(datetime.now(UTC)).__dict__.values()
        return sorted({tier.start for price in prices for tier in getattr(price, "tiers", ())})

    def batch_factor(self, *, when: datetime | None = None) -> BatchFactor | None:
        """What the batch price is of the ordinary one; None if the list has no batch price.

        Example:
            >>> factor = listed("gpt-4o").batch_factor()
            >>> factor.input, factor.cached_input
            (Decimal('0.5'), Decimal('1'))
        """
        whole, part = self.price(when=when), self.price(batch=True, when=when)
        if whole is None or part is None:
            return None
        cached = (price.input if price.cached_input is None else price.cached_input for price in (part, whole))
        written = (price.input if price.cache_write is None else price.cache_write for price in (part, whole))
        return BatchFactor(
            _part(part.input, whole.input), _part(part.output, whole.output), _part(*cached), _part(*written)
        )


def listed(model: str, *, provider: str | None = None) -> ListedModel | None:
    """The model in the price list; None if it is not there.

    Args:
        model: Its name, as the provider or a client has it; `provider/model` is understood, too.
        provider: The provider's name, where the model's name does not tell.

    Example:
        >>> listed("claude-haiku-4-5").context_window, listed("my-own-model")
        (200000, None)
    """
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    return _found(_Held(snapshot), model, provider)


def cost(
    model: str,
    usage: Usage,
    *,
    price: Price | None = None,
    provider: str | None = None,
    batch: bool = False,
    when: datetime | None = None,
    service_tier: str | None = None,
) -> Decimal | None:
    """What a call cost in US dollars; None if the price of `model` is not known.

    Args:
        model: The model's name.
        usage: The tokens of the call.
        price: A price of one's own, which goes before the list's.
        provider: Who sold it, where the model's name does not tell.
        batch: Whether it went through the provider's batch API.
        when: The moment of the call; now if None.
        service_tier: The service that the provider says it gave, e.g. "flex" or "priority".

    Example:
        >>> cost("gpt-4o-mini", Usage(input_tokens=1_000_000)) == Decimal("0.15")
        True
        >>> cost("my-own-model", Usage(input_tokens=1_000_000)) is None
        True
    """
    if price is None:
        known = listed(model, provider=provider)
        if known is not None:
            price = known.price(usage.input_tokens, batch=batch, when=when, service_tier=service_tier)
    return None if price is None else price.cost(usage)


def price_list() -> PriceList:
    """Which price list is in use, and how new it is.

    Example:
        >>> print(price_list())
        genai-prices ... (prices up to ...)
    """
    from genai_prices.data_snapshot import get_snapshot

    return _about(_Held(get_snapshot()), datetime.now(UTC).date())


class _Held:
    """A snapshot as a key of a cache: the same one is the same key, and is kept alive by it."""

    __slots__ = ("snapshot",)

    def __init__(self, snapshot: Any) -> None:
        self.snapshot = snapshot

    def __hash__(self) -> int:
        return id(self.snapshot)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.snapshot is self.snapshot


@lru_cache(maxsize=4096)
def _found(held: _Held, model: str, provider: str | None) -> ListedModel | None:
    before, slash, after = model.removeprefix("models/").partition("/")
    names = [(before + slash + after, provider)]
    if slash and provider is None:
        names.append((after, before))
    for name, sold_by in names:
        try:
            seller, info = held.snapshot.find_provider_model(name, None, sold_by, None)
        except (LookupError, ValueError):
            continue
        own = any(info is each for each in seller.models)
        return ListedModel(info.id, seller.id, info.context_window, info, own)
    return None


@lru_cache(maxsize=2)
def _about(held: _Held, today: date) -> PriceList:
    from importlib.metadata import version

    models = [info for provider in held.snapshot.providers for info in provider.models]
    starts = (getattr(each.constraint, "start_date", None) for info in models for each in _dated(info))
    newest = max(start for start in starts if start is not None and start <= today)
    updated = held.snapshot.timestamp if held.snapshot.from_auto_update else None
    return PriceList("genai-prices", version("genai-prices"), newest, len(models), updated)


def _dated(info: Any) -> list[Any]:
    conditional = info.prices if isinstance(info.prices, list) else []
    return [*conditional, *(info.price_variants or ())]


def _rates(prices: Any, input_tokens: int) -> Price | None:
    """The units that a call of text has; None if either direction has no price by tokens."""
    rates = [_rate(getattr(prices, unit, None), input_tokens) for unit in _UNITS]
    if rates[0] is None or rates[1] is None:
        return None
    a_thousand = _rate(getattr(prices, "requests_kcount", None), input_tokens) or _ZERO
    return Price(rates[0], rates[1], rates[2], a_thousand / 1000, rates[3], rates[4])


def _rate(price: Any, input_tokens: int) -> Decimal | None:
    """The rate at this length: past a tier's start every token of the call pays that tier's rate."""
    if price is None or isinstance(price, Decimal):
        return price
    rate: Decimal = price.base
    for tier in price.tiers:
        if input_tokens > tier.start:
            rate = tier.price
    return rate


def _part(part: Decimal, whole: Decimal) -> Decimal:
    return _ONE if part == whole else part / whole


def _money(name: str, value: Money) -> Decimal:
    try:
        # By way of text: 0.1 is meant as one tenth, not as the binary fraction next to it.
        amount = value if isinstance(value, Decimal) else Decimal(str(value))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"the price {name}={value!r} is not an amount: give dollars per million tokens, e.g. 0.15")
    return amount
