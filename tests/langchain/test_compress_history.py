"""Chats on their way to a model, in a chain and in an agent: shorter on the wire, whole in the agent's state."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from costopt import ConfigError, Price
from costopt.compression.history import HistoryCompressor as Core
from costopt.compression.history import HistoryResult
from langchain_costopt import CompressionMiddleware, HistoryCompressor
from tests.costopt.compression.chats import agent_chat, essay, log
from tests.faults.words import Words
from tests.langchain.models import CountingModel
from tests.langchain.test_router_conformance import chat
from tests.openai_server import OpenAIServer

FREE = Price(1, 1)  # no prompt cache


@tool
def logs(host: str) -> str:
    """What a host logged."""
    return log(len(host), 80)


def small(**options: Any) -> Any:
    return {"embedder": Words(), "price": FREE, "max_tool_tokens": 100, "max_turn_tokens": 300, **options}


def messages_of(seed: int, steps: int) -> list[BaseMessage]:
    messages = convert_to_messages(agent_chat(seed, steps))
    for i, message in enumerate(messages):
        message.id = f"id-{i}"
        message.response_metadata = {"model_name": "gpt-4o", "costopt": {"chosen": "gpt-4o"}}
    return messages


def broken(texts: Sequence[str]) -> Any:
    raise RuntimeError("no embedder today")


async def test_messages_keep_all_but_their_text() -> None:
    messages, compressor = messages_of(1, 12), HistoryCompressor(**small())
    before = [message.model_copy(deep=True) for message in messages]
    shorter = compressor.invoke(messages)
    assert before == messages, "what came in is left alone"
    assert await compressor.ainvoke(messages) == shorter
    changed = [i for i, (new, old) in enumerate(zip(shorter, messages, strict=True)) if new is not old]
    assert changed
    for i in changed:
        new, old = shorter[i], messages[i]
        same = ("id", "name", "additional_kwargs", "tool_calls", "tool_call_id", "type", "status", "artifact")
        assert all(getattr(new, name, None) == getattr(old, name, None) for name in same)
        ours = new.response_metadata["costopt"]
        assert ours["chosen"] == "gpt-4o"
        assert ours["compression"]["tokens_after"] < ours["compression"]["tokens_before"]
        assert len(str(new.content)) < len(str(old.content))
    assert compressor.stats().calls == 2
    assert compressor.stats().saved_tokens > 0


def test_a_tool_message_keeps_its_artifact_and_chunks_are_messages() -> None:
    artifact = object()
    messages = [
        HumanMessage("Which host was slow?"),
        AIMessageChunk("", tool_call_chunks=[{"name": "logs", "args": '{"host": "a"}', "id": "1", "index": 0}]),
        ToolMessage(log(1, 80), tool_call_id="1", artifact=artifact, status="error"),
        *[AIMessage("Amber."), HumanMessage("And then?")] * 4,
    ]
    shorter = HistoryCompressor(**small()).invoke(messages)
    assert isinstance(shorter[2], ToolMessage)
    assert len(str(shorter[2].content)) < len(str(messages[2].content))
    assert shorter[2].artifact is artifact
    assert shorter[2].status == "error"


def test_it_shortens_as_the_core_does_on_plain_messages() -> None:
    plain = agent_chat(2, 12)
    core = Core(**small())
    found: HistoryResult = core.compress(plain)
    shorter = HistoryCompressor(core=core).invoke(convert_to_messages(plain))
    assert found.shortened
    assert [message.content or None for message in shorter] == [message["content"] for message in found.messages]


async def test_it_stands_in_a_chain() -> None:
    llm = CountingModel()
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), MessagesPlaceholder("history")])
    chain = prompt | HistoryCompressor(**small()) | llm
    history = messages_of(3, 12)
    chain.invoke({"history": history})
    await chain.ainvoke({"history": history})
    assert llm.calls[0] == llm.calls[1]
    assert len(llm.calls[0]) == len(history) + 1
    assert sum(len(str(message.content)) for message in llm.calls[0]) < sum(len(str(m.content)) for m in history)
    assert [each.type for each in (HistoryCompressor() | llm).batch(["Hello", [("user", "Hello")]])] == ["ai", "ai"]


async def test_an_agent_sends_less_and_remembers_all(server: OpenAIServer) -> None:
    middleware = CompressionMiddleware(**small(keep_last=2))
    agent = create_agent(
        chat(server.url, "gpt-4o"),
        [logs],
        system_prompt="Be brief.",
        middleware=[middleware],
        checkpointer=InMemorySaver(),
    )
    config: Any = {"configurable": {"thread_id": "1"}}
    for i in range(3):
        agent.invoke({"messages": [("user", f"How is host {i}?")]}, config)
        await agent.ainvoke({"messages": [("user", f"And host {i + 9}?")]}, config)
    kept = agent.get_state(config).values["messages"]
    results = [message for message in kept if isinstance(message, ToolMessage)]
    assert len(results) == 6
    assert all(message.content.count("\n") == 79 for message in results), "the state has all"
    last = server.requests[-1]["messages"]
    told = [message for message in last if message["role"] == "tool"]
    assert [message["content"].count("\n") == 79 for message in told] == [False] * 5 + [True]
    assert [message["content"] for message in last if message["role"] == "system"] == ["Be brief."]
    for i, message in enumerate(last):
        if message["role"] == "tool":
            assert message["tool_call_id"] == last[i - 1]["tool_calls"][0]["id"]
    assert middleware.stats().calls == 12
    assert middleware.stats().saved_tokens > 0


async def test_what_was_shortened_on_the_wire_is_the_same_in_every_later_request(server: OpenAIServer) -> None:
    agent = create_agent(chat(server.url, "gpt-4o"), [logs], middleware=[CompressionMiddleware(**small(keep_last=2))])
    messages: list[Any] = []
    for i in range(6):
        messages = agent.invoke({"messages": [*messages, ("user", f"How is host {i}?")]})["messages"]
    shortened: dict[int, str] = {}
    for request in server.requests:
        for i, message in enumerate(request["messages"]):
            if i in shortened:
                assert message["content"] == shortened[i]
            elif message["role"] == "tool" and message["content"].count("\n") < 79:
                shortened[i] = message["content"]
    assert len(shortened) == 5


def test_tokens_and_prices_are_those_of_the_model_that_is_called(server: OpenAIServer) -> None:
    asked: list[str] = []

    class Other(AgentMiddleware):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return handler(request.override(model=other))

    other = chat(server.url, "gpt-4")
    by_model = CompressionMiddleware(embedder=Words())
    fixed = CompressionMiddleware(embedder=Words(), model="gpt-4o-mini")
    for middleware in (by_model, fixed):
        agent = create_agent(chat(server.url, "gpt-4o"), [], middleware=[Other(), middleware])
        agent.invoke({"messages": [("user", "Hello")]})
        asked.append(server.requests[-1]["model"])
    assert asked == ["gpt-4", "gpt-4"]
    assert sorted(by_model._cores) == ["gpt-4", "gpt-4o"]
    assert by_model._cores["gpt-4"].compress([{"role": "user", "content": "Hello"}]).counted_by == "cl100k_base"
    assert len(fixed._cores) == 1


@pytest.mark.parametrize("made", [HistoryCompressor, CompressionMiddleware])
async def test_a_failure_leaves_the_chat_as_it_is_and_is_logged_once(
    made: Any, caplog: pytest.LogCaptureFixture, server: OpenAIServer
) -> None:
    options = small()
    options["embedder"].fault = broken
    lever, messages = made(**options), messages_of(1, 12)
    with caplog.at_level(logging.WARNING, "costopt"):
        if isinstance(lever, HistoryCompressor):
            assert lever.invoke(messages) == messages
            assert await lever.ainvoke(messages) == messages
        else:
            agent = create_agent(chat(server.url, "gpt-4o"), [], middleware=[lever])
            assert len(agent.invoke({"messages": messages})["messages"]) == len(messages) + 1
            await agent.ainvoke({"messages": messages})
            assert server.requests[0]["messages"][3]["content"] == messages[3].content
    assert lever.stats().failures == 2
    assert [record.message.count("no embedder today") for record in caplog.records] == [1]


def test_a_failing_model_fails_as_it_would_without(server: OpenAIServer) -> None:
    class Down(CountingModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            raise ConnectionError("the model is down")

    down: BaseChatModel = Down()
    middleware = CompressionMiddleware(embedder=Words())
    with pytest.raises(ConnectionError, match="the model is down"):
        create_agent(down, [], middleware=[middleware]).invoke({"messages": [("user", "Hello")]})
    assert middleware.stats().failures == 0


@pytest.mark.parametrize("made", [HistoryCompressor, CompressionMiddleware])
def test_options_that_cannot_be_meant_are_refused(made: Any) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        made(keep_last=0)
    with pytest.raises(ConfigError, match="not both"):
        made(core=Core(embedder=Words()), keep_last=3)


def test_instructions_stay_wherever_they_stand() -> None:
    rules = SystemMessage(essay(4, 300))
    messages = [rules, *messages_of(4, 6), SystemMessage(essay(5, 300)), *messages_of(5, 6)]
    shorter = HistoryCompressor(**small()).invoke(messages)
    assert [new is old for new, old in zip(shorter, messages, strict=True) if old.type == "system"] == [True] * 4
    assert shorter != messages
