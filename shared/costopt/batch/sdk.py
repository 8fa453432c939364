"""What the providers' SDKs have in common: their exceptions as ours, and results read line by line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from costopt.errors import BatchError, BatchNotFoundError, BatchTooLargeError, BatchUnavailableError

__all__ = ["json_lines", "translated", "whole"]

T = TypeVar("T")

_TRANSPORTS = frozenset(("httpcore", "httpcore2", "httpx", "httpx2"))
_LATER = frozenset((408, 409, 425, 429))


@contextmanager
def translated(sdk: Any, what: str) -> Iterator[None]:
    """An SDK's exceptions as ours.

    Args:
        sdk: The module `openai` or `anthropic`.
        what: What was being done, for the message.
    """
    base = sdk.OpenAIError if hasattr(sdk, "OpenAIError") else sdk.AnthropicError
    try:
        yield
    except sdk.APIStatusError as error:
        raise _of_status(error, what) from error
    except sdk.APIConnectionError as error:
        raise BatchUnavailableError(f"{what}: {error.__cause__ or error}") from error
    except json.JSONDecodeError as error:
        raise BatchUnavailableError(f"{what}: the answer is not whole ({error})") from error
    except base as error:
        raise BatchError(f"{what}: {error}") from error
    except Exception as error:
        # Amid a download the SDKs let through what their transport raises.
        if type(error).__module__.partition(".")[0] not in _TRANSPORTS:
            raise
        raise BatchUnavailableError(f"{what}: {error}") from error


def _of_status(error: Any, what: str) -> BatchError:
    status, message = error.status_code, f"{what}: {error.message}"
    if status == 413:
        return BatchTooLargeError(message)
    if status == 404:
        mend = "use the key it was made with; or give it up: cancel the job, and hand it in again"
        return BatchNotFoundError(f"{message}; {mend}")
    if getattr(error, "code", None) == "insufficient_quota":
        return BatchError(f"{message}; add credit to the account, then run this again: nothing is lost")
    if status in _LATER:
        return BatchUnavailableError(message, retry_after=_seconds(error), refused=status != 408)
    if status >= 500:
        return BatchUnavailableError(message, retry_after=_seconds(error))
    if status in (401, 403):
        return BatchError(f"{message}; give a key that may do this, then run this again: nothing is lost")
    return BatchError(message)


def _seconds(error: Any) -> float | None:
    said = error.response.headers.get("retry-after", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:  # it may also be a date
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None


def whole(answer: T, what: str) -> T:
    """An SDK's object as it is; what the SDK could not read is handed on by it as text.

    Raises:
        BatchUnavailableError: If it was such a text, cut off perhaps.
    """
    if isinstance(answer, str):
        raise BatchUnavailableError(f"{what}: the answer is not whole")
    return answer


def json_lines(chunks: Iterable[bytes], what: str) -> Iterator[dict[str, Any]]:
    r"""The objects of JSON lines as they arrive.

    Split at the line feed only: the transports' own splitters also take U+2028 and its like, which may stand in a text.

    Raises:
        BatchUnavailableError: If a line is cut off: the connection was, and the rest is to be had again.

    Example:
        >>> list(json_lines([b'{"a": 1}\n{"a"', b": 2}\n"], "reading"))
        [{'a': 1}, {'a': 2}]
    """
    left = b""
    for chunk in chunks:
        *lines, left = (left + chunk).split(b"\n")
        for line in lines:
            if line.strip():
                yield _object(line, what)
    if left.strip():
        yield _object(left, what)


def _object(line: bytes, what: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BatchUnavailableError(f"{what}: a line is not whole ({error})") from None
    if not isinstance(row, dict):
        raise BatchUnavailableError(f"{what}: a line is no object")
    return row
