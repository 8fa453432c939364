"""Tool calls, and objects of a class, in every way that LlamaIndex has."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from tests.llamaindex.contract.setting import Setting, fine, user
from tests.openai_server import OpenAIServer

__all__ = ["Tools"]


class Age(BaseModel):
    """How old somebody is."""

    name: str
    years: int


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ANNA = Age(name="Anna", years=30)
PROMPT = PromptTemplate("'Anna' is {years} years old")
ADD = FunctionTool.from_defaults(add)


async def _all(coming: Any) -> list[Any]:
    return [piece async for piece in await coming]


class Tools(Setting):
    """Function calling and structured prediction."""

    async def test_tools_are_called(self, llm: Any, server: OpenAIServer) -> None:
        for _ in range(2):
            for response in (
                llm.chat_with_tools([ADD], "What is 3 and 3?"),
                await llm.achat_with_tools([ADD], "What is 3 and 3?"),
                list(llm.stream_chat_with_tools([ADD], "What is 3 and 3?"))[-1],
                (await _all(llm.astream_chat_with_tools([ADD], "What is 3 and 3?")))[-1],
            ):
                [call] = llm.get_tool_calls_from_response(response)
                assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 3, "b": 3})
                assert sum(isinstance(block, ToolCallBlock) for block in response.message.blocks) == 1
        assert {request["tools"][0]["function"]["name"] for request in server.requests} == {"add"}

    def test_what_is_said_of_tools_arrives(self, llm: Any, server: OpenAIServer) -> None:
        llm.chat_with_tools([ADD], "What is 3 and 3?", tool_required=True)
        llm.chat_with_tools([ADD], "What is 5 and 5?", chat_history=user("Hello"))
        first, second = server.requests
        assert first["tool_choice"] == "required"
        assert [message["content"] for message in second["messages"]] == ["Hello", "What is 5 and 5?"]

    def test_a_call_and_its_result_arrive(self, llm: Any, server: OpenAIServer) -> None:
        for _ in range(2):
            asked = llm.chat_with_tools([ADD], "What is 3 and 3?")
            [call] = llm.get_tool_calls_from_response(asked)
            result = ChatMessage(role="tool", content="6", additional_kwargs={"tool_call_id": call.tool_id})
            history = [*user("What is 3 and 3?"), asked.message, result]
            assert llm.chat_with_tools([ADD], chat_history=history).message.content
        roles = [[message["role"] for message in request["messages"]] for request in server.requests]
        assert roles[:2] == [["user"], ["user", "assistant", "tool"]]
        told = server.requests[1]["messages"]
        assert told[1]["tool_calls"][0]["id"] == told[2]["tool_call_id"]

    async def test_tools_are_run(self, llm: Any) -> None:
        for _ in range(2):
            assert llm.predict_and_call([ADD], "What is 4 and 4?").response == "8"
            assert (await llm.apredict_and_call([ADD], "What is 5 and 5?")).response == "10"

    async def test_tools_are_run_in_parallel(self, llm: Any, server: OpenAIServer) -> None:
        self.tell(server, fine(None, calls=2))
        for _ in range(2):
            for done in (
                llm.predict_and_call([ADD], "What is 4 and 4?", allow_parallel_tool_calls=True),
                await llm.apredict_and_call([ADD], "What is 5 and 5?", allow_parallel_tool_calls=True),
            ):
                assert len({source.raw_output for source in done.sources}) == 1
                assert len(done.sources) == 2
            response = list(llm.stream_chat_with_tools([ADD], "What is 4 and 4?", allow_parallel_tool_calls=True))[-1]
            calls = llm.get_tool_calls_from_response(response)
            assert len({call.tool_id for call in calls}) == 2

    def test_one_tool_where_one_is_allowed(self, llm: Any, plain: Any, server: OpenAIServer) -> None:
        self.tell(server, fine(None, calls=2))
        for _ in range(2):
            counts = [
                len(each.get_tool_calls_from_response(each.chat_with_tools([ADD], "What is 4 and 4?")))
                for each in (llm, plain)
            ]
            assert counts[0] == counts[1] or not self.wraps

    def test_no_tool_was_called(self, llm: Any) -> None:
        response = llm.chat(user("Hello"))
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        with pytest.raises(ValueError, match=r"(?i)tool"):
            llm.get_tool_calls_from_response(response)

    async def test_objects_of_a_class(self, llm: Any) -> None:
        for _ in range(2):
            assert llm.structured_predict(Age, PROMPT, years=30) == ANNA
            assert await llm.astructured_predict(Age, PROMPT, years=30) == ANNA
            assert _whole(list(llm.stream_structured_predict(Age, PROMPT, years=30))[-1]) == ANNA
            assert _whole((await _all(llm.astream_structured_predict(Age, PROMPT, years=30)))[-1]) == ANNA

    async def test_a_structured_llm(self, llm: Any) -> None:
        ages = llm.as_structured_llm(Age)
        asked = user("'Anna' is 30 years old")
        for _ in range(2):
            assert ages.chat(asked).raw == ANNA
            assert (await ages.achat(asked)).raw == ANNA
            assert ages.complete("'Anna' is 30 years old").raw == ANNA
            assert _whole(list(ages.stream_chat(asked))[-1].raw) == ANNA
            assert _whole((await _all(ages.astream_chat(asked)))[-1].raw) == ANNA


def _whole(given: Any) -> Any:
    """A streamed object; LlamaIndex may leave the last one of a class with the same fields, all optional."""
    return Age(**given.model_dump()) if isinstance(given, FlexibleModel) else given
