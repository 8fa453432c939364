"""An LLM that does not ask its model twice for one question."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Literal, Self, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms.llm import LLM

from costopt.caching import Answer, CacheHit, CacheRequest, CacheStats, SemanticCache
from costopt.caching.flight import Caller
from costopt.caching.portable import portable_params
from costopt.caching.served import rejection_of
from costopt.errors import ConfigError
from llamaindex_costopt.cached_asked import asked_by, kind_of, model_of, params_of, turns_of
from llamaindex_costopt.cached_events import Served
from llamaindex_costopt.cached_told import answer_of, response_of
from llamaindex_costopt.streams import aclosed, closed
from llamaindex_costopt.wrapper import WrapperLLM

__all__ = ["CachedLLM"]

_log = logging.getLogger("costopt.caching")

# What the cache is told of a call that failed: whoever waits for its answer goes and asks.
_FAILED = Answer(({"kind": "failed", "content": "", "finish": "error"},))
# Providers tell why a stream ended, and what it used, in its last pieces.
_LAST = 4

R = TypeVar("R", ChatResponse, CompletionResponse)
_Asked = str | Sequence[ChatMessage]


class CachedLLM(WrapperLLM):
    """Answers a question from an earlier answer to the same question, however worded; else asks the wrapped LLM.

    Only the text of the last user turn may match loosely. Model, parameters, tools, response format, system prompt,
    earlier turns, images and tenant must match exactly. Tool calls and structured prediction go through the cache, too.
    A hit is streamed in one piece; a stream that ends by itself is kept, one that is broken off or fails is not. Equal
    calls at the same moment are one call, but for streams. Whatever fails in the cache counts as a miss.

    A hit says in ``additional_kwargs["costopt"]`` why it was served and what that avoided; its token usage is zero.

    Args:
        llm: Any LLM of LlamaIndex.
        cache: A `costopt.SemanticCache`; by default one with its default options; None for no cache: every call
            goes to the wrapped LLM. A pickle holds no cache, which is connections and a tenant: give it one again.
        kwargs: As for `WrapperLLM`.

    Raises:
        ConfigError: If an argument is of another kind.
        MissingExtraError: If what the default cache needs is not installed.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> llm = CachedLLM(MockLLM(), cache=SemanticCache(LocalStore(tmp / "cache.db")))
        >>> _, again = (llm.complete("What is a llama?") for _ in range(2))
        >>> again.additional_kwargs["costopt"]["cache"]
        'exact'
    """

    cache: Any = Field(default=None, exclude=True)

    def __init__(self, llm: LLM, cache: SemanticCache | Literal["default"] | None = "default", **kwargs: Any) -> None:
        cache = SemanticCache() if cache == "default" else cache
        if cache is not None and not isinstance(cache, SemanticCache):
            raise ConfigError(
                f"cache is a {type(cache).__name__}: give a costopt.SemanticCache, or LangChain's `.core`"
            )
        super().__init__(llm, cache=cache, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return super(CachedLLM, self.model_copy(update={"cache": None})).__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        _log.warning("costopt: a CachedLLM out of a pickle asks uncached: set llm.cache = SemanticCache(...)")

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        # A cache is shared: a second one would be another door to the same store.
        return super().__deepcopy__({**(memo or {}), id(self.cache): self.cache})

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex keeps of this class."""
        return "costopt_cached_llm"

    # -- the eight ----------------------------------------------------------------------------------------

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """What the model says after a text, or said."""
        kind = kind_of(self.llm, formatted)
        return self._ask(kind, prompt, kwargs, lambda: self.llm.complete(prompt, formatted=formatted, **kwargs))

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """What the model answers, or answered."""
        return self._ask("chat", messages, kwargs, lambda: self.llm.chat(messages, **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """`complete`, as it comes."""
        kind = kind_of(self.llm, formatted)
        return self._stream(
            kind, prompt, kwargs, lambda: self.llm.stream_complete(prompt, formatted=formatted, **kwargs)
        )

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """`chat`, as it comes."""
        return self._stream("chat", messages, kwargs, lambda: self.llm.stream_chat(messages, **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`, without blocking the event loop."""
        kind = kind_of(self.llm, formatted)
        return await self._aask(kind, prompt, kwargs, lambda: self.llm.acomplete(prompt, formatted=formatted, **kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, without blocking the event loop."""
        return await self._aask("chat", messages, kwargs, lambda: self.llm.achat(messages, **kwargs))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete`, without blocking the event loop."""
        kind = kind_of(self.llm, formatted)
        return await self._astream(
            kind, prompt, kwargs, lambda: self.llm.astream_complete(prompt, formatted=formatted, **kwargs)
        )

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, without blocking the event loop."""
        return await self._astream("chat", messages, kwargs, lambda: self.llm.astream_chat(messages, **kwargs))

    # -- keeping house ------------------------------------------------------------------------------------

    def reject(self, wrong: ChatResponse | CompletionResponse | CacheHit) -> None:
        """Report a wrong answer: the response as it was served, or the hit. It is never served again.

        Raises:
            ConfigError: If the response did not come from this cache.
            StoreError: If the store cannot be reached.
        """
        if isinstance(wrong, CacheHit):
            self._cached().reject(wrong)
        else:
            told = getattr(wrong, "additional_kwargs", None) or {}
            self._cached().reject_match(*rejection_of(told.get("costopt")))

    def invalidate(self, *, tag: str | None = None, model: str | None = None, tenant: str | None = None) -> int:
        """Remove the entries that match everything given; returns how many there were."""
        return self._cached().invalidate(tag=tag, model=model, tenant=tenant)

    def warm(self) -> Self:
        """Load the embedder and open the store now, so that the first request need not."""
        self._cached().warm()
        return self

    def stats(self) -> CacheStats:
        """What the cache has done so far; `print(llm.stats())` says it in a line."""
        return self._cached().stats()

    def _cached(self) -> SemanticCache:
        if self.cache is None:
            raise ConfigError("this CachedLLM has no cache: set llm.cache = SemanticCache(...)")
        cache: SemanticCache = self.cache
        return cache

    # -- asking -------------------------------------------------------------------------------------------

    def _ask(self, kind: str, asked: _Asked, kwargs: dict[str, Any], call: Callable[[], R]) -> R:
        request = self._request(kind, asked, kwargs)
        if request is None:
            return call()
        served = self._served(self.cache.lookup(request, Caller(sys._getframe())), asked, kwargs)
        if served is not None:
            hit: R = served.end()
            return hit
        try:
            response = call()
        except Exception:
            self.cache.update(request, _FAILED)
            raise
        self.cache.update(request, lambda: answer_of([response], request.model))
        return response

    async def _aask(self, kind: str, asked: _Asked, kwargs: dict[str, Any], call: Callable[[], Awaitable[R]]) -> R:
        request = self._request(kind, asked, kwargs)
        if request is None:
            return await call()
        caller = Caller(sys._getframe(), asyncio.current_task())
        served = self._served(await self.cache.alookup(request, caller), asked, kwargs)
        if served is not None:
            hit: R = served.end()
            return hit
        try:
            response = await call()
        except (Exception, asyncio.CancelledError):
            await self.cache.aupdate(request, _FAILED)
            raise
        await self.cache.aupdate(request, lambda: answer_of([response], request.model))
        return response

    def _stream(
        self, kind: str, asked: _Asked, kwargs: dict[str, Any], call: Callable[[], Iterator[R]]
    ) -> Generator[R, None, None]:
        request = self._request(kind, asked, kwargs)
        served = None if request is None else self._served(self.cache.lookup(request), asked, kwargs)
        return _replayed(served) if served is not None else self._kept(request, call())

    async def _astream(
        self, kind: str, asked: _Asked, kwargs: dict[str, Any], call: Callable[[], Awaitable[AsyncIterator[R]]]
    ) -> AsyncGenerator[R, None]:
        request = self._request(kind, asked, kwargs)
        served = None if request is None else self._served(await self.cache.alookup(request), asked, kwargs)
        return _areplayed(served) if served is not None else self._akept(request, await call())

    def _kept(self, request: CacheRequest | None, pieces: Iterator[R]) -> Generator[R, None, None]:
        """The pieces; once there are no more, what they add up to is kept."""
        last: deque[R] = deque(maxlen=_LAST)
        with closed(pieces):  # the reader may leave
            for piece in pieces:
                last.append(piece)
                yield piece
        if request is not None:
            self.cache.update(request, lambda: answer_of(last, request.model, streamed=True))

    async def _akept(self, request: CacheRequest | None, pieces: AsyncIterator[R]) -> AsyncGenerator[R, None]:
        last: deque[R] = deque(maxlen=_LAST)
        async with aclosed(pieces):
            async for piece in pieces:
                last.append(piece)
                yield piece
        if request is not None:
            await self.cache.aupdate(request, lambda: answer_of(last, request.model, streamed=True))

    def _request(self, kind: str, asked: _Asked, kwargs: Mapping[str, Any]) -> CacheRequest | None:
        """What the cache is asked; None if there is no cache, or it cannot be told."""
        cache: SemanticCache | None = self.cache
        return None if cache is None else cache.guarded("request", lambda: self._made(cache, kind, asked, kwargs))

    def _made(self, cache: SemanticCache, kind: str, asked: _Asked, kwargs: Mapping[str, Any]) -> CacheRequest:
        model, call = model_of(self.llm), asked_by(kwargs, self.llm)
        params = portable_params(kind, vars(self.llm), call) if cache.is_portable(model) else None
        params = params_of(kind, self.llm, call) if params is None else params
        return cache.request(turns_of(asked), model=model, params=params)

    def _served(self, hit: CacheHit | None, asked: _Asked, kwargs: Mapping[str, Any]) -> Served[Any] | None:
        """The response of a hit, of which handlers know that it began."""
        chat = not isinstance(asked, str)
        response = None if hit is None else self.cache.served(hit, lambda hit: response_of(hit, chat=chat))
        return None if response is None else Served(self, asked, kwargs, response)


def _replayed(served: Served[R]) -> Generator[R, None, None]:
    try:
        yield served.piece()
    finally:
        served.end()


async def _areplayed(served: Served[R]) -> AsyncGenerator[R, None]:
    try:
        yield served.piece()
    finally:
        served.end()
