"""How long to wait between two rounds."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from costopt.batch.rounds import Step
from costopt.errors import ConfigError

__all__ = ["Backoff", "Pace"]


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waiting ever longer while nothing changes.

    Attributes:
        first: Seconds after a round in which something changed.
        most: Seconds, at most.
        factor: How much longer each wait is than the one before.
        patience: Seconds for which the provider may be out of reach before waiting ends with its error. The job is
            not lost by that: it goes on when it is collected again.

    Raises:
        ConfigError: If these make no sense.

    Example:
        >>> Backoff(first=1, most=60).most
        60
    """

    first: float = 5.0
    most: float = 120.0
    factor: float = 1.5
    patience: float = 3600.0

    def __post_init__(self) -> None:
        if not (0 < self.first <= self.most < math.inf and self.factor >= 1 and self.patience >= 0):
            raise ConfigError(f"{self}: give 0 < first <= most, factor >= 1 and patience >= 0, in seconds")


class Pace:
    """The waits of one job."""

    def __init__(self, backoff: Backoff, clock: Callable[[], float] = time.monotonic) -> None:
        self._backoff = backoff
        self._clock = clock
        self._wait = backoff.first
        self._troubled: float | None = None

    def after(self, step: Step) -> float:
        """Seconds to wait after a round.

        Raises:
            BatchUnavailableError: If the provider has been out of reach for longer than patience lasts.
        """
        now = self._clock()
        if step.trouble is None or step.moved or step.reached:
            self._troubled = None
        elif self._troubled is None:
            self._troubled = now
        elif now - self._troubled > self._backoff.patience:
            raise step.trouble
        wait = self._wait = self._backoff.first if step.moved else min(self._backoff.most, self._wait)
        self._wait = min(self._backoff.most, self._wait * self._backoff.factor)
        asked = step.trouble.retry_after if step.trouble else None
        # Many processes must not ask at one moment.
        if asked is not None and asked > wait:  # heeded in full, but for what no provider means
            return min(asked, max(self._backoff.most, 600.0)) * random.uniform(1.0, 1.1)  # noqa: S311
        return wait * random.uniform(0.9, 1.1)  # noqa: S311
