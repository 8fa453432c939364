"""What an adapter's compressor has done so far, and how often it stepped aside."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from costopt.forks import ForkLock

__all__ = ["Books", "CompressionStats"]

_log = logging.getLogger("costopt.compression")


@dataclass(frozen=True, slots=True)
class CompressionStats:
    """What a compressor has done so far.

    Attributes:
        calls: How often it was asked.
        tokens_before: Of all that it was given.
        tokens_after: Of all that it gave back.
        failures: How often it failed, and gave back what it was given; those tokens are in neither sum.

    Example:
        >>> print(CompressionStats(calls=2, tokens_before=1_000, tokens_after=250))
        2 calls, 1000 tokens in, 250 out (75.0% saved), 0 failures
    """

    calls: int = 0
    tokens_before: int = 0
    tokens_after: int = 0
    failures: int = 0

    @property
    def saved_tokens(self) -> int:
        """How many tokens fewer were sent."""
        return self.tokens_before - self.tokens_after

    def __str__(self) -> str:
        share = self.saved_tokens / self.tokens_before if self.tokens_before else 0.0
        return (
            f"{self.calls} calls, {self.tokens_before} tokens in, {self.tokens_after} out ({share:.1%} saved), "
            f"{self.failures} failures"
        )


class Books:
    """The books of one compressor. Safe to use from any thread.

    Args:
        whose: What the log calls it.
        told: Called with the tokens before and after, each time; what it raises is passed over.
    """

    def __init__(self, whose: str, told: Callable[[int, int], object] | None = None) -> None:
        self._whose = whose
        self._told = told
        self._lock = ForkLock()
        self._stats = CompressionStats()

    def done(self, before: int, after: int) -> None:
        """So many tokens came in, and so many went out."""
        self._add(before, after, 0)
        if self._told is not None:
            with suppress(Exception):
                self._told(before, after)

    def failed(self, error: Exception) -> None:
        """It failed, and what it was given goes on as it was; logged the first time."""
        if self._add(0, 0, 1).failures == 1:
            _log.warning("costopt: %s failed and sends all as it is: %s", self._whose, error, exc_info=error)

    def _add(self, before: int, after: int, failures: int) -> CompressionStats:
        with self._lock:
            old = self._stats
            self._stats = CompressionStats(
                old.calls + 1, old.tokens_before + before, old.tokens_after + after, old.failures + failures
            )
            return self._stats

    def stats(self) -> CompressionStats:
        """All of it so far."""
        return self._stats
