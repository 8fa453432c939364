"""What a benchmark hands back: plain data for the report and for `json.dumps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costopt.caching.evaluate import interval

__all__ = ["at_least", "at_most", "share", "table"]

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
