"""How long a tier whose calls failed is left alone."""

from __future__ import annotations

import time
from collections.abc import Callable

from costopt.failure import Failure
from costopt.forks import ForkLock

__all__ = ["Rest"]

_TRIES = 3
_SLOW_S = 5.0
_FIRST_REST_S = 1.0
_LONGEST_REST_S = 60.0


class Rest:
    """Whether a tier is being left alone: after three failures in a row, a slow one, or if its provider asked for it.

    The first rest takes a second, each further one twice as long, up to a minute; then one caller tries.

    Args:
        clock: Monotonic seconds.

    Example:
        >>> rest = Rest()
        >>> rest.failed(Failure("rate limit", True, retry_after=30.0))
        >>> rest.resting
        True
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ForkLock()
        self._failures = 0
        self._rest = 0.0
        self._until = 0.0
        self._probing = False

    @property
    def resting(self) -> bool:
        """Whether to leave it alone; asking changes nothing."""
        return self._until > self._clock()

    def claim(self) -> bool:
        """Whether to call it; True for one caller only when a rest is just over."""
        if not self._rest:
            return True
        with self._lock:
            now = self._clock()
            if now < self._until:
                return False
            self._until = now + self._rest  # for the others, until this caller is back
            self._probing = True
            return True

    def succeeded(self) -> None:
        """It answered."""
        if self._failures or self._rest:
            with self._lock:
                self._failures, self._rest, self._until, self._probing = 0, 0.0, 0.0, False

    def failed(self, failure: Failure, seconds: float = 0.0) -> None:
        """It failed after so many seconds."""
        if not failure.of_tier:
            return
        with self._lock:
            self._failures += 1
            if self._rest and not self._probing:
                return  # of 64 calls that fail at once, 63 must not each double the rest
            self._probing = False
            asked = failure.retry_after
            if asked is None and self._failures < _TRIES and seconds < _SLOW_S and not self._rest:
                return
            self._rest = asked or min(max(self._rest * 2, _FIRST_REST_S), _LONGEST_REST_S)
            self._until = self._clock() + self._rest
