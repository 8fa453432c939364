"""Many calls of an LLM by the provider's batch API: half the price, for what can wait."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, Unpack

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index_instrumentation.dispatcher import instrument_tags

from costopt.batch.gather import Gathering, blocking, in_order, is_urgent, raised
from costopt.batch.options import BatchOptions
from costopt.errors import ConfigError
from llamaindex_costopt.cached import CachedLLM
from llamaindex_costopt.spending_gate import SpendingGate

__all__ = ["BatchRunner"]

Response = CompletionResponse | ChatResponse
_Input = str | ChatMessage | Sequence[ChatMessage]
_MOST_AT_ONCE = 8


class BatchRunner:
    """Runs an LLM over many inputs by the provider's batch API.

    Each text gets what `llm.acomplete` would have returned, each list of messages what `llm.achat` would have returned,
    hours later perhaps and at half the price. Structured output and instrumentation work, for the LLM itself
    runs: only its HTTP requests go into a batch. If the process dies, the same call goes on where it was. Answers that
    were paid by an earlier call with the same inputs, and equal ones within a call, report a usage of 0 tokens.

    Args:
        llm: An `OpenAI`, `OpenAILike` or `OpenAIResponses` of LlamaIndex, or `llm.as_structured_llm(...)` of one, or
            a `CachedLLM` around one; an `Anthropic`, where LlamaIndex's integration and Anthropic's SDK go together.
        urgent: Send calls of up to so many inputs straight away, at the full price; True: all calls.
        salt: Another text asks anew what was answered before.
        options: Those of `costopt.batch.BatchRunner`: journal, backoff, tries, settle, keep, prices.

    Raises:
        ConfigError: If it is no LLM that has batches.

    Example:
        >>> runner = BatchRunner(llm, journal=tmp / "batch.db", backoff=Backoff(first=0.01))
        >>> [str(answer) for answer in runner.batch(["What is a llama?"])]
        ['answer...']
    """

    def __init__(
        self,
        llm: Any,
        *,
        urgent: bool | int = False,
        salt: str = "",
        **options: Unpack[BatchOptions],
    ) -> None:
        self.llm = llm
        self.urgent = urgent
        self._salt = salt
        self._options = options
        if urgent is not True:
            _holding(llm, Gathering(self._options, salt=self._salt))  # for its checks

    def batch(self, inputs: Sequence[_Input], *, return_exceptions: bool = False, **kwargs: Any) -> list[Any]:
        """The responses, in the order of the inputs.

        Args:
            inputs: Texts, messages or lists of messages.
            return_exceptions: Put an exception in the place of a response. Otherwise the first is raised, when all
                inputs are done: what was answered is in the journal then.
            kwargs: For `acomplete` and `achat`.

        Raises:
            BatchError: If the provider will not go on.
        """
        return in_order(dict(self._blocking(inputs, kwargs)), return_exceptions)

    async def abatch(self, inputs: Sequence[_Input], *, return_exceptions: bool = False, **kwargs: Any) -> list[Any]:
        """`batch`, without blocking the event loop."""
        found = {place: response async for place, response in self._completed(inputs, kwargs)}
        return in_order(found, return_exceptions)

    def as_completed(
        self, inputs: Sequence[_Input], *, return_exceptions: bool = False, **kwargs: Any
    ) -> Iterator[tuple[int, Any]]:
        """The responses as they come, each with the place of its input; see `batch`."""
        for place, response in self._blocking(inputs, kwargs):
            yield place, raised(response, return_exceptions)

    async def aas_completed(
        self, inputs: Sequence[_Input], *, return_exceptions: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[int, Any]]:
        """`as_completed`, without blocking the event loop."""
        async with contextlib.aclosing(self._completed(inputs, kwargs)) as pairs:
            async for place, response in pairs:
                yield place, raised(response, return_exceptions)

    def _blocking(self, inputs: Sequence[_Input], kwargs: Mapping[str, Any]) -> Iterator[tuple[int, Any]]:
        if not is_urgent(self.urgent, inputs):
            yield from blocking(partial(self._completed, inputs, kwargs))
            return
        # In threads: what an asynchronous client opens in an event loop of ours is of no use in the caller's.
        with ThreadPoolExecutor(_MOST_AT_ONCE) as pool:
            context = contextvars.copy_context()
            futures = {
                pool.submit(context.copy().run, _called, self.llm, each, kwargs): place
                for place, each in enumerate(inputs)
            }
            for future in as_completed(futures):
                yield futures[future], future.exception() or future.result()

    async def _completed(
        self, inputs: Sequence[_Input], kwargs: Mapping[str, Any]
    ) -> AsyncGenerator[tuple[int, Response | Exception], None]:
        gathering = Gathering(self._options, salt=self._salt)
        if is_urgent(self.urgent, inputs):
            room = asyncio.Semaphore(_MOST_AT_ONCE)
            calls = [partial(_urgently, room, self.llm, each, kwargs) for each in inputs]
        else:
            llm, mark = _holding(self.llm, gathering), uuid.uuid4().hex
            calls = [partial(_marked, mark, llm, each, kwargs) for each in inputs]
        async with contextlib.aclosing(gathering.completed(calls)) as completed:
            async for pair in completed:
                yield pair


def _called(llm: Any, given: _Input, kwargs: Mapping[str, Any]) -> Response:
    response: Response = llm.complete(given, **kwargs) if isinstance(given, str) else llm.chat(_turns(given), **kwargs)
    return response


async def _acalled(llm: Any, given: _Input, kwargs: Mapping[str, Any]) -> Response:
    call = llm.acomplete(given, **kwargs) if isinstance(given, str) else llm.achat(_turns(given), **kwargs)
    response: Response = await call
    return response


def _turns(given: ChatMessage | Sequence[ChatMessage]) -> list[ChatMessage]:
    return [given] if isinstance(given, ChatMessage) else list(given)


async def _marked(mark: str, llm: Any, given: _Input, kwargs: Mapping[str, Any]) -> Response:
    # Whoever keeps books sees by this that the call is paid at the price of a batch.
    with instrument_tags({"costopt_batch": mark}):
        return await _acalled(llm, given, kwargs)


async def _urgently(room: asyncio.Semaphore, llm: Any, given: _Input, kwargs: Mapping[str, Any]) -> Response:
    async with room:
        return await _acalled(llm, given, kwargs)


def _holding(llm: Any, gathering: Gathering) -> Any:
    """A copy of an LLM that waits for a batch where it would have asked the provider."""
    if isinstance(llm, StructuredLLM | CachedLLM):  # what the cache has does not reach the LLM, and is not sent
        return llm.model_copy(update={"llm": _holding(llm.llm, gathering)})
    if hasattr(llm, "_get_aclient") and hasattr(llm, "_get_client"):  # OpenAI makes its clients at first use
        asynchronous, synchronous = llm._get_aclient(), llm._get_client()
    elif hasattr(llm, "_aclient") and hasattr(llm, "_client"):
        asynchronous, synchronous = llm._aclient, llm._client
    else:
        name = type(llm).__name__
        raise ConfigError(f"{name} has no batches here: give LlamaIndex's OpenAI or Anthropic, or urgent=True")
    changes: dict[str, Any] = {"reuse_client": True, "max_retries": 0}
    if not isinstance(getattr(llm, "rate_limiter", None), SpendingGate):
        changes["rate_limiter"] = None  # a batch is one request
    copy = llm.model_copy(update={name: value for name, value in changes.items() if name in type(llm).model_fields})
    copy._aclient = gathering.holding(asynchronous, synchronous)
    return copy
