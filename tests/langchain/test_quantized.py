"""`ChatQuantized` as applications use it, on a server on loopback; test_quantized_facts.py has one in this process."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel

from costopt import LocalStore, SimilarityJudge
from costopt.errors import ConfigError, ContextLengthError, EngineError, TruncatedOutputError
from costopt.local.openai_engine import OpenAICompatibleEngine
from langchain_costopt import ChatQuantized, SemanticCache
from tests.behaviours import AnotherTask
from tests.faults.words import wait_for
from tests.openai_server import Behaviour, OpenAIServer


@pytest.fixture
def chat(server: OpenAIServer) -> ChatQuantized:
    return ChatQuantized(model="m", base_url=server.url, max_retries=0)


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Age(BaseModel):
    """How old somebody is."""

    name: str
    years: int


def test_an_answer_says_what_it_took(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="Paris", finish="length")
    found = chat.invoke("What is the capital of France?")
    assert found.text == "Paris"
    assert found.usage_metadata == {"input_tokens": 30, "output_tokens": 12, "total_tokens": 42}
    metadata = {"finish_reason": "length", "model_name": "m", "model_provider": "costopt"}
    assert found.response_metadata == metadata
    assert server.requests[0]["messages"] == [{"role": "user", "content": "What is the capital of France?"}]


def test_a_stream_comes_piece_by_piece_with_usage_once(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="one two three")
    chunks = list(chat.stream("Count"))
    assert [chunk.text for chunk in chunks if chunk.text] == ["one", " two", " three"]
    assert [chunk.usage_metadata is not None for chunk in chunks].count(True) == 1
    assert chunks[-1].response_metadata["finish_reason"] == "stop"
    assert chunks[-1].chunk_position == "last"


async def test_awaiting_callers_get_the_same(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="one two three", logprobs=(-0.5,))
    options: Any = {"logprobs": 1, "seed": 4}
    blocking = chat.invoke("Count", **options)
    awaiting = await chat.ainvoke("Count", **options)
    streamed: Any = None
    for chunk in chat.stream("Count", **options):
        streamed = chunk if streamed is None else streamed + chunk
    astreamed: Any = None
    async for chunk in chat.astream("Count", **options):
        astreamed = chunk if astreamed is None else astreamed + chunk
    for other in (awaiting, streamed, astreamed):
        assert other.text == blocking.text
        assert other.usage_metadata == blocking.usage_metadata
        assert other.response_metadata == blocking.response_metadata
    sent = [{**request, "stream": None} for request in server.requests]
    assert all(each == sent[0] for each in sent)
    assert sent[0]["seed"] == 4


async def test_awaiting_leaves_the_event_loop_free(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = other = AnotherTask()
    answer, _ = await asyncio.gather(chat.ainvoke("Hello"), other.turn())
    assert answer.text == "True"


def test_a_call_overrides_the_model_s_settings(server: OpenAIServer) -> None:
    chat = ChatQuantized(model="m", base_url=server.url, temperature=0.5, max_tokens=50, stop=["END"], seed=1)
    chat.invoke("Hello")
    chat.invoke("Hello", temperature=0.0, max_tokens=5, stop=["STOP"], top_p=0.9)
    chat.bind(seed=2).with_config(tags=["a"]).invoke("Hello", stop=[])
    first, second, third = server.requests
    assert (first["temperature"], first["max_tokens"], first["stop"], first["seed"]) == (0.5, 50, ["END"], 1)
    assert (second["temperature"], second["max_tokens"], second["stop"], second["top_p"]) == (0.0, 5, ["STOP"], 0.9)
    assert third["seed"] == 2
    assert "stop" not in third


def test_log_probabilities_are_in_the_metadata(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="a", logprobs=(-0.5,))
    [row] = chat.invoke("Hello", logprobs=True).response_metadata["logprobs"]["content"]
    assert (row["token"], row["logprob"]) == ("a", -0.5)
    assert server.requests[0]["top_logprobs"] == 0
    chat.invoke("Hello", logprobs=True, top_logprobs=3)
    assert server.requests[1]["top_logprobs"] == 3
    chat.invoke("Hello")
    assert "logprobs" not in server.requests[2]


def test_a_conversation_with_tools_is_sent_as_it_was(chat: ChatQuantized, server: OpenAIServer) -> None:
    call = {"name": "add", "args": {"a": 1, "b": 2}, "id": "call_1", "type": "tool_call"}
    history = [
        SystemMessage("Be brief."),
        HumanMessage("What is 1 + 2?"),
        AIMessage(content=[{"type": "reasoning", "reasoning": "hm"}], tool_calls=[call]),
        ToolMessage("3", tool_call_id="call_1"),
        AIMessage([{"type": "text", "text": "It is "}, {"type": "text", "text": "3."}]),
        HumanMessage([{"type": "text", "text": "Thanks"}]),
    ]
    chat.bind_tools([add]).invoke(history)
    function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    assert server.requests[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 1 + 2?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "id": "call_1", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
        {"role": "user", "content": "Thanks"},
    ]
    assert server.requests[0]["tools"][0]["function"]["name"] == "add"
    assert server.requests[0]["tool_choice"] == "auto"


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ("any", "required"),
        ("required", "required"),
        (True, "required"),
        ("add", {"type": "function", "function": {"name": "add"}}),
        ({"type": "function", "function": {"name": "add"}}, {"type": "function", "function": {"name": "add"}}),
    ],
)
def test_every_way_to_say_which_tool(chat: ChatQuantized, server: OpenAIServer, choice: Any, sent: Any) -> None:
    chat.bind_tools([add], tool_choice=choice).invoke("What is 2 and 2?")
    assert server.requests[0]["tool_choice"] == sent


def test_a_tool_that_is_not_on_offer(chat: ChatQuantized) -> None:
    with pytest.raises(ConfigError, match="what is on offer: 'add'"):
        chat.bind_tools([add], tool_choice="subtract")


def test_arguments_that_cannot_be_read_are_an_invalid_call(chat: ChatQuantized, server: OpenAIServer) -> None:
    from costopt.local.engine import Generation, ToolCall
    from langchain_costopt.quantized_messages import message_of

    made = Generation("", (ToolCall("add", '{"a": ', "c1"), ToolCall("add", '{"a": 1}', "c2")), "tool_calls", None)
    message = message_of(made, "m")
    assert [call["id"] for call in message.tool_calls] == ["c2"]
    assert [(call["id"], call["args"]) for call in message.invalid_tool_calls] == [("c1", '{"a": ')]


def test_an_agent_calls_tools(chat: ChatQuantized, server: OpenAIServer) -> None:
    agent = create_agent(chat, [add], system_prompt="You add.")
    said = agent.invoke({"messages": [HumanMessage("What is 7 and 7?")]})["messages"]
    assert [type(message).__name__ for message in said] == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    assert said[2].content == "14"


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_answers(chat: ChatQuantized, method: Any) -> None:
    structured = chat.with_structured_output(Age, method=method)
    question = "'Anna' is 30 years old"
    for found in (structured.invoke(question), await structured.ainvoke(question)):
        assert found == Age(name="Anna", years=30)
    as_dict = chat.with_structured_output(Age.model_json_schema(), method=method, include_raw=True).invoke(question)
    assert as_dict["parsed"] == {"name": "Anna", "years": 30}
    assert as_dict["parsing_error"] is None
    assert isinstance(as_dict["raw"], AIMessage)


def test_a_structured_answer_that_was_cut_off(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text='{"name": "An', finish="length")
    with pytest.raises(TruncatedOutputError):
        chat.with_structured_output(Age).invoke("Anna is 30", max_tokens=4)


@pytest.mark.parametrize("awaiting", [False, True])
async def test_a_batch_is_submitted_together(server: OpenAIServer, awaiting: bool) -> None:
    """The server answers none before it has all."""
    together = threading.Barrier(40)

    def waits(_: int) -> Behaviour:
        together.wait(20)
        return Behaviour()

    server.behaviours["m"] = waits
    chat = ChatQuantized(model="m", base_url=server.url, max_retries=0)
    questions = [f"question {i}" for i in range(40)]
    found = await chat.abatch(questions) if awaiting else await asyncio.to_thread(chat.batch, questions)
    assert len({message.text for message in found}) == 40
    assert sorted(request["messages"][0]["content"] for request in server.requests) == sorted(questions)
    assert chat.batch([]) == []


async def test_a_batch_in_order_with_what_failed(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = lambda number: Behaviour(500) if number == 2 else Behaviour()
    for found in (
        chat.batch(["a", "b", "c"], {"max_concurrency": 1}, return_exceptions=True),
        await chat.abatch(["a", "b", "c"], {"max_concurrency": 1}, return_exceptions=True),
    ):
        kinds = [type(each) for each in found]
        assert kinds in ([AIMessage, EngineError, AIMessage], [AIMessage] * 3)
    server.behaviours["m"] = Behaviour(500)
    with pytest.raises(EngineError):
        await chat.abatch(["a", "b"])


def test_objects_with_the_same_settings_share_an_engine(server: OpenAIServer) -> None:
    one, other = (ChatQuantized(model="m", base_url=server.url, timeout=7.0) for _ in range(2))
    assert one.served_by is other.served_by
    assert one.bind(seed=1).bound.served_by is one.served_by  # type: ignore[attr-defined]
    assert one.model_copy().served_by is one.served_by


def test_an_engine_of_one_s_own(server: OpenAIServer) -> None:
    engine = OpenAICompatibleEngine(base_url=server.url, model="m")
    chat = ChatQuantized(engine=engine)
    assert chat.invoke("Hello").response_metadata["model_name"] == engine.name
    assert engine.stats().finished == 1
    engine.close()


def test_leaving_a_stream_gives_the_request_up(server: OpenAIServer) -> None:
    engine = OpenAICompatibleEngine(base_url=server.url, model="m")
    chat = ChatQuantized(engine=engine)
    for _ in chat.stream("Count"):
        break
    gc.collect()
    until = time.monotonic() + 10
    while engine.stats().running and time.monotonic() < until:
        time.sleep(0.01)
    assert engine.stats().running == 0
    engine.close()


def test_too_long_for_the_context(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(400, "maximum context length is 4096 tokens")
    with pytest.raises(ContextLengthError, match="4096"):
        chat.invoke("Hello")


async def test_an_answer_that_takes_too_long(server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(seconds=2.0)
    engine = OpenAICompatibleEngine(base_url=server.url, model="m")
    chat = ChatQuantized(engine=engine, timeout=0.05)
    with pytest.raises(TimeoutError) as held:
        chat.invoke("Hello")
    wait_for(lambda: engine.stats().cancelled == 1, "it is given up, though somebody holds the error", timeout=1)
    with pytest.raises(TimeoutError):
        await chat.ainvoke("Hello")
    engine.close()
    del held


def test_images_go_to_the_server(chat: ChatQuantized, server: OpenAIServer) -> None:
    image = {"type": "image", "base64": "aGk=", "mime_type": "image/png"}
    chat.invoke([HumanMessage([{"type": "text", "text": "What is this?"}, image])])
    [message] = server.requests[0]["messages"]
    assert message["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}


def test_a_semantic_cache_tells_models_and_settings_apart(server: OpenAIServer, tmp_path: Any) -> None:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), judge=SimilarityJudge(0.9), time_budget=10.0)
    set_llm_cache(cache.warm())
    try:
        for model, temperature in (("m", 0.0), ("m", 0.0), ("other", 0.0), ("m", 1.0)):
            ChatQuantized(model=model, base_url=server.url, temperature=temperature).invoke("Hello there")
        assert len(server.requests) == 3
    finally:
        set_llm_cache(None)
        cache.close()


def test_new_tokens_are_told_to_callbacks(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="one two")

    class Listens(BaseCallbackHandler):
        def __init__(self) -> None:
            self.heard: list[str] = []
            self.params: dict[str, Any] = {}

        def on_chat_model_start(self, *_: Any, **kwargs: Any) -> None:
            self.params = kwargs["metadata"]

        def on_llm_new_token(self, token: str, **_: Any) -> None:
            self.heard.append(token)

    listener = Listens()
    list(chat.stream("Count", config={"callbacks": [listener]}))
    assert "".join(listener.heard) == "one two"
    assert (listener.params["ls_provider"], listener.params["ls_model_name"]) == ("local", "m")


async def test_in_a_chain(chat: ChatQuantized, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="Paris")
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")]) | chat
    assert (await chain.ainvoke({"question": "The capital of France?"})).text == "Paris"
    assert isinstance(await anext(chain.astream({"question": "?"})), AIMessageChunk)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": ""}, "give model="),
        ({"quantization": "nf4"}, "a matter of the server"),
        ({"temperature": -1}, "temperature=-1"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"stop": [""]}, "texts that are not empty"),
        ({"logprobs": 50}, "logprobs=50"),
        ({"base_url": "localhost"}, "whole address"),
        ({"device": "cuda:1"}, r'device= is an option of the engine: give options=\{"device": ...\}'),
        ({"temprature": 1}, "ChatQuantized has no option temprature: it has .*model, .*temperature"),
    ],
)
def test_arguments_that_cannot_be_meant(server: OpenAIServer, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ChatQuantized(**{"model": "m", "base_url": server.url, **options})


def test_options_that_there_are_not(chat: ChatQuantized) -> None:
    with pytest.raises(ConfigError, match="no option presence_penalty of a call"):
        chat.invoke("Hello", presence_penalty=1.0)
    with pytest.raises(ValueError, match="temprature"):
        ChatQuantized(model="m", base_url="http://localhost:1/v1", temprature=0)  # type: ignore[call-arg]


def test_a_key_is_not_shown(server: OpenAIServer) -> None:
    chat = ChatQuantized(model="m", base_url=server.url, api_key="sk-secret")  # type: ignore[arg-type]
    assert "sk-secret" not in f"{chat!r}{chat._identifying_params}"
