"""What an `Optimizer` makes of LLMs: one that asks the cache first, and what else an application needs."""

from __future__ import annotations

import threading
from typing import Any

from llama_index.core.llms.llm import LLM
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index_instrumentation import get_dispatcher

from costopt.audit.ledger import Ledger
from costopt.audit.recorder import Guard
from costopt.errors import ConfigError
from costopt.optimizer import Parts
from llamaindex_costopt.batch_runner import BatchRunner
from llamaindex_costopt.cached import CachedLLM
from llamaindex_costopt.compressor_postprocessor import CompressorPostprocessor
from llamaindex_costopt.cost_tracker import CostTracker
from llamaindex_costopt.router import RouterLLM
from llamaindex_costopt.spending_gate import SpendingGate

__all__ = ["LlamaIndexApp"]

_installing = threading.Lock()


class LlamaIndexApp:
    """The pieces of a LlamaIndex application, made by `Optimizer.llamaindex`; those of levers that are off are None.

    The models that were given stay as they are. A call of `llm` asks the cache, then the router, then a model; streams
    do so, too.

    Attributes:
        llm: For `Settings.llm`.
        node_postprocessors: For query engines: the compressor, or none.
        tracker: Hears of every model call of this process, and writes it into the ledger; it is installed once, however
            many applications share the ledger. `tracker.remove()` stops it.

    Args:
        parts: What an optimizer holds.

    Raises:
        ConfigError: If a model is no LLM of LlamaIndex.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> app = Optimizer(ledger=tmp / "ledger.db").llamaindex(Tier(MockLLM(), name="gpt-4o-mini"))
        >>> _ = app.llm.complete("What is the capital of France?")
        >>> app.tracker.totals().attempts, app.node_postprocessors
        (1, [])
        >>> app.tracker.remove()
    """

    def __init__(self, parts: Parts) -> None:
        for tier in parts.tiers:
            _check(tier.model)
        self._parts = parts
        llm: Any = parts.tiers[0].model if parts.limit is None else _limited(parts.tiers[0].model, parts.limit)
        if parts.router is not None:
            llm = RouterLLM(parts.tiers, **parts.router)
        self.llm: LLM = llm if parts.cache is None else CachedLLM(llm, cache=parts.cache)
        documents = parts.documents
        self.node_postprocessors = [] if documents is None else [CompressorPostprocessor(**documents)]
        self.tracker = None if parts.ledger is None else _installed(parts.ledger, parts)

    def batch_runner(self, llm: Any = None, **options: Any) -> Any:
        """A `BatchRunner` that asks this cache first, and whose rows are in this ledger at the price of a batch.

        Args:
            llm: An LLM that has batches; a batch goes to one model, past the router. None: the last, the strongest of
                those that the application was made of. Or what carries out batches of bare requests,
                `costopt.batch.OpenAIBatches()`: what comes back is a `costopt.batch.BatchRunner` then, whose journal
                has what was answered before.
            options: Of the runner, before those of the optimizer.

        Raises:
            ConfigError: If it has no batches.
        """
        given = {**self._parts.batch, **options}
        if hasattr(llm, "outcomes"):
            return self._parts.batch_runner(llm, given)
        llm = self._parts.tiers[-1].model if llm is None else llm
        _check(llm)
        if self._parts.batch_limit is not None:
            llm = _limited(llm, self._parts.batch_limit)
        return BatchRunner(llm if self._parts.cache is None else CachedLLM(llm, cache=self._parts.cache), **given)


def _check(model: Any) -> None:
    if not isinstance(model, LLM):
        hint = ": a chat model of LangChain is for optimizer.langchain()" if hasattr(model, "ainvoke") else ""
        raise ConfigError(
            f'{type(model).__name__} is no LLM of LlamaIndex{hint}: give one, as in OpenAI("gpt-4o-mini")'
        )
    if isinstance(model, CachedLLM):
        raise ConfigError(
            "the CachedLLM has a cache of its own: give the LLM in it, and the optimizer's cache is asked"
        )


class _Both(SpendingGate):
    """A limit, and then what the user had."""

    def __init__(self, limit: Guard, other: BaseRateLimiter) -> None:
        super().__init__(limit)
        self._other = other

    def acquire(self, num_tokens: int = 0) -> None:
        super().acquire(num_tokens)
        self._other.acquire(num_tokens)

    async def async_acquire(self, num_tokens: int = 0) -> None:
        await super().async_acquire(num_tokens)
        await self._other.async_acquire(num_tokens)


def _limited(llm: Any, limit: Guard) -> Any:
    """A copy that asks the limit first."""
    other = llm.rate_limiter
    gate = SpendingGate(limit) if other is None else _Both(limit, other)
    return llm.model_copy(update={"rate_limiter": gate})


def _installed(ledger: Ledger, parts: Parts) -> CostTracker:
    """The tracker of this ledger's file that listens already, or a new one: two would count each call twice."""
    with _installing:
        for handler in get_dispatcher().event_handlers:
            if isinstance(handler, CostTracker) and handler.ledger.path.absolute() == ledger.path.absolute():
                return handler
        return CostTracker(ledger, prices=parts.prices).install()
