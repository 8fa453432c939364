"""`ChatQuantized` with a model in this process: LangChain's suites, and answers that are known to be right.

The model has half a million parameters and knows two hundred facts. What it cannot do is skipped, once it has failed
at it; tool calls and structured answers are enforced token by token, whatever the model would have liked to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.integration_tests.chat_models import unicode_customer
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import BaseModel, ConfigDict, Field

from costopt.errors import ConfigError, ContextLengthError, TruncatedOutputError
from costopt.local.transformers_engine import TransformersEngine
from langchain_costopt import ChatQuantized
from llamaindex_costopt import QuantizedLLM
from tests.tiny_models import FACTS, answer, question

NAMES = list(FACTS)
PLAIN: dict[str, Any] = {"quantization": "none", "options": {"dtype": "float32"}}


class TestUnit(ChatModelUnitTests):
    folder: Path

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _model(cls, facts_model: Path) -> None:
        cls.folder = facts_model

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatQuantized

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": str(self.folder), **PLAIN}


class TestIntegration(ChatModelIntegrationTests):
    folder: Path
    held: TransformersEngine

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _model(cls, facts_model: Path) -> Iterator[None]:
        cls.folder = facts_model
        # One engine for the class: without it each test would load the model again.
        with TransformersEngine.shared(facts_model, quantization="none", dtype="float32") as cls.held:
            yield

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatQuantized

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # What it cannot end it would go on with to the end of its context, in every such test.
        return {"model": str(self.folder), "max_tokens": 40, **PLAIN}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return False  # another folder is another model

    @property
    def supports_image_inputs(self) -> bool:
        return False

    @pytest.fixture(autouse=True)
    def _beyond_it(self, request: pytest.FixtureRequest) -> None:
        for reason, (cannot, names) in BEYOND_IT.items():
            if request.node.originalname in names.split() and cannot(str(self.folder)):
                pytest.skip(reason)


def _model(folder: str) -> ChatQuantized:
    return ChatQuantized(model=folder, max_tokens=40, **PLAIN)


@cache
def runs_on(folder: str) -> bool:
    """Whether a text that a schema leaves to it comes to no end."""
    joke = {"title": "Joke", "type": "object", "properties": {"setup": {"type": "string"}}, "required": ["setup"]}
    try:
        _model(folder).with_structured_output(joke, method="json_schema").invoke("Tell me a joke about cats.")
    except TruncatedOutputError:
        return True
    return False


@cache
def calls_nothing(folder: str) -> bool:
    """Whether it leaves a tool alone that it is offered, and would need."""
    found = _model(folder).bind_tools([LOOK_UP]).invoke(f"Look up {NAMES[0]}.")
    return not (isinstance(found, AIMessage) and found.tool_calls)


@cache
def holds_too_little(folder: str) -> bool:
    """Whether a tool and a question in Chinese are more than its context."""
    calling = _model(folder).bind_tools([unicode_customer], tool_choice="any")
    try:
        calling.invoke("Create a customer named '你好啊集团' (Hello Group) - a Chinese technology company")
    except ContextLengthError:
        return True
    return False


# What half a million parameters cannot do, whatever runs them, is measured first; what they can is shown below.
BEYOND_IT = {
    "it never learned to end a text or a number of its own, and is cut off": (
        runs_on,
        """
        test_tool_calling test_tool_calling_async test_bind_runnables_as_tools test_tool_choice
        test_structured_few_shot_examples test_structured_output test_structured_output_async
        test_structured_output_pydantic_2_v1 test_structured_output_optional_param test_json_mode
        """,
    ),
    "it never learned to call tools of its own accord": (calls_nothing, "test_agent_loop"),
    "the question has more tokens, to a vocabulary of a thousand, than its context of 512": (
        holds_too_little,
        "test_unicode_tool_call_integration",
    ),
}


@pytest.fixture(scope="module")
def chat(facts_model: Path) -> Iterator[ChatQuantized]:
    chat = ChatQuantized(model=str(facts_model), max_tokens=20, **PLAIN)
    yield chat
    chat.served_by.close()


def right(messages: list[Any], names: list[str] = NAMES) -> int:
    return sum(each.text == answer(name) for each, name in zip(messages, names, strict=True))


def test_a_batch_is_right_throughout_and_runs_together(chat: ChatQuantized) -> None:
    before = chat.served_by.stats().steps
    found = chat.batch([question(name) for name in NAMES])
    assert right(found) == len(NAMES)
    made = sum(message.usage_metadata["output_tokens"] for message in found)
    assert chat.served_by.stats().steps - before < made / 4  # tokens for each forward pass


async def test_so_is_an_awaited_one(chat: ChatQuantized) -> None:
    assert right(await chat.abatch([question(name) for name in NAMES])) == len(NAMES)


def test_a_stream_is_the_same_answer_token_by_token(chat: ChatQuantized) -> None:
    chunks = list(chat.stream(question(NAMES[0])))
    assert len([chunk for chunk in chunks if chunk.text]) >= 3
    assert "".join(chunk.text for chunk in chunks) == answer(NAMES[0])
    assert chunks[-1].response_metadata["finish_reason"] == "stop"
    whole = chat.invoke(question(NAMES[0]))
    assert chunks[-1].usage_metadata == whole.usage_metadata
    assert whole.response_metadata["model_name"] == chat.model_name


async def test_others_have_their_turn_while_it_streams(chat: ChatQuantized) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    background = asyncio.create_task(others())
    texts = [chunk.text async for chunk in chat.astream(question(NAMES[1]))]
    background.cancel()
    assert "".join(texts) == answer(NAMES[1])
    assert turns > len(texts)


def test_settings_of_a_call(chat: ChatQuantized) -> None:
    name = NAMES[2]
    assert chat.invoke(question(name), stop=[" has"]).text == name
    cut = chat.invoke(question(name), max_tokens=2)
    assert cut.response_metadata["finish_reason"] == "length"
    assert cut.usage_metadata is not None
    assert cut.usage_metadata["output_tokens"] == 2
    drawn = [chat.invoke("Hello", temperature=2.0, seed=seed).text for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1
    rows = chat.invoke(question(name), logprobs=True, top_logprobs=2).response_metadata["logprobs"]["content"]
    assert "".join(row["token"] for row in rows).startswith(answer(name)[:4])
    assert all(row["logprob"] <= 0 and len(row["top_logprobs"]) == 2 for row in rows)


LOOK_UP = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look a name up.",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "enum": NAMES[:5]},
                "times": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["name", "times"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["any", "look_up"])
async def test_a_call_that_must_be_made_follows_its_schema(chat: ChatQuantized, choice: str) -> None:
    calling = chat.bind_tools([LOOK_UP], tool_choice=choice)
    streamed: Any = None
    for chunk in calling.stream("Look it up", max_tokens=60):
        streamed = chunk if streamed is None else streamed + chunk
    for message in (calling.invoke("Look it up", max_tokens=60), await calling.ainvoke("?", max_tokens=60), streamed):
        [call] = message.tool_calls
        assert call["name"] == "look_up"
        assert call["args"]["name"] in NAMES[:5]
        assert 1 <= call["args"]["times"] <= 9
        assert message.response_metadata["finish_reason"] == "tool_calls"


def test_tools_may_be_offered_and_left(chat: ChatQuantized) -> None:
    call = {"name": "look_up", "args": {"name": "x", "times": 1}, "id": "c1", "type": "tool_call"}
    history = [HumanMessage("?"), AIMessage("", tool_calls=[call]), ToolMessage("y", tool_call_id="c1")]
    found = chat.bind_tools([LOOK_UP]).invoke([*history, HumanMessage(question(NAMES[0]))])
    assert found.tool_calls == []
    assert found.response_metadata["finish_reason"] in ("stop", "length")


class Known(BaseModel):
    """What is known of somebody."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["Anna", "Ben"]
    sure: bool
    level: int = Field(ge=0, le=9)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_answers_follow_their_schema(chat: ChatQuantized, method: Any) -> None:
    found = chat.with_structured_output(Known, method=method, max_tokens=60).invoke("Who is it?")
    assert isinstance(found, Known)
    streamed = list(chat.with_structured_output(Known, method=method, max_tokens=60).stream("Who is it?"))
    assert streamed[-1] == found


