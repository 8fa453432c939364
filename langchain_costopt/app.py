"""What an `Optimizer` makes of chat models: one that asks the cache first, and what else an application needs."""

from __future__ import annotations

import logging
import types
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables.base import RunnableBindingBase

from costopt.errors import ConfigError
from costopt.optimizer import Parts
from langchain_costopt.batch_runner import BatchRunner
from langchain_costopt.cache import SemanticCache
from langchain_costopt.cost_tracker import CostTracker
from langchain_costopt.document_compressor import DocumentCompressor
from langchain_costopt.history_compressor import HistoryCompressor
from langchain_costopt.router import RouterRunnable
from langchain_costopt.streaming import StreamCache

__all__ = ["LangChainApp"]

_log = logging.getLogger("costopt")


class LangChainApp:
    """The pieces of a LangChain application, made by `Optimizer.langchain`; those of levers that are off are None.

    The models that were given stay as they are: `llm` is made of copies. A call of it asks the cache, then the router,
    then a model; whatever happens is written into the ledger once. With one model, `llm` is of that model's class, and
    a limit that is spent refuses what the cache has, too: LangChain asks callbacks first.

    Attributes:
        llm: The chat model, for chains and agents. Unlike LangChain's own models it streams out of the cache, too: a
            hit comes as one chunk, and a stream that ends by itself is kept.
        cache: For `set_llm_cache`, if models beside `llm` shall use it.
        tracker: The callback that keeps the books of `llm`; models beside it may be given it, too.
        document_compressor: The `base_compressor` of a retriever, or a step of a chain.
        history_compressor: Stands before `llm` in a chain; agents have `middleware`.

    Args:
        parts: What an optimizer holds.

    Raises:
        ConfigError: If a model is no chat model of LangChain, or has a cache of its own.

    Example:
        >>> app = Optimizer(ledger=tmp / "ledger.db").langchain(SimulatedChatModel(model_name="gpt-4o-mini"))
        >>> _ = app.llm.invoke("What is the capital of France?")
        >>> app.tracker.totals().attempts, app.cache, app.middleware
        (1, None, [])
    """

    def __init__(self, parts: Parts) -> None:
        for tier in parts.tiers:
            _check(tier.model)
        self._parts = parts
        self.cache = None if parts.cache is None else SemanticCache(core=parts.cache)
        self.tracker = None if parts.ledger is None else self._tracker(parts.limit)
        self.llm: Any = _routed(parts, self.cache, self.tracker) if parts.router is not None else self._alone()
        self.document_compressor = None if parts.documents is None else DocumentCompressor(**parts.documents)
        self.history_compressor = None if parts.history is None else HistoryCompressor(**parts.history)

    @cached_property
    def middleware(self) -> list[Any]:
        """For ``create_agent(app.llm, tools, middleware=app.middleware)``: shortens old parts of the chat.

        Cache and router are in `llm`, which is asked after it: a chat is shortened in the same way each time, so that
        it is found in the cache as well as in full.

        Raises:
            MissingExtraError: If LangChain's agents are not installed.
        """
        if self._parts.history is None:
            return []
        from langchain_costopt.compression_middleware import CompressionMiddleware

        return [CompressionMiddleware(**self._parts.history)]

    def batch_runner(self, model: Any = None, **options: Any) -> Any:
        """A `BatchRunner` that asks this cache first, and writes into this ledger at the price of a batch.

        Args:
            model: A `ChatOpenAI` or a `ChatAnthropic`; a batch goes to one model, past the router. None: the last,
                the strongest of those that the application was made of. Or what carries out batches of bare requests,
                `costopt.batch.OpenAIBatches()`: what comes back is a `costopt.batch.BatchRunner` then, whose journal
                has what was answered before.
            options: Of the runner, before those of the optimizer.

        Raises:
            ConfigError: If it has no batches.
        """
        given = {**self._parts.batch, **options}
        if hasattr(model, "outcomes"):
            return self._parts.batch_runner(model, given)
        model = self._parts.tiers[-1].model if model is None else model
        _check(model)
        tracker = self.tracker
        if tracker is not None and self._parts.limit is not self._parts.batch_limit:
            tracker = self._tracker(self._parts.batch_limit)  # the router's budget does not see these calls
        return BatchRunner(_dressed(model, self.cache, tracker), **given)

    def _tracker(self, limit: Any) -> CostTracker:
        return CostTracker(self._parts.ledger, prices=self._parts.prices, limit=limit)

    def _alone(self) -> Any:
        return _dressed(self._parts.tiers[0].model, self.cache, self.tracker)


def _routed(parts: Parts, cache: BaseCache | None, tracker: CostTracker | None) -> RouterRunnable:
    given: dict[str, Any] = dict(parts.router or {})
    if cache is not None:
        given["cache"] = cache
    if tracker is not None:
        given["callbacks"] = [tracker]
    kind: Any = _streaming(RouterRunnable)
    router: RouterRunnable = kind(tiers=parts.tiers, **given)
    return router


def _check(model: Any) -> None:
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    if not isinstance(model, BaseChatModel):
        hint = ": a LlamaIndex LLM is for optimizer.llamaindex()" if "llama_index" in type(model).__module__ else ""
        raise ConfigError(
            f"{type(model).__name__} is no chat model of LangChain{hint}: give one, as in ChatOpenAI(model=...)"
        )
    if isinstance(model.cache, BaseCache):
        raise ConfigError(
            f"the {type(model).__name__} has a cache of its own: leave out its cache=, and the optimizer's is asked"
        )


def _dressed(model: Any, cache: BaseCache | None, tracker: CostTracker | None) -> Any:
    """A copy of a model with cache and tracker on it."""
    if isinstance(model, RunnableBindingBase):
        return model.model_copy(update={"bound": _dressed(model.bound, cache, tracker)})
    changes: dict[str, Any] = {}
    if tracker is not None:
        changes["callbacks"] = _with(model.callbacks, tracker)
    if cache is not None and model.cache is not False:
        changes["cache"] = cache
    copy = model.model_copy(update=changes)
    if "cache" in changes:
        _let_stream(copy)
    return copy


def _with(callbacks: Sequence[Any] | BaseCallbackManager | None, tracker: CostTracker) -> Any:
    if isinstance(callbacks, BaseCallbackManager):
        manager = callbacks.copy()
        manager.add_handler(tracker, inherit=False)
        return manager
    return [*(callbacks or ()), tracker]


def _let_stream(model: BaseChatModel) -> None:
    """Have a copy stream out of the cache: its class becomes its own one with `StreamCache` before it."""
    if isinstance(model, StreamCache):
        return
    try:
        object.__setattr__(model, "__class__", _streaming(type(model)))
    except Exception as error:  # a class that cannot be derived from: all but its streams ask the cache
        _log.warning("costopt: streams of %s go uncached: %r", type(model).__name__, error)


@cache
def _streaming(kind: type[BaseChatModel]) -> type[BaseChatModel]:
    # Under the same name: caches and traces know a model by its class.
    names = {"__module__": kind.__module__, "__doc__": kind.__doc__}
    made: type[BaseChatModel] = types.new_class(
        kind.__name__, (StreamCache, kind), exec_body=lambda own: own.update(names)
    )
    return made
