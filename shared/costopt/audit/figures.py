"""Figures as people read them, and where in the report each of them stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

__all__ = ["KINDS", "at", "compact", "count", "percent", "shown", "usd"]


def usd(value: Any) -> str:
    """Dollars: cents from a dollar on, four digits below, so that little is not shown as nothing.

    Example:
        >>> usd(Decimal("1234.5")), usd(Decimal("0.01234")), usd(Decimal("-2"))
        ('$1,234.50', '$0.0123', '-$2.00')
    """
    amount = Decimal(str(value))
    digits = 2 if abs(amount) >= 1 or not amount else 4
    sign = "-" if amount < 0 and round(amount, digits) else ""
    return f"{sign}${abs(amount):,.{digits}f}"


def percent(value: Any) -> str:
    """A fraction in hundredths."""
    return f"{float(value):.1%}"


def count(value: Any) -> str:
    """A whole number, or one with a digit after the point."""
    return f"{value:,}"


def compact(value: Any) -> str:
    """A large number by its first digits.

    Example:
        >>> compact(999), compact(1_234_567), compact(2_500_000_000)
        ('999', '1.23 M', '2.5 bn')
    """
    for size, name in ((10**9, "bn"), (10**6, "M"), (10**4, "k")):
        if abs(value) >= size:
            unit = 1_000 if name == "k" else size
            return f"{value / unit:.3g} {name}"
    return f"{value:,}"


def plain(value: Any) -> str:
    """As it is."""
    return str(value)


def date(value: Any) -> str:
    """The day of a moment in ISO 8601."""
    return str(value)[:10]


KINDS: Mapping[str, Callable[[Any], str]] = {
    "usd": usd, "percent": percent, "count": count, "compact": compact, "plain": plain, "date": date
}  # fmt: skip


def shown(value: Any, kind: str) -> str:
    """A value as text; "unknown" for what is not known."""
    return "unknown" if value is None else KINDS[kind](value)


def at(report: Any, path: str) -> Any:
    """What stands in a report under a path such as "spend.models.0.usd".

    Example:
        >>> at({"spend": {"models": [{"usd": 3}]}}, "spend.models.0.usd")
        3
    """
    for part in path.split("."):
        report = report[int(part)] if isinstance(report, list | tuple) else report[part]
    return report
