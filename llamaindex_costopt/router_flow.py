"""How an LLM that routes makes its answers: LlamaIndex's eight methods over one flow."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SerializeAsAny
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index_instrumentation.dispatcher import active_instrument_tags

from costopt.conversation import CONVERSATION_IDS
from costopt.routing.chat import chat_request, said_in
from costopt.routing.request import RouteRequest
from costopt.routing.router import Router
from costopt.routing.serving import Ask, Flow, Served, adrive, drive, serve
from costopt.routing.streaming import Relay, arelayed, relayed
from llamaindex_costopt.router_calls import Asked, Chat, Completion, tagged
from llamaindex_costopt.router_messages import explained, from_tier, prompt_turn, reply_of, shows, turn_of
from llamaindex_costopt.router_structured import Object, Schema
from llamaindex_costopt.streams import aclosed, closed

__all__ = ["RoutedLLM"]

# Of a call's arguments, what is said to the router and to no model.
_CONTEXT = (*CONVERSATION_IDS, "costopt_regions", "costopt_required_tags")


class RoutedLLM(FunctionCallingLLM):
    """What `RouterLLM` does when it is called.

    The models are called as anybody calls them, and tell LlamaIndex's handlers of it themselves. So the eight methods
    have no `llm_chat_callback`: a call would be told of, and its tokens counted, twice.
    """

    unasked: ClassVar[frozenset[str]] = frozenset(CONVERSATION_IDS)  # what a cache before it need not tell apart

    models: dict[str, SerializeAsAny[LLM]] = Field(description="By the names of their tiers, the cheapest first")

    _core: Router = PrivateAttr()

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Ask whichever model will do."""
        made: ChatResponse = self._now(*self._chat(messages, kwargs))
        return made

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """What whichever model will do says after a text."""
        made: CompletionResponse = self._now(*self._completion(prompt, formatted, kwargs))
        return made

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """`chat`, as it comes; another model may take over until the first token was shown."""
        return self._stream(*self._chat(messages, kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """`complete`, as it comes; another model may take over until the first token was shown."""
        return self._stream(*self._completion(prompt, formatted, kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, without blocking the event loop."""
        made: ChatResponse = await self._later(*self._chat(messages, kwargs))
        return made

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`, without blocking the event loop."""
        made: CompletionResponse = await self._later(*self._completion(prompt, formatted, kwargs))
        return made

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, without blocking the event loop."""
        return await self._astream(*self._chat(messages, kwargs))

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete`, without blocking the event loop."""
        return await self._astream(*self._completion(prompt, formatted, kwargs))

    def _chat(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> tuple[Asked, RouteRequest]:
        schema, turns = kwargs.get("structured"), [turn_of(message) for message in messages]
        if not isinstance(schema, Schema):
            given, known = _split(kwargs)
            return Chat(messages, given), chat_request(turns, given, **known)
        given, known = _split(schema.given)
        wanted = Object(messages, schema.output_cls, given)
        known |= {"json": True, "valid": wanted.follows}
        return wanted, chat_request(turns, {**given, "structured": schema}, **known)

    def _completion(self, prompt: str, formatted: bool, kwargs: Mapping[str, Any]) -> tuple[Asked, RouteRequest]:
        given, known = _split(kwargs)
        return Completion(prompt, formatted, given), chat_request([prompt_turn(prompt)], given, **known)

    def _now(self, asked: Asked, request: RouteRequest) -> Any:
        decision = self._core.decide(request)

        def ask(step: Ask) -> Any:
            with tagged(self._core, decision, step):
                return reply_of([asked.begin(self.models[step.tier.name], "")])

        served = drive(serve(self._core, request, decision), ask)
        return explained(served.reply.raw[-1], served.decision)

    async def _later(self, asked: Asked, request: RouteRequest) -> Any:
        decision = await self._core.adecide(request)

        async def ask(step: Ask) -> Any:
            with tagged(self._core, decision, step):
                return reply_of([await asked.begin(self.models[step.tier.name], "a")])

        served = await adrive(serve(self._core, request, decision), ask)
        return explained(served.reply.raw[-1], served.decision)

    def _stream(self, asked: Asked, request: RouteRequest) -> Generator[Any, None, None]:
        decision = self._core.decide(request)

        def start(step: Ask) -> Iterator[Any]:
            with tagged(self._core, decision, step):
                begun = asked.begin(self.models[step.tier.name], "stream_")
            with closed(begun) as responses:
                for response in responses:
                    yield from_tier(response, step)

        def routed() -> Generator[Any, None, None]:
            yield from relayed(_relay(serve(self._core, request, decision)), start, _last)

        return routed()

    async def _astream(self, asked: Asked, request: RouteRequest) -> AsyncGenerator[Any, None]:
        decision = await self._core.adecide(request)

        async def start(step: Ask) -> AsyncIterator[Any]:
            with tagged(self._core, decision, step):
                begun = await asked.begin(self.models[step.tier.name], "astream_")
            async with aclosed(begun) as responses:
                async for response in responses:
                    yield from_tier(response, step)

        async def routed() -> AsyncGenerator[Any, None]:
            async with aclosed(arelayed(_relay(serve(self._core, request, decision)), start, _last)) as responses:
                async for response in responses:
                    yield response

        return routed()


def _relay(flow: Flow) -> Relay[Any]:
    return Relay(flow, shows, lambda _, made: reply_of(made), cumulative=True)


def _last(served: Served) -> Any:
    """The end of a stream: all that was said, nothing new, and the decision, which only then knows the cost."""
    last = explained(served.reply.raw[-1], served.decision)
    last.additional_kwargs.pop("thinking_delta", None)
    return last.model_copy(update={"delta": ""})


def _split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(arguments for the model, what else the call says of the request)."""
    ours = {name: kwargs[name] for name in _CONTEXT if name in kwargs}
    given = {name: value for name, value in kwargs.items() if name not in _CONTEXT}
    return given, {"tier": given.pop("model", None), **said_in({**active_instrument_tags.get(), **ours})}
