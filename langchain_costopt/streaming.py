"""Streams that are served from, and kept in, the cache; LangChain's own `stream` never asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation

__all__ = ["StreamCache"]


class StreamCache(BaseChatModel):
    """Put before a chat model's class, makes its `stream` and `astream` use the cache that its `invoke` uses.

    A hit is streamed as one chunk. A stream that ends by itself is kept; one that is broken off or fails is not.

    Example:
        >>> class CachedChat(StreamCache, SimulatedChatModel):
        ...     pass
        >>> chat = CachedChat(model_name="gpt-4o-mini", cache=SemanticCache(LocalStore(tmp / "cache.db")))
    """

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        cache = self._own_cache()
        if cache is None:
            yield from super()._stream(messages, stop, run_manager, **kwargs)
            return
        prompt, llm_string = self._cache_key(messages, stop, kwargs)
        served = cache.lookup(prompt, llm_string)
        if isinstance(served, list):
            yield _as_chunk(served[0])
            return
        chunks = []
        for chunk in super()._stream(messages, stop, run_manager, **kwargs):
            chunks.append(chunk)
            yield chunk
        if chunks:
            cache.update(prompt, llm_string, _whole(chunks))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        cache = self._own_cache()
        if cache is None:
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                yield chunk
            return
        prompt, llm_string = self._cache_key(messages, stop, kwargs)
        served = await cache.alookup(prompt, llm_string)
        if isinstance(served, list):
            yield _as_chunk(served[0])
            return
        chunks = []
        async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
            chunks.append(chunk)
            yield chunk
        if chunks:
            await cache.aupdate(prompt, llm_string, _whole(chunks))

    def _own_cache(self) -> BaseCache | None:
        if isinstance(self.cache, BaseCache):
            return self.cache
        return None if self.cache is False else get_llm_cache()

    def _cache_key(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[str, str]:
        # As `invoke` makes them, so that both find each other's answers; how it is sent is no part of it.
        params = {name: value for name, value in kwargs.items() if name not in ("stream", "stream_usage")}
        plain = [message.model_copy(update={"id": None}) for message in messages]
        return dumps(plain), self._get_llm_string(stop=stop, **params)


def _as_chunk(served: Generation) -> ChatGenerationChunk:
    message = served.message if isinstance(served, ChatGeneration) else AIMessage(served.text)
    fields = {name: value for name, value in message.model_dump().items() if name in _CHUNK_FIELDS}
    return ChatGenerationChunk(message=AIMessageChunk(**fields, chunk_position="last"))


_CHUNK_FIELDS = frozenset(
    "content additional_kwargs response_metadata name tool_calls invalid_tool_calls usage_metadata".split()
)


def _whole(chunks: list[ChatGenerationChunk]) -> list[Generation]:
    generation = generate_from_stream(iter(chunks)).generations[0]
    message = message_chunk_to_message(generation.message)
    # What `invoke` has in the message's metadata, a stream has in the chunks' generation info.
    info = generation.generation_info or {}
    message = message.model_copy(update={"response_metadata": {**info, **message.response_metadata}})
    return [ChatGeneration(message=message, generation_info=generation.generation_info)]
