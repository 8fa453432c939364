"""Tools, schemas and agents through `RouterLLM`: whoever is asked writes them down in its own way."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel, ValidationError

from costopt import Cascade, ConfigError, Price, Tier
from llamaindex_costopt import RouterLLM
from tests.costopt.routing.models import Scored
from tests.llamaindex.routed import NAMES, adrained, drained, llm, routed, said, user
from tests.openai_server import Behaviour, OpenAIServer

# Of LlamaIndex itself: its workflows look at what pydantic has since deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.PydanticDeprecatedSince20")

ASK = PromptTemplate("{score}")


class City(BaseModel):
    """A city."""

    name: str


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


TOOLS = [FunctionTool.from_defaults(weather)]


def textual(server: OpenAIServer) -> Tier:
    """A model that neither calls tools nor knows schemas."""
    like = OpenAILike(model="small", api_base=server.url, api_key="none", is_chat_model=True, max_retries=0)
    return Tier(like, price=Price(0, 0))


async def test_tools_are_offered_in_all_four_ways(server: OpenAIServer) -> None:
    router = routed(server)
    asked: dict[str, Any] = {"tools": TOOLS, "user_msg": "0.9", "tool_required": True}
    for answer in (
        router.chat_with_tools(**asked),
        await router.achat_with_tools(**asked),
        drained(router.stream_chat_with_tools(**asked)),
        await adrained(await router.astream_chat_with_tools(**asked)),
    ):
        (call,) = router.get_tool_calls_from_response(answer)
        assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "0.9"})
        assert said(answer)["chosen"] == "gpt-4o"
        assert (server.requests[-1]["tool_choice"], server.requests[-1]["parallel_tool_calls"]) == ("required", False)
        assert server.requests[-1]["tools"][0]["function"]["name"] == "weather"


def test_in_mid_stream_it_is_known_whose_tool_call_it_is(server: OpenAIServer) -> None:
    *pieces, last = routed(server).stream_chat_with_tools(TOOLS, user_msg="0.9", tool_required=True)
    assert [said(piece) for piece in pieces] == [{"chosen": "gpt-4o"}] * len(pieces)
    assert "attempts" in said(last)


async def test_predict_and_call(server: OpenAIServer) -> None:
    assert str(routed(server).predict_and_call(TOOLS, "0.1")) == "sunny in 0.1"
    assert str(await routed(server).apredict_and_call(TOOLS, "0.1")) == "sunny in 0.1"


async def test_an_agent_without_tools_asks_who_cannot_call_any(server: OpenAIServer) -> None:
    tiers = [Tier(MockLLM(), name="plain", price=Price(0, 0)), llm(server, "gpt-4o")]
    router = RouterLLM(tiers=tiers, estimator=Scored(), thresholds=(0.5,))
    assert str(await FunctionAgent(tools=[], llm=router, streaming=False).run("0.1")) == "user: 0.1\nassistant: "
    assert router.stats().answered == {"plain": 1}


def test_who_cannot_call_tools_is_not_asked_to(server: OpenAIServer) -> None:
    router = RouterLLM(tiers=[textual(server), llm(server, "gpt-4o")], estimator=Scored(), thresholds=(0.5,))
    assert router.metadata.is_function_calling_model
    offered = router.chat_with_tools(TOOLS, user_msg="0.1")
    assert (said(offered)["chosen"], said(offered)["excluded"]) == ("gpt-4o", {"small": "no tools"})
    assert said(router.chat_with_tools([], user_msg="0.1"))["chosen"] == "small"
    unable = RouterLLM(tiers=[textual(server)])
    assert not unable.metadata.is_function_calling_model
    with pytest.raises(ConfigError, match="no tools: add a tier that can"):
        unable.chat_with_tools(TOOLS, user_msg="0.1")


def test_a_tool_call_that_cannot_be_read_goes_on_to_the_next_tier(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(finish="length")
    answer = routed(server, cascade=Cascade()).chat_with_tools(TOOLS, user_msg="0.1", tool_required=True)
    assert said(answer)["why"] == "rejected: truncated"
    assert len(answer.message.blocks) == 1


async def test_objects(server: OpenAIServer) -> None:
    """By the provider's own schema, with usage and decision of the call in the books."""
    router = routed(server)
    found = [
        router.structured_predict(City, ASK, score="0.9"),
        await router.astructured_predict(City, ASK, score="0.9"),
        list(router.stream_structured_predict(City, ASK, score="0.9"))[-1],
        [each async for each in await router.astream_structured_predict(City, ASK, score="0.9")][-1],
        router.as_structured_llm(City).chat(user("0.9")).raw,
        (await router.as_structured_llm(City).achat(user("0.9"))).raw,
    ]
    assert found == [City(name="0.9")] * 6
    assert {request["response_format"]["type"] for request in server.requests} == {"json_schema"}
    assert router.stats().answered == {"gpt-4o": 6}
    assert router.stats().cost == 6 * Decimal("0.000195")


