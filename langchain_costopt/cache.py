"""The semantic cache as LangChain's `BaseCache`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Self, TypedDict, Unpack

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.messages import AIMessage
from pydantic import BaseModel

import costopt
from costopt.arguments import known_options
from costopt.caching import Answer, CacheHit, CacheRequest, CacheStats, Judge, PairModel, Policy, Store
from costopt.caching.flight import Caller
from costopt.caching.served import rejection_of
from costopt.errors import ConfigError
from costopt.prompts import Split
from langchain_costopt.messages import answer_of, generations_of, model_of, portable_of, turns_of

__all__ = ["SemanticCache"]


class CacheOptions(TypedDict, total=False):
    """The options of `costopt.SemanticCache`."""

    embedder: costopt.Embedder
    judge: Judge | PairModel | Callable[[str, str], float]
    max_error: float
    policy: Policy | str | os.PathLike[str]
    min_similarity: float
    guards: bool
    exact_only: bool
    tenant: str | Callable[[], str]
    ttl: float | None
    tags: Sequence[str] | Callable[[], Sequence[str]]
    split: Split
    shadow: bool
    same_answer: Callable[[Answer, Answer], bool | None]
    single_flight: bool
    time_budget: float
    portable: Sequence[str]


class SemanticCache(BaseCache):
    """Answers a question from an earlier answer to the same question, however worded.

    Only the last human text may match loosely. Model, parameters, tools, system prompt, earlier turns, images
    and tenant must match exactly. Whatever fails counts as a miss: the model is asked, as without a cache.
    A hit carries why it was served in ``response_metadata["costopt"]``, and no token usage.

    Args:
        store: A `costopt.LocalStore`, a `costopt.RedisStore` or a Redis URL; by default Redis if
            `COSTOPT_REDIS_URL` or `REDIS_URL` is set, else a file in the user's cache folder.
        core: A `costopt.SemanticCache` to use instead of making one, e.g. to share it.
        options: Those of `costopt.SemanticCache`: tenant, max_error, policy, ttl, tags, split, shadow, portable, ...

    Raises:
        ConfigError: If an option is out of range.
        MissingExtraError: If what the store or embedder needs is not installed.

    Example:
        >>> set_llm_cache(SemanticCache(LocalStore(tmp / "cache.db")))
    """

    def __init__(
        self,
        store: Store | str | None = None,
        *,
        core: costopt.SemanticCache | None = None,
        **options: Unpack[CacheOptions],
    ) -> None:
        if core is not None and (store is not None or options):
            raise ConfigError("give either core= or a store and options, not both")
        known_options("SemanticCache", options, ("store", "core", *CacheOptions.__annotations__))
        self.core = core or costopt.SemanticCache(store, **options)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The answer to a prompt, if there is one; called by LangChain."""
        frame = sys._getframe(1)
        request = self._request(prompt, llm_string, frame)
        if request is None:
            return None
        return self._served(self.core.lookup(request, _caller(frame)))

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """`lookup`, without blocking the event loop."""
        frame = sys._getframe(1)
        request = self._request(prompt, llm_string, frame)
        if request is None:
            return None
        return self._served(await self.core.alookup(request, _caller(frame, asyncio.current_task())))

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep an answer; called by LangChain."""
        request = self._request(prompt, llm_string, sys._getframe(1))
        if request is not None:
            self.core.update(request, lambda: answer_of(return_val, request.model))

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """`update`, without blocking the event loop."""
        request = self._request(prompt, llm_string, sys._getframe(1))
        if request is not None:
            await self.core.aupdate(request, lambda: answer_of(return_val, request.model))

    def clear(self, **kwargs: Any) -> None:
        """Remove every entry of every tenant."""
        self.core.clear()

    async def aclear(self, **kwargs: Any) -> None:
        """`clear`, without blocking the event loop."""
        await asyncio.to_thread(self.core.clear)

    def reject(self, wrong: AIMessage | CacheHit) -> None:
        """Report a wrong answer: the message as it was served, or the hit. It is never served again.

        Raises:
            ConfigError: If the message did not come from this cache.
            StoreError: If the store cannot be reached.
        """
        if isinstance(wrong, CacheHit):
            self.core.reject(wrong)
            return
        told = getattr(wrong, "response_metadata", None) or {}
        self.core.reject_match(*rejection_of(told.get("costopt")))

    def invalidate(self, *, tag: str | None = None, model: str | None = None, tenant: str | None = None) -> int:
        """Remove the entries that match everything given; returns how many there were."""
        return self.core.invalidate(tag=tag, model=model, tenant=tenant)

    def warm(self) -> Self:
        """Load the embedder and open the store now, so that the first request need not."""
        self.core.warm()
        return self

    def stats(self) -> CacheStats:
        """What this object has done so far; `print(cache.stats())` says it in a line."""
        return self.core.stats()

    def close(self) -> None:
        """Write what is pending and give connections back."""
        self.core.close()

    async def aclose(self) -> None:
        """`close`, and the connections of the running event loop, too."""
        await self.core.aclose()

    def _request(self, prompt: str, llm_string: str, frame: FrameType) -> CacheRequest | None:
        return self.core.guarded("request", lambda: self._made(prompt, llm_string, frame))

    def _made(self, prompt: str, llm_string: str, frame: FrameType) -> CacheRequest:
        model, completion = model_of(llm_string), _module(frame).endswith(".llms")
        params = portable_of(llm_string, completion=completion) if self.core.is_portable(model) else None
        return self.core.request(
            turns_of(prompt, completion=completion),
            model=model,
            params=llm_string + _shapes(llm_string, frame) if params is None else params,
        )

    def _served(self, hit: CacheHit | None) -> RETURN_VAL_TYPE | None:
        # A list that is not empty: langchain-core takes nothing else for a hit.
        return self.core.served(hit, generations_of)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _caller(frame: FrameType, task: asyncio.Task[Any] | None = None) -> Caller | None:
    """Who asked, if it is a chat model's own code, which stays where it is until the answer is there."""
    return Caller(frame, task) if _module(frame) == "langchain_core.language_models.chat_models" else None


def _shapes(llm_string: str, frame: FrameType) -> str:
    """The schemas of the classes that the answer shall be parsed into.

    In the string that LangChain hands a cache such a class is a name, which many classes, and tomorrow's
    version of this one, may share; the class itself is among the arguments of the function that asks.
    """
    if "<class '" not in llm_string:
        return ""
    kwargs = frame.f_locals.get("kwargs") or {}
    classes = [value for value in kwargs.values() if isinstance(value, type) and issubclass(value, BaseModel)]
    return json.dumps([made.model_json_schema() for made in classes], sort_keys=True)
