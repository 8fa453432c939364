"""Rows into lots that the provider takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from costopt.batch.protocol import Limits

__all__ = ["Row", "row_bytes", "split"]

# What stands around a body in either provider's format, the custom id of 57 characters included, is under 200 bytes.
_AROUND = 256


@dataclass(frozen=True, slots=True)
class Row:
    """A request that waits to be sent: its key, where it goes, for which model, and how many bytes its body has."""

    key: str
    endpoint: str
    model: str
    bytes: int


def row_bytes(row: Row) -> int:
    """How many bytes it takes in a lot, at most."""
    return row.bytes + len(row.endpoint) + _AROUND


def split(rows: Iterable[Row], limits: Limits) -> Iterator[tuple[str, list[str]]]:
    """Lots within the limits, each for one endpoint and, if the provider wants it, one model; rows keep their order.

    A row that alone is over the limit of bytes must have been taken out before.

    Yields:
        The endpoint and the keys of each lot.

    Example:
        >>> rows = [Row(f"k{n}", "/v1/messages", "claude-haiku-4-5", 100) for n in range(5)]
        >>> [keys for _, keys in split(rows, Limits(rows=2, bytes=10_000, one_model=False))]
        [['k0', 'k1'], ['k2', 'k3'], ['k4']]
    """
    kept: dict[tuple[str, str], list[str]] = {}
    sizes: dict[tuple[str, str], int] = {}
    for row in rows:
        group = (row.endpoint, row.model if limits.one_model else "")
        keys, size = kept.setdefault(group, []), row_bytes(row)
        if keys and (len(keys) >= limits.rows or sizes[group] + size > limits.bytes):
            yield group[0], keys
            kept[group] = keys = []
            sizes[group] = 0
        keys.append(row.key)
        sizes[group] = sizes.get(group, 0) + size
    for (endpoint, _), keys in kept.items():
        if keys:
            yield endpoint, keys
