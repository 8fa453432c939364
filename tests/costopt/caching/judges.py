"""Judges that tests tell what to say, and that tell what they were asked."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence

from costopt import Policy
from costopt.caching.policy import GRID

__all__ = ["SURE_ENOUGH", "TRUSTING", "Oracle", "logit"]

TRUSTING = Policy(1.0, 0.0, tuple(round(1 - p, 3) for p in GRID), 0.6)
"""Takes a score for log odds, and the probability for what it says: 95 % sure is wrong once in twenty times."""

SURE_ENOUGH = 0.49
"""A `max_error` at which what is clear-cut is served, whatever the shipped weights are."""


def logit(probability: float) -> float:
    """The score that `TRUSTING` takes for this probability."""
    return math.log(probability / (1 - probability))


class Oracle:
    """A model of pairs whose scores a test decides; counts passes, and notes the pairs.

    Args:
        score: Of (asked, cached).
        seconds: How long a pass takes.
    """

    def __init__(self, score: Callable[[str, str], float] = lambda asked, cached: 0.99, seconds: float = 0.0) -> None:
        self.score = score
        self.seconds = seconds
        self.passes = 0
        self.pairs: list[tuple[str, str]] = []
        self.threads: set[str] = set()

    def predict(self, sentences: Sequence[tuple[str, str]]) -> list[float]:
        self.passes += 1
        self.pairs += sentences
        self.threads.add(threading.current_thread().name)
        time.sleep(self.seconds)
        return [self.score(asked, cached) for asked, cached in sentences]
