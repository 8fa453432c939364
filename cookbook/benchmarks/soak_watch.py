"""What the soak writes down: answers and their times in tables of fixed size, and what the process holds meanwhile."""

from __future__ import annotations

import gc
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BARE", "COMPRESSED", "HEALTHY", "Books", "Held", "Request", "Slope", "held", "slope"]

_BINS = 10_000  # of a millisecond; what takes longer is in the last
_EXAMPLES = 10
HEALTHY = "healthy"
BARE = "without levers"
COMPRESSED = "LangChain, documents compressed"
# Asked before, mostly: what a cache can answer.
_OFTEN = ("popular", "trap")


@dataclass(slots=True)
class Request:
    """One request under way."""

    kind: str
    way: str
    phase: str
    started: float
    seconds: float = 0.0
    tier: str | None = None
    text: str | None = None
    right: str | None = None

    def answered(self, text: str, tier: str | None, *, right: str) -> None:
        """The answer is there."""
        self.seconds = time.perf_counter() - self.started
        self.text, self.tier, self.right = text, tier, right


@dataclass
class Books:
    """Everything that is known of the requests; its size does not depend on how many there are.

    Args:
        seconds: How long the soak will take at most.
        phases: Names of the faults, and "healthy".
    """

    seconds: int
    phases: Sequence[str]
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.phase = HEALTHY
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._took = {(phase, bare): np.zeros(_BINS + 1, np.int64) for phase in self.phases for bare in (False, True)}
        self._often = np.zeros((2, self.seconds + 120), np.int64)  # asked, served

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def restart(self) -> None:
        """Count the seconds from now on."""
        self._started = time.perf_counter()

    @contextmanager
    def request(self, kind: str, way: str) -> Iterator[Request]:
        """Write down one request, and step over what it raises, which should be nothing."""
        made = Request(kind, way, self.phase, time.perf_counter())
        try:
            yield made
        except Exception as error:
            with self._lock:
                self.counts["errors"] += 1
                _example(self.errors, f"{way}, {made.phase}, {kind}: {error!r}")
            return
        with self._lock:
            self._note(made)

    def _note(self, made: Request) -> None:
        self.counts["requests"] += 1
        self.counts[f"way: {made.way}"] += 1
        self.counts[f"kind: {made.kind}"] += 1
        if made.text != made.right:
            self.counts["wrong"] += 1
            _example(self.wrong, f"{made.way}, {made.phase}, {made.kind}, {made.tier}: {made.text} for {made.right}")
        bare = made.way == BARE
        phase = made.phase if made.phase != HEALTHY else self.phase
        if made.way != COMPRESSED:  # compressing takes its own time, whatever the cache does
            self._took[phase, bare][min(int(made.seconds * 1000), _BINS)] += 1
        if bare:
            return
        self.counts[f"tier: {made.tier}"] += 1
        if made.kind in _OFTEN:
            second = min(int(self.elapsed), self._often.shape[1] - 1)
            self._often[0, second] += 1
            self._often[1, second] += made.tier is not None

    def took_ms(self, share: float, *, bare: bool, faults: bool) -> tuple[float, int]:
        """(milliseconds that this share of the requests stayed below, how many requests there were)."""
        found = sum(
            (table for (phase, plain), table in self._took.items() if plain == bare and (phase != HEALTHY) == faults),
            np.zeros(_BINS + 1, np.int64),
        )
        return _quantile(found, share), int(found.sum())

    def took_in(self, phase: str, share: float, *, bare: bool) -> float:
        """The same of one phase."""
        return _quantile(self._took[phase, bare], share)

    def hit_share(self, since: float, until: float) -> float:
        """Of what had mostly been asked before: the share that was served in these seconds."""
        asked, served = self._often[:, int(since) : int(until)].sum(axis=1)
        return float(served / asked) if asked else 0.0

    def recovered_after(self, since: float, until: float, share: float, window: int) -> float | None:
        """Seconds from `since` until so large a share was served over a window; None if not before `until`."""
        for second in range(int(since), int(until) - window + 1):
            if self.hit_share(second, second + window) >= share:
                return max(0.0, second - since)
        return None


def _quantile(table: Any, share: float) -> float:
    total = table.sum()
    return float(np.searchsorted(np.cumsum(table), share * total) + 1) if total else 0.0


def _example(examples: list[str], text: str) -> None:
    if len(examples) < _EXAMPLES:
        examples.append(text[:500])


@dataclass(frozen=True, slots=True)
class Held:
    """What the process holds at a moment: resident bytes, objects of Python, threads, open files, tasks."""

    at: float
    resident: int
    objects: int
    threads: int
    files: int
    tasks: int


def held(at: float, tasks: Callable[[], int]) -> Held:
    """What is held now, once what nobody refers to is gone."""
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    files = len(os.listdir("/proc/self/fd"))
    return Held(at, resident, len(gc.get_objects()), threading.active_count(), files, tasks())


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth by least squares, and its 95 % interval, widened for samples that resemble the ones before them."""

    value: float
    low: float
    high: float


def slope(times: Sequence[float], values: Sequence[float]) -> Slope:
    """How fast the values grow, per unit of time.

    Example:
        >>> found = slope([0, 1, 2, 3, 4, 5], [1, 1.1, 0.9, 1, 1.1, 0.9])
        >>> found.low < 0 < found.high
        True
    """
    t, y = np.asarray(times, float), np.asarray(values, float)
    t = t - t.mean()
    rate = float(t @ (y - y.mean()) / (t @ t))
    left = y - y.mean() - rate * t
    spread = float(left @ left)
    error = math.sqrt(spread / max(1, len(y) - 2) / float(t @ t))
    alike = 0.0 if not spread else min(0.99, max(0.0, float(left[1:] @ left[:-1]) / spread))
    error *= math.sqrt((1 + alike) / (1 - alike))
    return Slope(rate, rate - 1.96 * error, rate + 1.96 * error)
