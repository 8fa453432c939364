"""A model that requests may go to: what it costs, how much it takes, what it can do."""

from __future__ import annotations

import itertools
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import cached_property, partial
from typing import Any

from costopt.arguments import is_list, names, price, switch, text, whole
from costopt.errors import ConfigError
from costopt.forks import ForkLock
from costopt.pricing import ListedModel, Price, Usage, listed

__all__ = ["Tier", "checked_tiers"]

_NAMES = ("model_name", "model", "model_id", "deployment_name", "azure_deployment", "repo_id")
# What LlamaIndex says of a model whose window nobody told it.
_UNTOLD_WINDOW = 3900
# Prices may change with the hour; looking at the clock at every call would cost more than the sum.
_FRESH_S = 60.0


_CHECKS: dict[Callable[[str, Any], object], tuple[str, ...]] = {
    text: ("name", "region", "provider"),
    price: ("price",),
    partial(whole, of="tokens"): ("context_window", "max_output_tokens"),
    switch: ("tools", "vision", "json"),
}


@dataclass(frozen=True, eq=False)
class Tier:
    """A model with its price and capabilities. What is not given is asked of the model object and the price list.

    Attributes:
        model: The model: any object that the adapter understands. It is asked for its name (`model_name`, `model`,
            `model_id`, ...) and for what it can do (LangChain's `profile`, LlamaIndex's `metadata`).
        name: What decisions call it; the model's own name if empty.
        price: Dollars per million tokens; None: the price list's, if it knows the model.
        context_window: Tokens that fit, input and output together; None: the model's or the list's, else not limited.
        max_output_tokens: Most tokens of one answer; needed where a budget reserves for it.
        tools: Whether it calls tools; None: as the model says, and if it does not say, yes.
        vision: Whether it reads images; None likewise.
        json: Whether it answers by a JSON schema; None likewise.
        region: Where it runs, for requests that must stay in some regions.
        tags: What else is true of it, for requests that demand it.
        provider: Who sells it, where the model's name does not tell.

    Raises:
        ConfigError: If it has no name, a limit is below 1, or something is not what it must be.

    Example:
        >>> tier = Tier("gpt-4o-mini", tags={"eu"})
        >>> tier.name, tier.window, tier.price_at(0).output
        ('gpt-4o-mini', 128000, Decimal('0.6'))
    """

    model: Any
    name: str = ""
    price: Price | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    tools: bool | None = None
    vision: bool | None = None
    json: bool | None = None
    region: str | None = None
    tags: Iterable[str] = field(default_factory=frozenset)
    provider: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))

    def __post_init__(self) -> None:
        tags = [self.tags] if isinstance(self.tags, str) else names("tags", self.tags)
        object.__setattr__(self, "tags", frozenset(tags))
        self._check_kinds()
        object.__setattr__(self, "name", self.name or self.model_name)
        object.__setattr__(self, "_prices", _Prices())
        if not self.name:
            raise ConfigError(f"a {type(self.model).__name__} does not say its name: give Tier(model, name=...)")

    def _check_kinds(self) -> None:
        """Refuse what would else fail at the first request."""
        for check, of in _CHECKS.items():
            for name in of:
                if getattr(self, name) is not None:
                    check(name, getattr(self, name))

    @cached_property
    def model_name(self) -> str:
        """The model's own name; empty if it does not say."""
        return _name_of(self.model)

    @cached_property
    def profile(self) -> Mapping[str, Any]:
        """What the model object says it can do, in LangChain's words; empty if it does not say."""
        return _profile(self.model)

    @cached_property
    def listed(self) -> ListedModel | None:
        """The model in the price list."""
        return listed(self.model_name, provider=self.provider) if self.model_name else None

    @cached_property
    def window(self) -> int | None:
        """Tokens that fit; None if nobody says."""
        said = self.context_window or self.profile.get("max_input_tokens")
        return int(said) if said else (self.listed.context_window if self.listed else None)

    @cached_property
    def most_output(self) -> int | None:
        """Most tokens of one answer; None if nobody says."""
        said = self.max_output_tokens or _own_limit(self.model) or self.profile.get("max_output_tokens")
        return int(said) if said else None

    def lacks(self, tools: bool, vision: bool, json: bool) -> str | None:
        """The first thing it cannot do of those that are wanted; None if it can do all."""
        wanted = (("tools", tools, "tool_calling"), ("vision", vision, "image_inputs"))
        for name, want, key in (*wanted, ("json", json, "structured_output")):
            able = getattr(self, name)
            if want and (self.profile.get(key) if able is None else able) is False:
                return name
        return None

    def price_at(self, input_tokens: int) -> Price | None:
        """Dollars per million tokens for a call with this much input, now; None if nobody knows."""
        return self.price or (self._held.at(self.listed, input_tokens) if self.listed else None)

    def cost(self, usage: Usage) -> Decimal | None:
        """What such a call costs here in US dollars; None if the price is not known."""
        price = self.price_at(usage.input_tokens)
        return None if price is None else price.cost(usage)

    @property
    def _held(self) -> _Prices:
        held: _Prices = self.__dict__["_prices"]
        return held


