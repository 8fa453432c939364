"""When shortening what was already sent pays, although the provider's prompt cache then has to begin anew."""

from __future__ import annotations

from dataclasses import dataclass

from costopt.errors import ConfigError
from costopt.pricing import Price, listed

__all__ = ["PromptCache"]


@dataclass(frozen=True, slots=True)
class PromptCache:
    """What a provider takes for input that it has seen, and how soon a change to it must have paid for itself.

    Attributes:
        share: The price of a cached token, as a share of that of a new one, in [0, 1]; 1: there is no prompt cache.
        calls: After how many calls, the next one included.

    Raises:
        ConfigError: If one is out of range.

    Example:
        >>> cache = PromptCache(share=0.1, calls=10)
        >>> cache.pays(removed=900, rest=500), cache.pays(removed=300, rest=500)
        (True, False)
    """

    share: float = 1.0
    calls: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"share={self.share} of the input price for a cached token: give a number from 0 to 1")
        if isinstance(self.calls, bool) or not isinstance(self.calls, int) or self.calls < 1:
            raise ConfigError(f"payback_calls={self.calls!r}: give a whole number of at least 1")

    @classmethod
    def of(cls, model: object, calls: int = 1, price: Price | None = None) -> PromptCache:
        """By a price, else by the price list; a model that is not there is taken as one without a prompt cache.

        Example:
            >>> PromptCache.of("gpt-4o").share, PromptCache.of("my-own-model").share
            (0.5, 1.0)
        """
        if price is None and isinstance(model, str):
            known = listed(model)
            price = known.price() if known else None
        if price is None or price.cached_input is None or not price.input:
            return cls(1.0, calls)
        return cls(min(1.0, float(price.cached_input / price.input)), calls)

    def pays(self, removed: int, rest: int) -> bool:
        """Whether sending `removed` tokens less in these calls outweighs sending `rest` tokens once as new ones.

        Args:
            removed: Tokens that were sent before and will not be again.
            rest: Tokens behind the first change that were sent before and stay.
        """
        return removed * self.share * self.calls > rest * (1 - self.share)
