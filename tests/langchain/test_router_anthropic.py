"""Tiers of two providers, each by its real class, against servers that speak their protocols."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from costopt import Tier
from langchain_costopt import RouterRunnable
from tests.anthropic_server import AnthropicServer, anthropic_server
from tests.costopt.routing.models import Scored
from tests.langchain.test_router import said
from tests.langchain.test_router_conformance import chat
from tests.openai_server import Behaviour, OpenAIServer, openai_server


@pytest.fixture
def servers() -> Iterator[tuple[OpenAIServer, AnthropicServer]]:
    with openai_server() as one, anthropic_server() as other:
        yield one, other


Servers = tuple[OpenAIServer, AnthropicServer]


def routed(servers: Servers, **options: Any) -> RouterRunnable:
    one, other = servers
    claude = ChatAnthropic(model="claude-haiku-4-5", base_url=other.url, api_key="none", max_retries=0)
    tiers = [Tier(chat(one.url, "gpt-4o-mini", max_retries=0)), Tier(claude)]
    return RouterRunnable(tiers=tiers, **{"estimator": Scored(), "thresholds": (0.5,), **options})


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return "sunny"


class City(BaseModel):
    """A city."""

    name: str


async def test_each_provider_answers_what_it_is_asked(servers: Servers) -> None:
    router = routed(servers)
    for text, words, name in (("0.1", "answer", "gpt-4o-mini"), ("0.9", "claude", "claude-haiku-4-5")):
        whole = None
        for chunk in router.stream(text):
            whole = chunk if whole is None else whole + chunk
        for answer in (router.invoke(text), await router.ainvoke(text), whole):
            assert answer is not None
            assert answer.text.startswith(words)
            assert answer.usage_metadata is not None
            assert (said(answer)["chosen"], answer.usage_metadata["total_tokens"]) == (name, 42)
            assert said(answer)["cost"]


async def test_a_failing_provider_is_replaced_by_the_other(servers: Servers) -> None:
    servers[0].behaviours["gpt-4o-mini"] = Behaviour(status=429)
    router = routed(servers)
    assert said(router.invoke("0.1"))["why"] == "rate limit"
    assert "".join(chunk.text for chunk in router.stream("0.1")).startswith("claude")
    servers[1].status = 529
    with pytest.raises(Exception, match="no") as caught:
        await router.ainvoke("0.9")
    assert type(caught.value).__module__.startswith(("anthropic", "langchain_anthropic"))


async def test_tools_are_written_down_in_each_providers_way(servers: Servers) -> None:
    router = routed(servers).bind_tools([weather], tool_choice="any")
    for text in ("0.1", "0.9"):
        call = router.invoke(text).tool_calls[0]
        assert (call["name"], call["args"]) == ("weather", {"city": text})
        whole: Any = None
        async for chunk in router.astream(text):
            whole = chunk if whole is None else whole + chunk
        assert whole.tool_calls[0]["args"] == {"city": text}
    assert servers[0].requests[0]["tools"][0]["function"]["name"] == "weather"
    assert servers[1].requests[0]["tools"][0]["input_schema"]["properties"]["city"]["type"] == "string"


def test_schemas_are_asked_for_and_read_in_each_providers_way(servers: Servers) -> None:
    router = routed(servers).with_structured_output(City)
    assert [router.invoke(text) for text in ("0.1", "0.9")] == [City(name="0.1"), City(name="0.9")]


def test_a_conversation_may_change_providers(servers: Servers) -> None:
    router = routed(servers).bind_tools([weather])
    history: list[Any] = [HumanMessage("0.1")]
    called = router.invoke(history)
    history += [called, weather.invoke(called.tool_calls[0])]
    history += [router.invoke(history), HumanMessage("0.9")]
    moved = router.invoke(history)
    assert (said(moved)["previous"], said(moved)["chosen"], said(moved)["moved"]) == (
        "gpt-4o-mini",
        "claude-haiku-4-5",
        "score",
    )
