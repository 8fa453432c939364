"""How a chat model that routes makes its answers: LangChain's four inner methods over one flow."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

from costopt.routing.cascade import Reply
from costopt.routing.decision import RouteDecision
from costopt.routing.request import RouteRequest
from costopt.routing.router import Router
from costopt.routing.serving import Ask, adrive, drive, serve
from costopt.routing.streaming import Relay, arelayed, relayed
from langchain_costopt.router_binding import BoundSchema, Child
from langchain_costopt.router_calls import CALL, as_chunk, chunk_shows, from_tier, last_chunk, reply, result, summed
from langchain_costopt.router_messages import request_of

__all__ = ["RoutedChat"]


class RoutedChat(BaseChatModel):
    """What `RouterRunnable` does once LangChain has asked the cache and begun the run.

    The models are called below their callbacks: those of the run have heard of the call, and would count its tokens
    twice.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    streaming: bool = False

    _core: Router = PrivateAttr()
    _children: dict[str, Child] = PrivateAttr()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request, plan, given = self._request(messages, kwargs)
        words = stop or self.stop

        def ask(step: Ask) -> Reply:
            child = self._children[step.tier.name]
            made = child.model._generate_with_cache(messages, stop=words, **child.prepared(given))
            return reply(step, made)

        served = drive(serve(self._core, request, plan or self._core.decide(request)), ask)
        return result(served)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        request, plan, given = self._request(messages, kwargs)
        words = stop or self.stop

        async def ask(step: Ask) -> Reply:
            child = self._children[step.tier.name]
            made = await child.model._agenerate_with_cache(messages, stop=words, **child.prepared(given))
            return reply(step, made)

        served = await adrive(serve(self._core, request, plan or await self._core.adecide(request)), ask)
        return result(served)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        request, plan, given = self._request(messages, kwargs)
        words = stop or self.stop

        def start(step: Ask) -> Iterator[ChatGenerationChunk]:
            child, ours = self._children[step.tier.name], from_tier(step)
            own = child.prepared(given)
            if not child.model._should_stream(async_api=False, **{**own, "stream": True}):
                yield ours(as_chunk(child.model._generate_with_cache(messages, stop=words, **own)))
                return
            if child.model.rate_limiter:
                child.model.rate_limiter.acquire(blocking=True)
            yield from map(ours, child.model._stream(messages, stop=words, **own))

        flow = serve(self._core, request, plan or self._core.decide(request))
        for chunk in relayed(Relay(flow, chunk_shows, summed), start, last_chunk):
            if run_manager:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        request, plan, given = self._request(messages, kwargs)
        words = stop or self.stop

        async def start(step: Ask) -> AsyncIterator[ChatGenerationChunk]:
            child, ours = self._children[step.tier.name], from_tier(step)
            own = child.prepared(given)
            if not child.model._should_stream(async_api=True, **{**own, "stream": True}):
                yield ours(as_chunk(await child.model._agenerate_with_cache(messages, stop=words, **own)))
                return
            if child.model.rate_limiter:
                await child.model.rate_limiter.aacquire(blocking=True)
            async for chunk in child.model._astream(messages, stop=words, **own):
                yield ours(chunk)

        flow = serve(self._core, request, plan or await self._core.adecide(request))
        async with aclosing(arelayed(Relay(flow, chunk_shows, summed), start, last_chunk)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _request(
        self, messages: list[BaseMessage], kwargs: Mapping[str, Any]
    ) -> tuple[RouteRequest, RouteDecision | None, dict[str, Any]]:
        """(what is to be routed, where it goes if that is decided, the arguments of the call)."""
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {**{name: value for name, value in own.items() if value is not None}, **kwargs}
        tier, schema = given.pop("model", None), given.get("structured")
        call = CALL.get()
        call = call if call is not None and call.router is self._core else None
        said: dict[str, Any] = call._asdict() if call else {}
        plan = said.pop("plan", None)
        said.pop("router", None)
        if isinstance(schema, BoundSchema):
            said |= {"barred": schema.lacking, "valid": schema.valid}
            said |= {"tools": True} if schema.by_tools else {"json": True}
        return request_of(messages, given, tier=tier, **said), plan, given