def test_a_structured_answer_that_is_cut_off_is_an_error(chat: ChatQuantized) -> None:
    with pytest.raises(TruncatedOutputError):
        chat.with_structured_output(Known, max_tokens=3).invoke("Who is it?")


def test_too_long_for_the_context(chat: ChatQuantized) -> None:
    with pytest.raises(ContextLengthError, match="over the 512 of the model"):
        chat.invoke("What? " * 600)
    assert right([chat.invoke(question(NAMES[3]))], [NAMES[3]]) == 1


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        ChatQuantized(model=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="no option colour"):
        ChatQuantized(model=str(tmp_path), options={"colour": "red"})


def test_the_first_400_questions_come_at_once_from_threads_and_tasks_of_both_frameworks(facts_model: Path) -> None:
    """Four bits, one copy of the weights, and nobody waited for the model to be ready."""
    options: dict[str, Any] = {"model": str(facts_model), "quantization": "nf4", "max_tokens": 20}
    chat, llm = ChatQuantized(**options), QuantizedLLM(**options)
    assert chat.served_by is llm.served_by
    asked = NAMES[:100]

    async def tasks() -> list[str]:
        chats = [chat.ainvoke(question(name)) for name in asked]
        completions = [llm.acomplete(question(name)) for name in asked]
        return [each.text for each in await asyncio.gather(*chats, *completions)]

    with ThreadPoolExecutor(17) as pool:
        waiting = pool.submit(asyncio.run, tasks())
        by_threads = list(pool.map(lambda name: chat.invoke(question(name)).text, asked))
        by_threads += pool.map(lambda name: llm.complete(question(name)).text, asked)
        found = [*waiting.result(), *by_threads]
    wrong = [text for text, name in zip(found, asked * 4, strict=True) if text != answer(name)]
    assert wrong == []
    chat.served_by.close()
