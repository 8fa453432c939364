"""What a benchmark hands back: plain data for the report and for `json.dumps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cookbook.benchmarks.resample import Measured
from costopt.caching.evaluate import interval

__all__ = ["at_least", "at_most", "percent", "share", "table"]

_SMALL = 0.01

Bar = dict[str, Any]
Table = dict[str, Any]


def at_most(demand: str, figure: float, limit: float, unit: str = "") -> Bar:
    """A demand with an upper bar."""
    return {
        "demand": demand,
        "figure": figure,
        "bar": f"at most {limit:,g}{unit}",
        "unit": unit,
        "holds": figure <= limit,
    }


def at_least(demand: str, figure: float, limit: float, unit: str = "") -> Bar:
    """A demand with a lower bar."""
    return {
        "demand": demand,
        "figure": figure,
        "bar": f"at least {limit:,g}{unit}",
        "unit": unit,
        "holds": figure >= limit,
    }


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table; its cells are text."""
    return {"title": title, "columns": list(columns), "rows": [list(row) for row in rows]}


def share(part: int, of: int) -> str:
    """A share and its 95 % interval, as text."""
    bounds = interval(part, of)
    return "–" if bounds is None else f"{part / of:.3f} ({bounds[0]:.3f}–{bounds[1]:.3f})"


def percent(figure: Measured, *, sign: bool = False) -> str:
    """A share and its interval in percent, as text; finer where all of it is small."""
    if figure.value == figure.low == figure.high == 0:
        return "0 %"
    digits = 2 if max(abs(figure.value), abs(figure.low), abs(figure.high)) < _SMALL else 1
    value, low, high = (_signed(100 * each, digits, sign) for each in (figure.value, figure.low, figure.high))
    return f"{value} %" if figure.low == figure.high else f"{value} % ({low} to {high})"


def _signed(value: float, digits: int, sign: bool) -> str:
    shown = round(value, digits) or 0.0  # no minus before a nought
    return f"{shown:{'+' if sign and shown else ''}.{digits}f}"
