"""`QuantizedLLM` with a model in this process, whose right answers are known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, ConfigDict

from costopt.errors import ContextLengthError
from llamaindex_costopt import QuantizedLLM
from tests.tiny_models import FACTS, answer, question

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.PydanticDeprecatedSince20")

NAMES = list(FACTS)


class Known(BaseModel):
    """What is known of somebody."""

    model_config = ConfigDict(extra="forbid")

    name: Literal["Anna", "Ben"]
    sure: bool


def greet(name: str, sure: bool) -> str:
    """Greet somebody."""
    return f"Hello, {name}" if sure else ""


@pytest.fixture(scope="module")
def llm(facts_model: Path) -> Iterator[QuantizedLLM]:
    options = {"dtype": "float32"}
    llm = QuantizedLLM(model=str(facts_model), quantization="none", max_tokens=20, options=options)
    yield llm
    llm.served_by.close()


async def test_every_way_of_asking_is_right(llm: QuantizedLLM) -> None:
    asked, right = question(NAMES[0]), answer(NAMES[0])
    chat = [ChatMessage(content=asked)]
    assert llm.complete(asked).text == right
    assert llm.chat(chat).message.content == right
    assert list(llm.stream_complete(asked))[-1].text == right
    assert "".join(each.delta or "" for each in llm.stream_chat(chat)) == right
    assert (await llm.acomplete(asked)).text == right
    assert (await llm.achat(chat)).message.content == right
    assert [each async for each in await llm.astream_complete(asked)][-1].text == right
    assert [each async for each in await llm.astream_chat(chat)][-1].message.content == right


async def test_many_at_once(llm: QuantizedLLM) -> None:
    found = await asyncio.gather(*(llm.acomplete(question(name)) for name in NAMES[:64]))
    assert [each.text for each in found] == [answer(name) for name in NAMES[:64]]


def test_a_text_is_gone_on_from_without_a_template(llm: QuantizedLLM) -> None:
    written = f"<|im_start|>user\n{question(NAMES[1])}<|im_end|>\n<|im_start|>assistant\n"
    assert llm.complete(written, formatted=True).text == answer(NAMES[1])
    assert llm.complete(question(NAMES[1]), stop=[" has"]).text == NAMES[1]


def test_structured_prediction_follows_its_schema(llm: QuantizedLLM) -> None:
    found = llm.structured_predict(Known, PromptTemplate("Who is it?"), llm_kwargs={"max_tokens": 60})
    assert isinstance(found, Known)


def test_a_tool_that_must_be_called(llm: QuantizedLLM) -> None:
    tool = FunctionTool.from_defaults(greet, fn_schema=Known)
    response = llm.chat_with_tools([tool], "Greet her", tool_required=True, max_tokens=60)
    [call] = llm.get_tool_calls_from_response(response)
    assert call.tool_name == "greet"
    assert call.tool_kwargs["name"] in ("Anna", "Ben")


def test_too_long_for_the_context(llm: QuantizedLLM) -> None:
    with pytest.raises(ContextLengthError, match="over the 512 of the model"):
        llm.complete("What? " * 600)


def test_what_it_says_of_itself(llm: QuantizedLLM, facts_model: Path) -> None:
    said: Any = llm.metadata
    assert (said.is_chat_model, said.num_output, said.model_name) == (True, 20, str(facts_model))
