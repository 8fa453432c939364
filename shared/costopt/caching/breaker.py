"""Circuit breaker: after a failure that cost time, ask again only now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["CircuitBreaker"]

_TRIES = 3
_FIRST_REST_S = 1.0
# Well under 30 s, so that a store that is back is in use again within half a minute.
_LONGEST_REST_S = 15.0


class CircuitBreaker:
    """Lets calls through while they succeed; once they fail, one probe at a time.

    Opens at once on a failure that took time (a caller waited for it), or on the third quick failure in a
    row. While open it rests for 1, 2, 4, ... up to 15 seconds between probes; one success closes it.

    Args:
        clock: Monotonic seconds.

    Example:
        >>> breaker = CircuitBreaker()
        >>> breaker.failed(slow=True)
        >>> breaker.allows()
        False
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._rest = 0.0
        self._open_until = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are being held back."""
        return self._rest > 0.0

    @property
    def resting(self) -> bool:
        """Whether the next call would be held back; unlike `allows`, asking changes nothing."""
        return self._rest > 0.0 and self._clock() < self._open_until

    def allows(self) -> bool:
        """Whether to make the call; True for one caller only while a probe is due."""
        if not self._rest:
            return True
        with self._lock:
            now = self._clock()
            if self._rest and now < self._open_until:
                return False
            # This caller probes; the next one is let through only after another rest, should the
            # outcome of this probe never be reported.
            self._open_until = now + self._rest
            self._probing = self._rest > 0.0
            return True

    def succeeded(self) -> None:
        """Report that a call came back."""
        if not self._failures:
            return
        with self._lock:
            self._failures = 0
            self._rest = self._open_until = 0.0
            self._probing = False

    def probe_now(self) -> None:
        """Let the next call through, without calling the matter mended: something of another kind came back."""
        with self._lock:
            if self._rest:
                self._open_until = 0.0

    def failed(self, *, slow: bool) -> None:
        """Report that a call failed; `slow` if somebody had to wait for it."""
        with self._lock:
            self._failures += 1
            if self._rest and not self._probing:
                # Let through before it opened: of 64 calls that fail at once, 63 must not each double the rest.
                return
            self._probing = False
            if self._rest or slow or self._failures >= _TRIES:
                self._rest = min(max(self._rest * 2, _FIRST_REST_S), _LONGEST_REST_S)
                self._open_until = self._clock() + self._rest
