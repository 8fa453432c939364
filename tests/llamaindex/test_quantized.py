"""`QuantizedLLM` as applications use it, on a server on loopback: every way that LlamaIndex has of asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ImageBlock, LLMMetadata, TextBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.program import FunctionCallingProgram
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from costopt.errors import ConfigError, ContextLengthError, EngineError, TruncatedOutputError
from costopt.local.openai_engine import OpenAICompatibleEngine
from costopt.local.shared import shared_engine
from llamaindex_costopt import QuantizedLLM
from tests.behaviours import AnotherTask
from tests.faults.words import wait_for
from tests.openai_server import Behaviour, OpenAIServer

# Of LlamaIndex itself: some of its modules use what pydantic or Python have since deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.PydanticDeprecatedSince20")


@pytest.fixture
def llm(server: OpenAIServer) -> QuantizedLLM:
    return QuantizedLLM(model="m", base_url=server.url, max_retries=0)


class Age(BaseModel):
    """How old somebody is."""

    name: str
    years: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


async def gathered(answers: Any) -> list[Any]:
    return [answer async for answer in await answers]


# What every way of asking answers last: each hands back the text and what else was told.
WAYS: dict[str, Callable[[QuantizedLLM, str, dict[str, Any]], Any]] = {
    "chat": lambda llm, text, options: llm.chat(user(text), **options),
    "stream_chat": lambda llm, text, options: list(llm.stream_chat(user(text), **options))[-1],
    "achat": lambda llm, text, options: asyncio.run(llm.achat(user(text), **options)),
    "astream_chat": lambda llm, text, options: asyncio.run(gathered(llm.astream_chat(user(text), **options)))[-1],
    "complete": lambda llm, text, options: llm.complete(text, **options),
    "stream_complete": lambda llm, text, options: list(llm.stream_complete(text, **options))[-1],
    "acomplete": lambda llm, text, options: asyncio.run(llm.acomplete(text, **options)),
    "astream_complete": lambda llm, text, options: asyncio.run(gathered(llm.astream_complete(text, **options)))[-1],
}


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Callable[..., Any]:
    way = WAYS[request.param]
    return lambda llm, text="Hello", **options: way(llm, text, options)


def text_of(response: Any) -> str:
    return str(response.text if hasattr(response, "text") else response.message.content)


def test_every_way_of_asking_gives_the_same(llm: QuantizedLLM, server: OpenAIServer, ask: Callable[..., Any]) -> None:
    server.behaviours["m"] = Behaviour(text="one two three", logprobs=(-0.5,))
    found = ask(llm, logprobs=0, seed=4, stop=["END"])
    assert text_of(found) == "one two three"
    told = {"finish_reason": "stop", "prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
    assert found.additional_kwargs == told
    assert found.logprobs[0][0].logprob == -0.5
    assert found.raw["usage"]["total_tokens"] == 42
    sent = server.requests[0]
    assert sent["messages"] == [{"role": "user", "content": "Hello"}]
    assert (sent["seed"], sent["stop"], sent["top_logprobs"]) == (4, ["END"], 0)


def test_streams_grow(llm: QuantizedLLM, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text="one two three")
    chats = list(llm.stream_chat(user("Count")))
    assert [each.message.content for each in chats] == ["one", "one two", "one two three", "one two three"]
    assert [each.delta for each in chats] == ["one", " two", " three", ""]
    assert [each.text for each in llm.stream_complete("Count")][:2] == ["one", "one two"]


def test_a_call_overrides_the_model_s_settings(server: OpenAIServer) -> None:
    llm = QuantizedLLM(model="m", base_url=server.url, temperature=0.5, max_tokens=50, stop=["END"])
    llm.complete("Hello")
    llm.complete("Hello", temperature=0.0, max_tokens=5, stop=None)
    first, second = server.requests
    assert (first["temperature"], first["max_tokens"], first["stop"]) == (0.5, 50, ["END"])
    assert (second["temperature"], second["max_tokens"]) == (0.0, 5)
    assert "stop" not in second


def test_a_formatted_text_is_gone_on_from(llm: QuantizedLLM, server: OpenAIServer) -> None:
    assert llm.complete("Once upon", formatted=True).text == "answer 1"
    assert server.requests[0]["prompt"] == "Once upon"


async def test_awaiting_leaves_the_event_loop_free(llm: QuantizedLLM, server: OpenAIServer) -> None:
    server.behaviours["m"] = waiting = AnotherTask()
    one, other, _ = await asyncio.gather(llm.acomplete("Hello"), llm.achat(user("Hello")), waiting.turn())
    assert (one.text, other.message.content) == ("True", "True")


async def test_tools(llm: QuantizedLLM, server: OpenAIServer) -> None:
    tools = [FunctionTool.from_defaults(add)]
    ways = [
        llm.chat_with_tools(tools, "What is 3 and 3?"),
        await llm.achat_with_tools(tools, "What is 3 and 3?", tool_choice="add"),
        list(llm.stream_chat_with_tools(tools, "What is 3 and 3?", tool_required=True))[-1],
        (await gathered(llm.astream_chat_with_tools(tools, "What is 3 and 3?")))[-1],
    ]
    for response in ways:
        [call] = llm.get_tool_calls_from_response(response)
        assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 3, "b": 3})
    named = {"type": "function", "function": {"name": "add"}}
    assert [each["tool_choice"] for each in server.requests] == ["auto", named, "required", "auto"]
    assert llm.predict_and_call(tools, "What is 4 and 4?").response == "8"


def test_no_tool_was_called(llm: QuantizedLLM) -> None:
    response = llm.chat(user("Hello"))
    assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="no tool was called"):
        llm.get_tool_calls_from_response(response)


async def test_an_agent_calls_tools(llm: QuantizedLLM, server: OpenAIServer) -> None:
    for streaming in (False, True):
        server.requests.clear()
        agent = FunctionAgent(tools=[add], llm=llm, streaming=streaming)
        said = await agent.run("What is 7 and 7?")
        assert str(said).startswith("answer")
        roles = [message["role"] for message in server.requests[-1]["messages"]]
        assert roles == ["user", "assistant", "tool"]
        assert server.requests[-1]["messages"][-1]["content"] == "14"
        assert server.requests[-1]["messages"][1]["tool_calls"][0]["function"]["name"] == "add"


async def test_structured_prediction_is_constrained(llm: QuantizedLLM, server: OpenAIServer) -> None:
    prompt = PromptTemplate("'Anna' is {years} years old")
    anna = Age(name="Anna", years=30)
    assert llm.structured_predict(Age, prompt, years=30) == anna
    assert await llm.astructured_predict(Age, prompt, years=30) == anna
    assert list(llm.stream_structured_predict(Age, prompt, years=30))[-1] == anna
    assert (await gathered(llm.astream_structured_predict(Age, prompt, years=30)))[-1] == anna
    assert llm.as_structured_llm(Age).chat(user("'Anna' is 30 years old")).raw == anna
    assert {request["response_format"]["type"] for request in server.requests} == {"json_schema"}


def test_structured_prediction_by_a_function(llm: QuantizedLLM) -> None:
    program = FunctionCallingProgram.from_defaults(Age, "'Anna' is 30 years old", llm=llm)
    assert program() == Age(name="Anna", years=30)


def test_a_structured_answer_that_was_cut_off(llm: QuantizedLLM, server: OpenAIServer) -> None:
    server.behaviours["m"] = Behaviour(text='{"name": "An', finish="length")
    with pytest.raises(TruncatedOutputError):
        llm.structured_predict(Age, PromptTemplate("Anna is 30"), llm_kwargs={"max_tokens": 4})


def test_a_conversation_is_sent_as_it_was(llm: QuantizedLLM, server: OpenAIServer) -> None:
    call = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs={"a": 1, "b": 2})
    image = ImageBlock(url="http://localhost/picture.png")
    llm.chat(
        [
            ChatMessage(role=MessageRole.SYSTEM, content="Be brief."),
            ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text="What is"), TextBlock(text="1 + 2?")]),
            ChatMessage(role=MessageRole.ASSISTANT, blocks=[ThinkingBlock(content="hm"), call]),
            ChatMessage(role=MessageRole.TOOL, content="3", additional_kwargs={"tool_call_id": "c1"}),
            ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text="And this?"), image]),
        ]
    )
    function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
    assert server.requests[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is\n1 + 2?"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this?"},
                {"type": "image_url", "image_url": {"url": "http://localhost/picture.png"}},
            ],
        },
    ]


def test_what_it_says_of_itself(server: OpenAIServer) -> None:
    llm = QuantizedLLM(model="m", base_url=server.url, context_window=8_192, max_tokens=99)
    assert llm.metadata == LLMMetadata(
        context_window=8_192, num_output=99, is_chat_model=True, is_function_calling_model=True, model_name="m"
    )
    assert not QuantizedLLM(model="m", base_url=server.url, function_calling=False).metadata.is_function_calling_model
    assert "sk-secret" not in str(QuantizedLLM(model="m", base_url=server.url, api_key="sk-secret").to_payload())  # type: ignore[arg-type]


def test_objects_with_the_same_settings_share_an_engine(server: OpenAIServer) -> None:
    llm = QuantizedLLM(model="m", base_url=server.url, timeout=7.0)
    assert llm.served_by is QuantizedLLM(model="m", base_url=server.url, timeout=7.0).served_by
    assert llm.served_by is shared_engine("m", base_url=server.url, timeout=7.0)


def test_as_the_application_s_model(server: OpenAIServer) -> None:
    engine = OpenAICompatibleEngine(base_url=server.url, model="m")
    held = Settings._llm
    try:
        Settings.llm = QuantizedLLM(engine=engine)
        assert Settings.llm.predict(PromptTemplate("Say {word}"), word="hello") == "answer 1"
    finally:
        Settings._llm = held
    assert engine.stats().finished == 1
    engine.close()


def test_tokens_are_counted(server: OpenAIServer) -> None:
    counter = TokenCountingHandler()
    QuantizedLLM(model="m", base_url=server.url, callback_manager=CallbackManager([counter])).chat(user("Hello"))
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (30, 12)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Behaviour(500, "CUDA error"), EngineError),
        (Behaviour(400, "maximum context length is 4096 tokens"), ContextLengthError),
        (Behaviour(401, "no such key"), ConfigError),
    ],
    ids=lambda each: getattr(each, "error", None),
)
def test_errors(
    llm: QuantizedLLM, server: OpenAIServer, ask: Callable[..., Any], behaviour: Behaviour, kind: type[Exception]
) -> None:
    server.behaviours["m"] = behaviour
    with pytest.raises(kind, match=behaviour.error):
        ask(llm)


@pytest.mark.parametrize("way", ["chat", "complete", "achat", "acomplete"])
def test_an_answer_that_takes_too_long_is_given_up(server: OpenAIServer, way: str) -> None:
    server.behaviours["m"] = Behaviour(seconds=2.0)
    engine = OpenAICompatibleEngine(base_url=server.url, model="m")
    with pytest.raises(TimeoutError) as held:
        WAYS[way](QuantizedLLM(engine=engine, timeout=0.05), "Hello", {})
    wait_for(lambda: engine.stats().cancelled == 1, "it is given up, though somebody holds the error", timeout=1)
    engine.close()
    del held


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": ""}, "give model="),
        ({"quantization": "nf4"}, "a matter of the server"),
        ({"temperature": -1}, "temperature=-1"),
        ({"base_url": "localhost"}, "whole address"),
        ({"context": 8_192}, r'context= is an option of the engine: give options=\{"context": ...\}'),
        ({"temprature": 1}, "QuantizedLLM has no option temprature: it has .*temperature"),
    ],
)
def test_arguments_that_cannot_be_meant(server: OpenAIServer, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        QuantizedLLM(**{"model": "m", "base_url": server.url, **options})


def test_options_that_there_are_not(llm: QuantizedLLM) -> None:
    with pytest.raises(ConfigError, match="no option presence_penalty of a call"):
        llm.complete("Hello", presence_penalty=1.0)
