"""The seam between the cache and the place where its entries lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from costopt.caching.entry import Entry
from costopt.caching.request import CacheRequest

__all__ = ["MAX_EVIDENCE", "Neighbour", "Record", "Selector", "Store", "StoreSize", "Vector"]

Vector = NDArray[np.float32]
"""Shape (dimension,), unit length."""

MAX_EVIDENCE = 500
"""Pairs that a store keeps of one scope, the latest: what was learned from older ones may hold no more."""


@dataclass(frozen=True, slots=True)
class Record:
    """An entry on its way into a store.

    Attributes:
        entry: What is stored.
        data: The same, encoded: this is what lies in the store.
        vector: Embedding of its text; None if it shall be found by exact match only.
        ttl: Seconds until it expires, counted from now, whether or not it is read; None for ever.
    """

    entry: Entry
    data: bytes
    vector: Vector | None
    ttl: float | None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A stored entry near the question and not rejected for it; not yet checked: its bytes may be anything."""

    data: bytes
    similarity: float


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries: those that match every field that is not None. Fields are digests, as in an entry's tags."""

    tag: str | None = None
    model: str | None = None
    tenant: str | None = None

    @property
    def whole(self) -> bool:
        """Whether all of a tenant, or everything, is meant: then what was learned from their texts goes, too."""
        return self.tag is None and self.model is None


@dataclass(frozen=True, slots=True)
class StoreSize:
    """How much lies in a store: entries, and bytes as far as the store can tell (None if it cannot)."""

    entries: int
    bytes: int | None


class Store(Protocol):
    """Where entries lie. What fails raises `StoreError`; what takes too long, `StoreTimeoutError`."""

    def bind(self, embedder: str, dimension: int) -> None: ...
    def get(self, request: CacheRequest) -> bytes | None: ...
    async def aget(self, request: CacheRequest) -> bytes | None: ...
    def search(self, request: CacheRequest, vector: Vector, k: int) -> Sequence[Neighbour]: ...
    async def asearch(self, request: CacheRequest, vector: Vector, k: int) -> Sequence[Neighbour]: ...
    def put(self, record: Record) -> bool: ...
    async def aput(self, record: Record) -> bool: ...
    def claim(self, request: CacheRequest, owner: str, seconds: float) -> bool: ...
    async def aclaim(self, request: CacheRequest, owner: str, seconds: float) -> bool: ...
    def release(self, request: CacheRequest, owner: str) -> None: ...
    def reject(self, tenant: str, key: str, other: str) -> None: ...
    def add_evidence(self, tenant: str, scope: str, data: bytes) -> None: ...
    def evidence(self, tenant: str, scope: str) -> Sequence[bytes]: ...
    def all_evidence(self) -> Sequence[bytes]: ...
    def remove(self, selector: Selector) -> int: ...
    def clear(self) -> None: ...
    def size(self) -> StoreSize: ...
    def add_totals(self, totals: Mapping[str, int]) -> None: ...
    def totals(self) -> Mapping[str, int]: ...
    def open(self) -> None: ...
    def close(self) -> None: ...
    async def aclose(self) -> None: ...
