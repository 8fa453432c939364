"""A spending limit where LlamaIndex asks before each call: as a rate limiter."""

from __future__ import annotations

from llama_index.core.rate_limiter import BaseRateLimiter

from costopt.audit.guard import Guard, checked_guard

__all__ = ["SpendingGate"]


class SpendingGate(BaseRateLimiter):
    """Lets calls of an LLM or embedding model through until a budget is spent, as `rate_limiter=`.

    Args:
        limit: A `costopt.audit.SpendingLimit`.

    Raises:
        ConfigError: If it is no limit.
        BudgetExceededError: From each call, once the limit is reached.

    Example:
        >>> from costopt.audit import Ledger, SpendingLimit
        >>> from llama_index.core.llms import MockLLM
        >>> llm = MockLLM()
        >>> llm.rate_limiter = SpendingGate(SpendingLimit(Ledger(tmp / "ledger.db"), "10", "month"))
        >>> llm.complete("Hello").text
        'Hello'
    """

    def __init__(self, limit: Guard) -> None:
        self._limit = checked_guard(limit)

    def acquire(self, num_tokens: int = 0) -> None:
        """Pass, or raise."""
        self._limit.check()

    async def async_acquire(self, num_tokens: int = 0) -> None:
        """Pass, or raise."""
        self._limit.check()
