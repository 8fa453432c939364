"""When a call fails: why, whether another tier should try, and how long the one that failed is left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Failure", "Rest", "failure_of"]

_OVERFLOWS = ("context_length_exceeded", "maximum context length", "context window", "prompt is too long")
_BY_STATUS = {401: "authentication", 403: "authentication", 404: "not found", 408: "timeout", 429: "rate limit"}
_BY_NAME = (
    ("ContextOverflow", "context overflow"),
    ("ContextWindow", "context overflow"),
    ("ContextLength", "context overflow"),
    ("Timeout", "timeout"),
    ("RateLimit", "rate limit"),
    ("Connect", "connection"),
    ("RemoteProtocol", "connection"),
    ("ReadError", "connection"),
    ("Overloaded", "server error"),
    ("InternalServer", "server error"),
    ("BudgetExceeded", "budget"),
)
# Says nothing of the tier's health.
_OF_THE_REQUEST = ("context overflow", "invalid request", "budget")
_TRIES = 3
_SLOW_S = 5.0
_FIRST_REST_S = 1.0
_LONGEST_REST_S = 60.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed.

    Attributes:
        cause: "rate limit", "timeout", "server error", "connection", "context overflow", "authentication",
            "not found", "invalid request", "budget", or the error's class.
        of_tier: Whether it says something of the tier, and not only of this request.
        retry_after: Seconds that the provider asked to be left alone; None if it did not.
    """

    cause: str
    of_tier: bool
    retry_after: float | None = None


def failure_of(error: BaseException) -> Failure:
    """What an error of any provider's SDK means, by its status, its class or its words.

    Example:
        >>> failure_of(TimeoutError()).cause, failure_of(ValueError("maximum context length is 8192")).cause
        ('timeout', 'context overflow')
    """
    cause = _cause(error)
    return Failure(cause, cause not in _OF_THE_REQUEST, _retry_after(error))


def _cause(error: BaseException) -> str:
    names, said = [kind.__name__ for kind in type(error).__mro__], str(error).lower()
    if any(words in said for words in _OVERFLOWS):
        return "context overflow"
    status = _status(error)
    if status is not None:
        if status in _BY_STATUS:
            return _BY_STATUS[status]
        if status >= 500:
            return "timeout" if status == 504 else "server error"
        return "invalid request"
    for part, cause in _BY_NAME:
        if any(part in name for name in names):
            return cause
    # An error inside a stream has words in place of a status.
    if "rate limit" in said or "rate_limit" in said:
        return "rate limit"
    return f"error: {type(error).__name__}"


def _status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 400 <= value < 600:
                return value
    return None


def _retry_after(error: BaseException) -> float | None:
    headers: Any = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return None
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return min(_LONGEST_REST_S, max(0.0, float(headers[name]) * scale))
        except (KeyError, TypeError, ValueError):
            continue
    return None


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
        self._lock = threading.Lock()
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
