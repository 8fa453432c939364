"""The router as a middleware of LangChain's agents: each call of the agent's model goes to the tier that will do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import RunnableBinding
from langchain_core.runnables.config import ensure_config

from costopt.errors import MissingExtraError
from costopt.routing.cascade import Reply
from costopt.routing.options import router_of
from costopt.routing.request import RouteRequest
from costopt.routing.router import Router
from costopt.routing.serving import Ask, Served, adrive, drive, serve
from costopt.routing.tier import Tier
from langchain_costopt.router_binding import Child
from langchain_costopt.router_calls import said_in
from langchain_costopt.router_messages import Produced, reply_of, request_of

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
    from langgraph.errors import GraphBubbleUp
except ImportError as error:
    raise MissingExtraError("langchain.agents", "langchain", "pip install langchain, where its agents are") from error

__all__ = ["RouterMiddleware"]


class RouterMiddleware(AgentMiddleware[Any, Any, Any]):
    """Picks the model for each call of an agent, in place of the one that the agent was made with.

    Unlike with `RouterRunnable` as the agent's model, callbacks and traces see the models themselves, and a cache is
    asked by the model that was chosen, after routing. The decision is in ``response_metadata["costopt"]``.

    Args:
        tiers: `costopt.Tier`s or chat models, from the cheapest to the strongest.
        router: A `costopt.Router` in place of `tiers` and the options, e.g. to share it.
        options: Those of `costopt.Router`.

    Raises:
        ConfigError: If tiers, thresholds or options do not fit together; the message says how to mend it.

    Example:
        >>> from langchain.agents import create_agent
        >>> cheap, strong = (SimulatedChatModel(model_name=name) for name in ("gpt-4o-mini", "gpt-4o"))
        >>> agent = create_agent(model=strong, tools=[], middleware=[RouterMiddleware(tiers=[cheap, strong])])
        >>> answer = agent.invoke({"messages": [("user", "What is the capital of France?")]})["messages"][-1]
        >>> answer.response_metadata["costopt"]["chosen"]
        'gpt-4o-mini'
    """

    def __init__(self, tiers: Sequence[Any] = (), *, router: Router | None = None, **options: Any) -> None:
        super().__init__()
        self.router = router_of(tiers, router, options)
        for tier in self.router.tiers:
            if not isinstance(_unbound(tier.model)[0], BaseChatModel):
                Child(tier.name, tier.model)  # which says what would be right

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Called by the agent: make the call, with the model that will do."""
        routed = _routed(request)

        def ask(step: Ask) -> Reply:
            with _signals():
                return _reply(step, handler(_sent_to(request, step.tier)))

        try:
            return _response(drive(serve(self.router, routed, self.router.decide(routed)), ask))
        except _Signal as carried:
            raise carried.signal from None

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """`wrap_model_call`, without blocking the event loop."""
        routed = _routed(request)

        async def ask(step: Ask) -> Reply:
            with _signals():
                return _reply(step, await handler(_sent_to(request, step.tier)))

        try:
            return _response(await adrive(serve(self.router, routed, await self.router.adecide(routed)), ask))
        except _Signal as carried:
            raise carried.signal from None


class _Signal(BaseException):
    """Carries what a graph raises to steer itself past the fallback: it is no failure of a model."""

    def __init__(self, signal: GraphBubbleUp) -> None:
        self.signal = signal


@contextmanager
def _signals() -> Iterator[None]:
    try:
        yield
    except GraphBubbleUp as signal:
        raise _Signal(signal) from None


def _routed(request: ModelRequest[Any]) -> RouteRequest:
    system: list[BaseMessage] = [request.system_message] if request.system_message else []
    given = {**request.model_settings, "tools": request.tools, "response_format": request.response_format}
    return request_of([*system, *request.messages], given, **said_in(ensure_config()))


def _sent_to(request: ModelRequest[Any], tier: Tier) -> ModelRequest[Any]:
    model, settings = _unbound(tier.model)
    return request.override(model=model, model_settings={**settings, **request.model_settings})


def _unbound(model: Any) -> tuple[Any, dict[str, Any]]:
    """The model below what was bound to it, and what was bound."""
    settings: dict[str, Any] = {}
    while isinstance(model, RunnableBinding):
        settings = {**model.kwargs, **settings}
        model = model.bound
    return model, settings


def _reply(step: Ask, response: ModelResponse[Any]) -> Reply:
    message = next((said for said in reversed(response.result) if isinstance(said, AIMessage)), None)
    return reply_of(Produced([response], step.tier.name, message))


def _response(served: Served) -> ModelResponse[Any]:
    response: ModelResponse[Any] = served.reply.raw[0]
    last = served.reply.raw.message
    metadata = {"costopt": served.decision.as_dict()}
    said = [
        message.model_copy(update={"response_metadata": {**message.response_metadata, **metadata}})
        if message is last
        else message
        for message in response.result
    ]
    return replace(response, result=said)
