"""Agents: the router as the agent's model, and as a middleware that picks it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from costopt import ConfigError, Router, Tier
from langchain_costopt import RouterMiddleware
from tests.costopt.routing.models import Scored
from tests.langchain.test_router import routed, said
from tests.langchain.test_router_conformance import chat
from tests.openai_server import Behaviour, OpenAIServer


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


class Report(BaseModel):
    """A report."""

    city: str


def asked(text: str) -> Any:
    return {"messages": [("user", text)]}


def by_middleware(server: OpenAIServer, **options: Any) -> RouterMiddleware:
    tiers = [Tier(chat(server.url, name, max_retries=0)) for name in ("gpt-4o-mini", "gpt-4o")]
    return RouterMiddleware(tiers, estimator=Scored(), thresholds=(0.5,), **options)


def agent(server: OpenAIServer, way: str, **options: Any) -> Any:
    if way == "model":
        return create_agent(model=routed(server), **options)
    return create_agent(model=chat(server.url, "gpt-5.4"), middleware=[by_middleware(server)], **options)


WAYS = pytest.mark.parametrize("way", ["model", "middleware"])


@WAYS
async def test_an_agent_calls_its_tools_and_answers(server: OpenAIServer, way: str) -> None:
    made = agent(server, way, tools=[weather])
    for found in (made.invoke(asked("0.9")), await made.ainvoke(asked("0.9"))):
        kinds = [type(message) for message in found["messages"]]
        assert kinds == [HumanMessage, AIMessage, ToolMessage, AIMessage]
        answers = [message for message in found["messages"] if isinstance(message, AIMessage)]
        assert [said(answer)["chosen"] for answer in answers] == ["gpt-4o", "gpt-4o"]
        assert found["messages"][2].content == "sunny in 0.9"
    assert server.asked("gpt-5.4") == 0


@WAYS
def test_usage_is_counted_once(server: OpenAIServer, way: str) -> None:
    usage = UsageMetadataCallbackHandler()
    agent(server, way, tools=[weather]).invoke(asked("0.1"), {"callbacks": [usage]})
    assert {name: counted["total_tokens"] for name, counted in usage.usage_metadata.items()} == {"gpt-4o-mini": 84}


@WAYS
def test_the_turns_of_a_thread_stay_on_one_tier(server: OpenAIServer, way: str) -> None:
    made = agent(server, way, tools=[], checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    chosen = [said(made.invoke(asked(text), config)["messages"][-1])["chosen"] for text in ("0.1", "0.9", "0.1")]
    assert chosen == ["gpt-4o-mini", "gpt-4o", "gpt-4o"]
    assert len(made.get_state(config).values["messages"]) == 6


@WAYS
@pytest.mark.parametrize("strategy", [Report, ToolStrategy(Report), ProviderStrategy(Report)])
def test_structured_responses(server: OpenAIServer, way: str, strategy: Any) -> None:
    found = agent(server, way, tools=[], response_format=strategy).invoke(asked("0.1"))
    assert found["structured_response"] == Report(city="0.1")
    assert {request["model"] for request in server.requests} == {"gpt-4o-mini"}


@WAYS
def test_tokens_of_an_agent_are_streamed_once(server: OpenAIServer, way: str) -> None:
    made = agent(server, way, tools=[])
    words = [str(chunk.content) for chunk, _ in made.stream(asked("0.1"), stream_mode="messages")]
    assert [word for word in words if word] == ["answer", " 1"]


@WAYS
async def test_a_failing_model_is_none_of_the_agents_business(server: OpenAIServer, way: str) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(status=500)
    made = agent(server, way, tools=[])
    for found in (made.invoke(asked("0.1")), await made.ainvoke(asked("0.1"))):
        assert said(found["messages"][-1])["why"] == "server error"


def test_what_a_graph_raises_to_stop_is_no_failure(server: OpenAIServer) -> None:
    class Approve(AgentMiddleware):
        def wrap_model_call(self, request: ModelRequest, handler: Any) -> ModelResponse:
            interrupt("may I?")
            answer: ModelResponse = handler(request)
            return answer

    middleware = [by_middleware(server), Approve()]
    made = create_agent(chat(server.url, "gpt-5.4"), [], middleware=middleware, checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    stopped = made.invoke(asked("0.1"), config)
    assert stopped["__interrupt__"][0].value == "may I?"
    assert not server.requests
    resumed = made.invoke(Command(resume=True), config)
    assert said(resumed["messages"][-1])["chosen"] == "gpt-4o-mini"


def test_a_bound_model_is_asked_with_what_was_bound(server: OpenAIServer) -> None:
    tiers = [Tier(chat(server.url, "gpt-4o-mini").bind(temperature=0.1)), Tier(chat(server.url, "gpt-4o"))]
    middleware = RouterMiddleware(tiers, estimator=Scored(), thresholds=(0.5,))
    create_agent(chat(server.url, "gpt-5.4"), [], middleware=[middleware]).invoke(asked("0.1"))
    assert (server.requests[0]["model"], server.requests[0]["temperature"]) == ("gpt-4o-mini", 0.1)


def test_a_middleware_takes_a_router_or_tiers(server: OpenAIServer) -> None:
    with pytest.raises(ConfigError, match="not both"):
        RouterMiddleware(["a"], router=Router(["a"]))
    model = chat(server.url, "gpt-4o")
    assert (
        RouterMiddleware(router=Router([model])).router.names == RouterMiddleware([model]).router.names == ("gpt-4o",)
    )
