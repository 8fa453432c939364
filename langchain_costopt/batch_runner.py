"""`.batch()` by the provider's batch API: half the price, for what can wait."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Generic, TypeVar, Unpack

from langchain_core.language_models import BaseChatModel, BaseLLM
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
)
from langchain_core.runnables.base import RunnableBindingBase, RunnableEachBase
from langchain_core.runnables.config import get_config_list
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.fallbacks import RunnableWithFallbacks
from langchain_core.runnables.passthrough import RunnableAssign

from costopt.batch.gather import Gathering, blocking, in_order, is_urgent, raised
from costopt.batch.options import BatchOptions
from costopt.errors import ConfigError

__all__ = ["BatchRunner"]

Input = TypeVar("Input")
Output = TypeVar("Output")
_Configs = RunnableConfig | list[RunnableConfig] | None


class BatchRunner(Generic[Input, Output]):
    """Runs a chat model, or a chain around one, over many inputs by the provider's batch API.

    `batch` returns what the runnable's own `batch` would have returned, hours later perhaps and at half the price.
    Tools, structured output, prompts, parsers, callbacks and caches work, for the model itself runs: only its HTTP
    requests go into a batch. What a cache answers is not sent. If the process dies, the same call goes on where it was.

    A chain that calls the model more than once takes a batch for each step. Answers that were paid by an earlier call
    with the same inputs, and equal ones within a call, come with a usage of 0 tokens, as from a cache.

    Args:
        runnable: A `ChatOpenAI`, a `ChatAnthropic`, one of them with tools or structured output, or a chain with one.
        urgent: Send calls of up to so many inputs straight away, at the full price; True: all calls.
        salt: Another text asks anew what was answered before.
        options: Those of `costopt.batch.BatchRunner`: journal, backoff, tries, settle, keep, prices.

    Raises:
        ConfigError: If there is no model in it that has batches.

    Example:
        >>> llm = ChatOpenAI(model="gpt-4o-mini")
        >>> runner = BatchRunner(llm, journal=tmp / "batch.db", backoff=Backoff(first=0.01))
        >>> answers = runner.batch(["What is a llama?", "What is an alpaca?"])
        >>> [answer.usage_metadata["total_tokens"] > 0 for answer in answers]
        [True, True]
    """

    def __init__(
        self,
        runnable: Runnable[Input, Output],
        *,
        urgent: bool | int = False,
        salt: str = "",
        **options: Unpack[BatchOptions],
    ) -> None:
        self.runnable = runnable
        self.urgent = urgent
        self._salt = salt
        self._options = options
        if urgent is not True:
            self._held(Gathering(self._options, salt=self._salt))  # for its checks

    def batch(
        self,
        inputs: Sequence[Input],
        config: _Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """The outputs, in the order of the inputs.

        Args:
            inputs: What the runnable takes.
            config: As `Runnable.batch` takes it; `max_concurrency` is for urgent calls only.
            return_exceptions: Put an exception in the place of an output. Otherwise the first is raised, when all
                inputs are done: what was answered is in the journal then.
            kwargs: For the runnable.

        Raises:
            BatchError: If the provider will not go on.
        """
        if is_urgent(self.urgent, inputs):
            return self.runnable.batch(list(inputs), config, return_exceptions=return_exceptions, **kwargs)
        return in_order(dict(blocking(partial(self._completed, inputs, config, kwargs))), return_exceptions)

    async def abatch(
        self,
        inputs: Sequence[Input],
        config: _Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """`batch`, without blocking the event loop."""
        if is_urgent(self.urgent, inputs):
            return await self.runnable.abatch(list(inputs), config, return_exceptions=return_exceptions, **kwargs)
        found = {place: output async for place, output in self._completed(inputs, config, kwargs)}
        return in_order(found, return_exceptions)

    def as_completed(
        self,
        inputs: Sequence[Input],
        config: _Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> Iterator[tuple[int, Output | Exception]]:
        """The outputs as they come, each with the place of its input; see `batch`."""
        if is_urgent(self.urgent, inputs):
            runnable: Any = self.runnable  # its overloads tell True and False apart
            yield from runnable.batch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
            return
        for place, output in blocking(partial(self._completed, inputs, config, kwargs)):
            yield place, raised(output, return_exceptions)

    async def aas_completed(
        self,
        inputs: Sequence[Input],
        config: _Configs = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> AsyncIterator[tuple[int, Output | Exception]]:
        """`as_completed`, without blocking the event loop."""
        if is_urgent(self.urgent, inputs):
            runnable: Any = self.runnable
            pairs = runnable.abatch_as_completed(inputs, config, return_exceptions=return_exceptions, **kwargs)
            async for pair in pairs:
                yield pair
            return
        async with contextlib.aclosing(self._completed(inputs, config, kwargs)) as completed:
            async for place, output in completed:
                yield place, raised(output, return_exceptions)

    async def _completed(
        self, inputs: Sequence[Input], config: _Configs, kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[tuple[int, Output | Exception], None]:
        gathering = Gathering(self._options, salt=self._salt)
        runnable = self._held(gathering)
        # Whoever keeps books sees by this that the call is paid at the price of a batch.
        mark = {"costopt_batch": uuid.uuid4().hex}
        configs = [
            RunnableConfig(**{**each, "max_concurrency": None, "metadata": {**(each.get("metadata") or {}), **mark}})
            for each in get_config_list(config, len(inputs))
        ]
        calls = [partial(runnable.ainvoke, each, of, **kwargs) for each, of in zip(inputs, configs, strict=True)]
        async with contextlib.aclosing(gathering.completed(calls)) as completed:
            async for pair in completed:
                yield pair

    def _held(self, gathering: Gathering) -> Runnable[Input, Output]:
        found: list[BaseChatModel] = []
        held: Runnable[Input, Output] = _holding(self.runnable, gathering, found)
        if not found:
            raise ConfigError(
                f"there is no chat model in {type(self.runnable).__name__}: give one, or a chain with one"
            )
        return held


def _holding(runnable: Any, gathering: Gathering, found: list[BaseChatModel]) -> Any:
    """The same runnable, with models that wait for a batch in place of its models."""

    def inner(each: Any) -> Any:
        return _holding(each, gathering, found)

    if isinstance(runnable, BaseChatModel):
        held = _holding_model(runnable, gathering)
        found.append(runnable)
        return held
    if isinstance(runnable, BaseLLM):
        raise ConfigError(f"{type(runnable).__name__} is no chat model: there are batches for chat models only")
    if isinstance(runnable, RunnableBindingBase | RunnableEachBase):
        return runnable.model_copy(update={"bound": inner(runnable.bound)})
    if isinstance(runnable, RunnableBranch):
        branches = [(inner(condition), inner(branch)) for condition, branch in runnable.branches]
        return runnable.model_copy(update={"branches": branches, "default": inner(runnable.default)})
    if isinstance(runnable, RunnableSequence):
        return RunnableSequence(*map(inner, runnable.steps), name=runnable.name)
    if isinstance(runnable, RunnableParallel):
        steps = {name: inner(step) for name, step in runnable.steps__.items()}
        return runnable.model_copy(update={"steps__": steps})
    if isinstance(runnable, RunnableAssign):
        return runnable.model_copy(update={"mapper": inner(runnable.mapper)})
    if isinstance(runnable, RunnableWithFallbacks):
        others = [inner(each) for each in runnable.fallbacks]
        return runnable.model_copy(update={"runnable": inner(runnable.runnable), "fallbacks": others})
    _check_nothing_hidden(runnable, gathering)
    return runnable


def _check_nothing_hidden(runnable: Any, gathering: Gathering) -> None:
    """A model that a function calls, or that is chosen at each call, would be asked by itself, at the full price."""
    inside: Sequence[Any] = runnable.deps if isinstance(runnable, RunnableLambda) else ()
    if isinstance(runnable, DynamicRunnable):
        inside = [runnable.default]
    found: list[BaseChatModel] = []
    for each in inside:
        with contextlib.suppress(ConfigError):  # what has no batches anyway is asked by itself, wherever it is
            _holding(each, gathering, found)
    if found:
        name = type(runnable).__name__
        raise ConfigError(
            f"the chat model in a {name} has no batches here: make it a step of the chain, or urgent=True"
        )


def _holding_model(model: Any, gathering: Gathering) -> Any:
    """A copy of a model, whose cache keys are the same, with another way to the provider."""
    changes = {"rate_limiter": None} | ({"streaming": False} if getattr(model, "streaming", False) else {})
    if getattr(model, "root_async_client", None) is not None and getattr(model, "root_client", None) is not None:
        client = gathering.holding(model.root_async_client, model.root_client)
        return model.model_copy(
            update={**changes, "root_async_client": client, "async_client": client.chat.completions}
        )
    if hasattr(type(model), "_async_client"):
        copy = model.model_copy(update=changes)
        copy.__dict__["_async_client"] = gathering.holding(model._async_client, model._client)  # a cached property
        return copy
    raise ConfigError(
        f"{type(model).__name__} has no batches here: give a ChatOpenAI or a ChatAnthropic, or urgent=True"
    )