class _Prices:
    """The list's prices of one model by length of input, looked up anew each minute."""

    def __init__(self) -> None:
        self._lock = ForkLock()
        self._until = 0.0
        self._starts: list[int] = []
        self._known: dict[int, Price | None] = {}

    def at(self, model: ListedModel, input_tokens: int) -> Price | None:
        with self._lock:
            now = time.monotonic()
            if now >= self._until:
                self._known = {}
                self._starts = model.steps()
                self._until = now + _FRESH_S
            step = bisect_left(self._starts, input_tokens)
            if step not in self._known:
                self._known[step] = model.price(input_tokens)
            return self._known[step]


def checked_tiers(tiers: Sequence[Any]) -> tuple[Tier, ...]:
    """The tiers, from the cheapest to the strongest; a bare model becomes a tier.

    Raises:
        ConfigError: If there are none, two of one name, or one after a tier that costs more.

    Example:
        >>> [tier.name for tier in checked_tiers([Tier("gpt-4o-mini"), "gpt-4o"])]
        ['gpt-4o-mini', 'gpt-4o']
    """
    if not is_list(tiers):
        raise ConfigError(f"tiers={tiers!r:.200}: give a list of models, as in tiers=[cheap, strong]")
    made = tuple(each if isinstance(each, Tier) else Tier(each) for each in tiers)
    if not made:
        raise ConfigError("there are no tiers: give at least one model, as in tiers=[Tier(model)]")
    names = [tier.name for tier in made]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"two tiers are called {twice!r}: give them names, as in Tier(model, name={twice + '-2'!r})")
    for cheap, dear in itertools.pairwise(made):
        one, other = cheap.price_at(0), dear.price_at(0)
        if one and other and other.input <= one.input and other.output <= one.output and one != other:
            raise ConfigError(
                f"tier {dear.name!r} costs less than {cheap.name!r}, after which it comes: list the tiers from the "
                "cheapest to the strongest, or give prices, as in Tier(model, price=Price(0.15, 0.60))"
            )
    return made


def _name_of(model: Any) -> str:
    if isinstance(model, str):
        return model
    kwargs = getattr(model, "kwargs", None)
    bound = getattr(model, "bound", None)
    if bound is not None and isinstance(kwargs, Mapping):  # a binding of LangChain's
        return str(kwargs.get("model") or "") or _name_of(bound)
    metadata = getattr(model, "metadata", None)
    for holder in (model, metadata):  # LlamaIndex keeps it in `metadata`
        for name in _NAMES:
            value = getattr(holder, name, None)
            if isinstance(value, str) and value:
                return value
    return ""


def _profile(model: Any) -> Mapping[str, Any]:
    """LangChain's models say it in `profile`, LlamaIndex's in `metadata`."""
    profile = getattr(getattr(model, "bound", model), "profile", None)
    if isinstance(profile, Mapping):
        return profile
    metadata = getattr(model, "metadata", None)
    window = getattr(metadata, "context_window", None)
    calls = getattr(metadata, "is_function_calling_model", None)
    return {"max_input_tokens": None if window == _UNTOLD_WINDOW else window, "tool_calling": calls}


def _own_limit(model: Any) -> int | None:
    """What the model object will ask for at most."""
    kwargs = getattr(model, "kwargs", None)
    held = getattr(model, "bound", model)
    said = [kwargs.get("max_tokens")] if isinstance(kwargs, Mapping) else []
    said += [getattr(held, name, None) for name in ("max_tokens", "max_output_tokens", "num_predict")]
    return next((value for value in said if isinstance(value, int) and value > 0), None)
