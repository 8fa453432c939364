"""Figures out of the sections as they were recorded: their tables are text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cookbook.benchmarks.resample import Measured
from costopt.caching.evaluate import interval

__all__ = ["cells", "exactly", "names", "number", "share_of", "titles"]

Record = Mapping[str, Any]

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def titles(record: Record, start: str) -> list[str]:
    """The titles of a section's tables that begin so."""
    return [each["title"] for each in record["found"]["tables"] if each["title"].startswith(start)]


def names(record: Record, title: str, start: str) -> list[str]:
    """The rows of a section's tables of this title that begin so, by their first cells."""
    tables = [each for each in record["found"]["tables"] if each["title"].startswith(title)]
    return [row[0] for each in tables for row in each["rows"] if row[0].startswith(start)]


def cells(record: Record, title: str, row: str) -> dict[str, str]:
    """A row of a section's table by its column, the first of a name; {} if absent.

    Args:
        record: The section.
        title: How the table's title begins.
        row: What the row's first cell is.
    """
    for each in record["found"]["tables"]:
        if each["title"].startswith(title):
            for found in each["rows"]:
                if found[0] == row:
                    pairs = list(zip(each["columns"], found, strict=True))
                    return dict(reversed(pairs))
    return {}


def number(cell: str) -> float:
    """The first number in a text; a percentage as a share.

    Raises:
        ValueError: If there is none.
    """
    found = _NUMBER.search(cell)
    if found is None:
        raise ValueError(f"there is no number in {cell!r}")
    value = float(found[0].replace(",", ""))
    return value / 100 if cell[found.end() :].lstrip().startswith("%") else value


def share_of(part: float, of: float) -> Measured:
    """A share of independent cases, with Wilson's interval."""
    bounds = interval(round(part), round(of)) or (0.0, 1.0)
    return Measured(part / of, *bounds)


def exactly(value: float) -> Measured:
    """A figure that no chance is in."""
    return Measured(value, value, value)
