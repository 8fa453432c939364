"""The seam of the readers: what one format is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from costopt.audit.record import Record

__all__ = ["Format"]


@dataclass(frozen=True, slots=True)
class Format:
    """One format of logs.

    Attributes:
        name: What the command line calls it.
        fields: The names that are known in a row; others are counted and named.
        fits: Whether a row is of this format.
        read: The attempt in a row; None if the row is none, but for instance a step of a trace. It may raise
            `ValueError`, whose text says what is wrong with the row.
    """

    name: str
    fields: frozenset[str]
    fits: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], Record | None]
