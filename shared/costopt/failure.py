"""What a failed call means: why it failed, whether to blame who was asked, and whether it cost anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Failure", "failure_of"]

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
# Says nothing of the health of who was asked.
_OF_THE_REQUEST = ("context overflow", "invalid request", "budget")
# Parts of the names of errors where no connection came to be.
_UNREACHED = ("ConnectError", "ConnectTimeout", "ConnectorError", "ConnectionRefused", "EndpointConnection", "gaierror")
_LONGEST_WAIT_S = 60.0
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed.

    Attributes:
        cause: "rate limit", "timeout", "server error", "connection", "context overflow", "authentication",
            "not found", "invalid request", "budget", or the error's class.
        of_tier: Whether it says something of who was asked, and not only of this request.
        retry_after: Seconds that the provider asked to be left alone; None if it did not.
        unpaid: Whether it surely cost nothing: the provider answered with an error, or was not reached. A model that
            timed out, or whose connection broke, may well have answered, and is billed.
    """

    cause: str
    of_tier: bool
    retry_after: float | None = None
    unpaid: bool = False


def failure_of(error: BaseException) -> Failure:
    """What an error of any provider's SDK means, by its status, its class or its words.

    Example:
        >>> failure_of(TimeoutError()).cause, failure_of(ValueError("maximum context length is 8192")).cause
        ('timeout', 'context overflow')
    """
    cause = _cause(error)
    return Failure(cause, cause not in _OF_THE_REQUEST, _retry_after(error), _unpaid(error, cause))


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


def _unpaid(error: BaseException, cause: str) -> bool:
    if cause not in ("timeout", "connection") and not cause.startswith("error: "):
        return True
    for each in _causes(error):
        status = _status(each)
        if status is not None:
            return _BY_STATUS.get(status) != "timeout" and status != 504
        if any(part in kind.__name__ for kind in type(each).__mro__ for part in _UNREACHED):
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those behind it: SDKs wrap what their HTTP client raised, and engines what their SDK did."""
    found: BaseException | None = error
    for _ in range(_DEEPEST):
        if found is None:
            return
        yield found
        found = found.__cause__


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
            return min(_LONGEST_WAIT_S, max(0.0, float(headers[name]) * scale))
        except (KeyError, TypeError, ValueError):
            continue
    return None
