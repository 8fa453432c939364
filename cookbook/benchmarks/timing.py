"""The one way in which everything here is timed: side by side, in turn, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Timings", "interleave"]


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds a call took on each side: one figure a round, the median of that round's calls."""

    seconds: Mapping[str, Sequence[float]]

    def median(self, side: str) -> float:
        """Seconds: median over the rounds."""
        return statistics.median(self.seconds[side])

    def ratio(self, side: str, reference: str) -> float:
        """How many times as long as the reference: median over the rounds of each round's ratio."""
        pairs = zip(self.seconds[side], self.seconds[reference], strict=True)
        return statistics.median(own / other for own, other in pairs)

    def show(self, side: str) -> str:
        """The median and the middle half of the rounds, in ms."""
        rounds = sorted(self.seconds[side])
        low, high = rounds[len(rounds) // 4], rounds[-1 - len(rounds) // 4]
        return f"{_ms(self.median(side))} ({_ms(low)}–{_ms(high)})"


def interleave(
    sides: Mapping[str, Callable[[Any], object]], items: Callable[[int], Sequence[Any]], rounds: int
) -> Timings:
    """Time every side in every round (A B C, B C A, ...), so that a busy neighbour slows all alike.

    Args:
        sides: What to time, by name; each is called with one item at a time. If it gives back a function, that is
            called when the clock has stopped: for what it began and what must not run on into the next call.
        items: The items of a round, the same for every side. The first is a warm-up and not timed.
        rounds: How many.
    """
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first, *others = items(number)
        start = number % len(names)
        for name in names[start:] + names[:start]:
            side, laps = sides[name], []
            for item in (first, *others):
                started = time.perf_counter()
                rest = side(item)
                laps.append(time.perf_counter() - started)
                if callable(rest):
                    rest()
            laps = laps[1:]
            seconds[name].append(statistics.median(laps))
    return Timings(seconds)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3f}" if seconds < 0.01 else f"{seconds * 1000:,.1f}"
