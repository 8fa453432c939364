"""Money in columns: whole picodollars, so that a million rows add up exactly."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PICO", "Pico", "dollars", "picodollars", "total"]

Pico = NDArray[np.int64]

PICO = 10**12
_LOW_BITS = 20


def picodollars(amount: Decimal | float | int) -> int:
    """Whole picodollars; a price of so many dollars per million tokens is a million times as many for a token."""
    return round(Decimal(repr(amount)) * PICO) if isinstance(amount, float) else round(amount * PICO)


def dollars(amount: int) -> Decimal:
    """US dollars, to the hundredth of a cent's hundredth.

    Example:
        >>> dollars(1_500_000_000_000)
        Decimal('1.500000')
    """
    return (Decimal(amount) / PICO).quantize(Decimal("0.000001"))


def total(amounts: NDArray[Any]) -> int:
    """The sum, which may be beyond 64 bits."""
    whole = amounts.astype(np.int64, copy=False)
    return (int((whole >> _LOW_BITS).sum()) << _LOW_BITS) + int((whole & ((1 << _LOW_BITS) - 1)).sum())
