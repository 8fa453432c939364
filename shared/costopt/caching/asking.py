"""Asking the store and the embedder: within their time, not while they rest from faults, stepping over what fails."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from costopt.caching.breaker import CircuitBreaker
from costopt.caching.entry import Entry, decode
from costopt.caching.judging import SLOW_S, wait
from costopt.caching.request import CacheRequest
from costopt.caching.results import STEPPED_OVER, Missed, Tally
from costopt.caching.steps import Flow, Step
from costopt.caching.store import Store, Vector
from costopt.embedding import SharedEmbedder
from costopt.errors import EntryError

__all__ = ["SEARCH_SHARE_S", "Asking", "aside"]

_log = logging.getLogger("costopt.caching")

# What the search keeps of the time budget when the embedder is waited for.
SEARCH_SHARE_S = 0.1
# Loading the embedder for the first time is no fault: the first caller waits for it, up to this long.
_LOAD_S = 15.0
# A question costs four round trips, of which two can be left out; they are, once one takes this share of the budget.
_LEISURE_SHARE = 0.16
_READS = ("lookup", "search")
_FLUSH_S = 5.0
_GIVEN_UP = 256

T = TypeVar("T")


class Asking:
    """The store and the embedder of one cache, as its flows ask them.

    Args:
        store: Where entries lie.
        embedder: Turns texts into vectors; None for the exact tier only.
        time_budget: Seconds a lookup may take.
    """

    def __init__(self, store: Store, embedder: SharedEmbedder | None, time_budget: float) -> None:
        self._store = store
        self._embedder = embedder
        self._time_budget = time_budget
        self.tally = Tally()
        self.store_breaker = CircuitBreaker()
        self._embedder_breaker = CircuitBreaker()
        self._flush_lock = threading.Lock()
        self._flushed_at = time.monotonic()
        self._load_until: float | None = None
        self._pace = 0.0  # seconds that the last read of the store took
        self._given_up: deque[str] = deque(maxlen=_GIVEN_UP)  # keys whose vectors took too long

    @property
    def at_leisure(self) -> bool:
        """Whether there is time for a round trip that can be left out."""
        return self._pace <= _LEISURE_SHARE * self._time_budget

    def gave_up(self, request: CacheRequest) -> bool:
        """Whether somebody has waited for this vector in vain."""
        return request.key in self._given_up

    def guarded(self, kind: str, flow: Flow[T]) -> Flow[T | None]:
        """What fails below is stepped over where it fails; what nobody thought of, here."""
        try:
            return (yield from flow)
        except Exception as error:
            self.stepped_over(kind, error)
            return None

    def vector(self, request: CacheRequest, deadline: float) -> Flow[Vector | Missed]:
        """The embedding of the text, or why there is none."""
        text, embedder = request.text, self._embedder
        if text is None or embedder is None:
            return Missed("exact only")
        if not self._embedder_breaker.allows():
            return STEPPED_OVER
        started, passes = time.monotonic(), embedder.calls
        future: Future[Vector] | None = None
        try:
            if not embedder.ready:
                yield wait(embedder.submit("load"), self.patience_for_loading(started))
                deadline += time.monotonic() - started
            if not embedder.fits(text):
                return Missed("too long")
            future = embedder.submit(text)
            vector: Vector = yield wait(future, max(SLOW_S, deadline - time.monotonic() - SEARCH_SHARE_S))
        except Exception as error:
            if future is not None:
                # What nobody waits for need not be computed.
                future.cancel()
                self._given_up.append(request.key)
            # Who waits in a long queue that moves has met no fault: the next caller may be served at once.
            if embedder.calls == passes or not isinstance(error, TimeoutError):
                self._embedder_breaker.failed(slow=time.monotonic() - started > SLOW_S)
            self.stepped_over("embed", error)
            return STEPPED_OVER
        self._embedder_breaker.succeeded()
        return vector

    def patience_for_loading(self, now: float) -> float:
        """Loading is no fault, and the first callers wait for it; but once, and not each time anew if it hangs."""
        if self._load_until is None:
            self._load_until = now + _LOAD_S
        return max(SLOW_S, self._load_until - now)

    def ask_store(self, kind: str, step: Step) -> Flow[Any]:
        """Carry out a step on the store; None if it fails or the breaker is open."""
        if not self.store_breaker.allows():
            return None
        started = time.monotonic()
        try:
            value = yield step
        except Exception as error:
            waited = time.monotonic() - started > SLOW_S
            # A refused write (out of memory, read-only) is no reason to stop reading.
            if waited or kind in _READS:
                self.store_breaker.failed(slow=waited)
            self.stepped_over(kind, error)
            return None
        if kind in _READS:
            self._pace = time.monotonic() - started
            self.store_breaker.succeeded()
        else:
            # A write that works says nothing about a search that does not; a read may tell at once.
            self.store_breaker.probe_now()
        return value

    def decoded(self, data: bytes | None) -> Entry | None:
        """The entry; None if there is none, or it cannot be read, or it has expired."""
        if data is None:
            return None
        try:
            entry = decode(data)
        except EntryError as error:
            self.stepped_over("entry", error)
            return None
        # Stores forget by themselves, but a search may still name what expired a moment ago.
        return None if entry.expires is not None and entry.expires <= time.time() else entry

    def stepped_over(self, kind: str, error: Exception) -> None:
        """Count a failure, and log the first of its kind."""
        if self.tally.fail(f"{kind}: {type(error).__name__}"):
            _log.warning(
                "costopt: %s failed and was stepped over (%s: %s); further failures of this kind are only counted",
                kind,
                type(error).__name__,
                error,
            )

    def flush(self) -> Flow[None]:
        """Add this object's sums to the totals in the store, where `costopt cache stats` reads them."""
        with self._flush_lock:
            self._flushed_at = time.monotonic()
            totals = self.tally.unwritten()
        if totals and not (yield from self.ask_store("totals", aside(lambda: self._add(totals)))):
            self.tally.put_back(totals)

    def _add(self, totals: Mapping[str, int]) -> bool:
        self._store.add_totals(totals)
        return True

    @property
    def flush_is_due(self) -> bool:
        """Whether the sums have waited long enough, and there is time."""
        return self.at_leisure and time.monotonic() - self._flushed_at > _FLUSH_S


def aside(run: Callable[[], Any]) -> Step:
    """A step for which there is a blocking way only."""
    return Step(run, lambda: asyncio.to_thread(run))
