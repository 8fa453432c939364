"""Streams that are served from, and kept in, the cache; LangChain's own `stream` never asks it."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Iterator
from types import FrameType
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation

from costopt.errors import ConfigError

__all__ = ["StreamCache"]

_log = logging.getLogger("costopt.caching")

_CHUNK_FIELDS = frozenset(
    "content additional_kwargs response_metadata name tool_calls invalid_tool_calls usage_metadata".split()
)


class StreamCache(BaseChatModel):
    """Put before a chat model's class, makes its `stream` and `astream` use the cache that its `invoke` uses.

    A hit is streamed as one chunk. A stream that ends by itself is kept; one that is broken off or fails is not.
    Unlike calls by `invoke`, equal streams at the same moment are not joined to one.

    Raises:
        ConfigError: Where a class is made that has it after the chat model's.

    Example:
        >>> class CachedChat(StreamCache, SimulatedChatModel):
        ...     pass
        >>> chat = CachedChat(model_name="gpt-4o-mini", cache=SemanticCache(LocalStore(tmp / "cache.db")), answer="Hi")
        >>> [chunk.content for chunk in chat.stream("Hello?")][0]
        'Hi'
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        first = next(base for base in cls.__mro__ if "_stream" in vars(base))
        if not issubclass(first, StreamCache):
            others = ", ".join(base.__name__ for base in cls.__bases__ if not issubclass(base, StreamCache))
            raise ConfigError(f"put StreamCache first, as in class {cls.__name__}(StreamCache, {others})")

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        cache = self._own_cache(sys._getframe(1))
        key = None if cache is None else self._cache_key(messages, stop, kwargs)
        if cache is None or key is None:
            yield from super()._stream(messages, stop, run_manager, **kwargs)
            return
        served = cache.lookup(*key)
        if isinstance(served, list):
            yield _as_chunk(served[0])
            return
        chunks = []
        for chunk in super()._stream(messages, stop, run_manager, **kwargs):
            chunks.append(chunk)
            yield chunk
        whole = _whole(chunks)
        if whole:
            cache.update(*key, whole)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        # A model that streams only in threads does so by `_stream`, which asks the cache itself.
        cache = self._own_cache(sys._getframe(1)) if self._has_below("_astream") else None
        key = None if cache is None else self._cache_key(messages, stop, kwargs)
        if cache is None or key is None:
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                yield chunk
            return
        served = await cache.alookup(*key)
        if isinstance(served, list):
            yield _as_chunk(served[0])
            return
        chunks = []
        async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
            chunks.append(chunk)
            yield chunk
        whole = _whole(chunks)
        if whole:
            await cache.aupdate(*key, whole)

    def _should_stream(self, *, async_api: bool, **kwargs: Any) -> bool:
        # LangChain asks whether `_stream` is overridden; it is, by us, whatever the model below can do.
        return self._can_stream(async_api) and super()._should_stream(async_api=async_api, **kwargs)

    def _should_use_protocol_streaming(self, *, async_api: bool, **kwargs: Any) -> bool:
        able = self._can_stream(async_api)
        return able and super()._should_use_protocol_streaming(async_api=async_api, **kwargs)

    def _can_stream(self, async_api: bool) -> bool:
        return self._has_below("_stream") or (async_api and self._has_below("_astream"))

    def _has_below(self, method: str) -> bool:
        return any(method in vars(kind) for kind in type(self).__mro__ if kind not in (StreamCache, BaseChatModel))

    def _own_cache(self, frame: FrameType | None) -> BaseCache | None:
        """The cache to ask; None if there is none, or `invoke` streams and has asked it already."""
        for _ in range(12):
            if frame is None or frame.f_code.co_name in ("stream", "astream"):
                break
            if frame.f_code.co_name in ("_generate_with_cache", "_agenerate_with_cache"):
                return None
            frame = frame.f_back
        if isinstance(self.cache, BaseCache):
            return self.cache
        return None if self.cache is False else get_llm_cache()

    def _cache_key(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[str, str] | None:
        """Prompt and model as `invoke` gives them to the cache, so that both find each other's answers."""
        # How an answer is sent is no part of what it says.
        params = {name: value for name, value in kwargs.items() if name not in ("stream", "stream_usage")}
        try:
            plain = [message.model_copy(update={"id": None}) for message in messages]
            return dumps(plain), self._get_llm_string(stop=stop, **params)
        except Exception as error:
            _log.warning("costopt: a stream goes uncached: %r", error)
            return None


def _as_chunk(served: Generation) -> ChatGenerationChunk:
    message = served.message if isinstance(served, ChatGeneration) else AIMessage(served.text)
    fields = {name: value for name, value in message.model_dump().items() if name in _CHUNK_FIELDS}
    return ChatGenerationChunk(message=AIMessageChunk(**fields, chunk_position="last"))


def _whole(chunks: list[ChatGenerationChunk]) -> list[Generation]:
    """The answer that the chunks add up to; nothing if they do not say that it is all of it."""
    if not chunks:
        return []
    try:
        generation = generate_from_stream(iter(chunks)).generations[0]
        message = message_chunk_to_message(generation.message)
        # What `invoke` has in the message's metadata, a stream has in the chunks' generation info.
        info = generation.generation_info or {}
        message = message.model_copy(update={"response_metadata": {**info, **message.response_metadata}})
    except Exception as error:
        _log.warning("costopt: a stream was not kept: %r", error)
        return []
    # A connection that was cut ends like one that is done, but for the words with which providers close.
    ended = isinstance(message, AIMessage) and (message.usage_metadata or message.response_metadata)
    # Blocks with half-finished tool calls: not what `invoke` would have returned.
    raw = isinstance(message.content, list) and any(
        isinstance(block, dict) and block.get("type") == "tool_call_chunk" for block in message.content
    )
    return [ChatGeneration(message=message, generation_info=generation.generation_info)] if ended and not raw else []