def test_what_an_object_is_asked_with(server: OpenAIServer) -> None:
    """Some of the arguments are for the router, and the others for whichever model is asked."""
    router = routed(server)
    given = {"model": "gpt-4o", "max_tokens": 7, "thread_id": "1"}
    assert router.structured_predict(City, ASK, given, score="0.1") == City(name="0.1")
    assert (server.requests[0]["model"], server.requests[0]["max_tokens"]) == ("gpt-4o", 7)
    assert "thread_id" not in server.requests[0]
    assert router.structured_predict(City, ASK, {"thread_id": "1"}, score="0.1") == City(name="0.1")
    assert server.requests[1]["model"] == "gpt-4o"
    assert given == {"model": "gpt-4o", "max_tokens": 7, "thread_id": "1"}


async def test_objects_by_tools(server: OpenAIServer) -> None:
    """A model that has no schemas is made to call a tool."""
    router = RouterLLM(tiers=[llm(server, "gpt-4")])
    found = [
        router.structured_predict(City, ASK, score="Oslo"),
        await router.astructured_predict(City, ASK, score="Oslo"),
        list(router.stream_structured_predict(City, ASK, score="Oslo"))[-1],
        [each async for each in await router.astream_structured_predict(City, ASK, score="Oslo")][-1],
    ]
    assert found == [City(name="Oslo")] * 4
    assert all(request["tools"][0]["function"]["name"] == "City" for request in server.requests)


async def test_objects_in_text(server: OpenAIServer) -> None:
    """A model that has neither is asked for JSON; braces of the user's own stay as they are."""
    server.behaviours["small"] = Behaviour(text='Here it is: {"name": "Oslo"}')
    router = RouterLLM(tiers=[textual(server)])
    prompt, same = PromptTemplate("Of {score}: {other}"), PromptTemplate("Of {score}: {other}")
    plain = textual(server).model.structured_predict(City, same, score="{x}")
    assert plain == router.structured_predict(City, prompt, score="{x}") == City(name="Oslo")
    assert await router.astructured_predict(City, prompt, score="{x}") == City(name="Oslo")
    assert all(request["messages"] == server.requests[0]["messages"] for request in server.requests)


@pytest.mark.parametrize("way", ["whole", "stream"])
def test_an_object_that_is_none_goes_on_to_the_next_tier(server: OpenAIServer, way: str) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(text='{"nome": "Oslo"}')
    router = routed(server, cascade=Cascade())
    if way == "whole":
        assert router.structured_predict(City, ASK, score="0.1") == City(name="0.1")
    else:
        assert list(router.stream_structured_predict(City, ASK, score="0.1"))[-1] == City(name="0.1")
    assert router.stats().rejected == {"schema": 1}
    with pytest.raises(ValidationError):
        routed(server).structured_predict(City, ASK, score="0.1")


async def test_objects_when_a_tier_fails(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(status=500)
    router = routed(server)
    assert router.structured_predict(City, ASK, score="0.1") == City(name="0.1")
    assert await router.astructured_predict(City, ASK, score="0.1") == City(name="0.1")
    streamed = [each async for each in await router.astream_structured_predict(City, ASK, score="0.1")]
    assert streamed[-1] == City(name="0.1")
    assert router.stats().failed["server error"] >= 2


@pytest.mark.parametrize("streaming", [True, False])
async def test_an_agent_calls_its_tools_and_answers(server: OpenAIServer, streaming: bool) -> None:
    router = routed(server)
    agent = FunctionAgent(tools=[weather], llm=router, streaming=streaming, system_prompt="Be brief.")
    found: Any = await agent.run("0.9")
    assert [call.tool_output.content for call in found.tool_calls] == ["sunny in 0.9"]
    assert str(found).startswith("answer ")
    # The second turn is the tool's; it stays where the conversation began.
    assert [request["model"] for request in server.requests] == ["gpt-4o"] * 2


async def test_agents_in_a_workflow(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(status=429)
    agent = FunctionAgent(name="helper", description="Helps.", tools=[weather], llm=routed(server))
    found = await AgentWorkflow(agents=[agent], root_agent="helper").run("0.1")
    assert str(found).startswith("answer ")
    assert server.asked("gpt-4o") == 2


def test_messages_are_not_changed_by_who_is_asked(server: OpenAIServer) -> None:
    history = user("0.1")
    before = [message.model_dump() for message in history]
    router = routed(server)
    router.chat_with_tools(TOOLS, user_msg=ChatMessage(role="user", content="0.9"), chat_history=history)
    router.structured_predict(City, ASK, score="0.1")
    assert [message.model_dump() for message in history] == before
    assert server.asked(NAMES[1]) == 1
