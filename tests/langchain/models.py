"""A chat model for tests: a real `BaseChatModel` that counts its calls and says what it is told to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

Reply = Callable[[list[BaseMessage], int], AIMessage]


def numbered(messages: list[BaseMessage], call: int) -> AIMessage:
    """Every call gets another answer, so that a served one shows whose it was."""
    return AIMessage(
        content=f"answer {call}",
        id=f"msg-{call}",
        usage_metadata={"input_tokens": 100, "output_tokens": 20, "total_tokens": 120},
        response_metadata={"model_name": "gpt-4o-mini", "finish_reason": "stop", "id": f"resp-{call}"},
    )


class CountingModel(BaseChatModel):
    """Counts calls in `calls`; `reply` makes the answers, `seconds` is how long each takes."""

    model_name: str = "gpt-4o-mini"
    temperature: float = 0.0
    reply: Any = numbered
    seconds: float = 0.0
    calls: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "counting"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "temperature": self.temperature}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.calls.append(messages)
        number = len(self.calls)
        if self.seconds:
            time.sleep(self.seconds)
        answers = self.reply(messages, number)
        answers = answers if isinstance(answers, list) else [answers]
        return ChatResult(generations=[ChatGeneration(message=answer) for answer in answers])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=[getattr(tool, "name", str(tool)) for tool in tools], **kwargs)


class StreamingModel(CountingModel):
    """A `CountingModel` that can stream, word by word."""

    streaming: bool = False

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self.calls.append(messages)
        answer = self.reply(messages, len(self.calls))
        for word in str(answer.content).split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " "))
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="", usage_metadata=answer.usage_metadata, chunk_position="last")
        )
