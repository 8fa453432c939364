"""What a model call costs: tokens times the price list of genai-prices, as Decimal US dollars.

The price list is the snapshot inside the installed genai-prices; nothing is fetched. A model it does not know
has no price, and that is None: never zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

__all__ = ["Usage", "cost"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call, as the provider counted them.

    Attributes:
        input_tokens: All input, the cached part included.
        output_tokens: All output, reasoning included.
        cached_tokens: The part of the input that was read from the provider's prompt cache.

    Example:
        >>> Usage(10, 5).total_tokens
        15
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output together."""
        return self.input_tokens + self.output_tokens


def cost(model: str, usage: Usage) -> Decimal | None:
    """What a call cost in US dollars; None if the price of `model` is not known.

    Example:
        >>> cost("gpt-4o-mini", Usage(input_tokens=1_000_000)) == Decimal("0.15")
        True
        >>> cost("my-own-model", Usage(input_tokens=1_000_000)) is None
        True
    """
    from genai_prices import Usage as PricedUsage
    from genai_prices import calc_price

    priced = PricedUsage(
        input_tokens=usage.input_tokens,
        # The price list wants the cached part only where there is one.
        cache_read_tokens=usage.cached_tokens or None,
        output_tokens=usage.output_tokens,
    )
    try:
        return Decimal(calc_price(priced, model_ref=model).total_price)
    except (LookupError, ValueError):
        return None
