"""An LLM of LlamaIndex's over Anthropic's real SDK, made as LlamaIndex's own is: its completions are chats.

LlamaIndex's own (llama-index-llms-anthropic 0.12) does not run with the SDK of today.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anthropic
from llama_index.core.base.llms.generic_utils import (
    chat_response_to_completion_response,
    stream_chat_response_to_completion_response,
)
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from pydantic import PrivateAttr

__all__ = ["Claude"]


class Claude(CustomLLM):
    """Asks the server at `base_url`."""

    model: str = "claude-haiku-4-5"
    _client: anthropic.Anthropic = PrivateAttr()

    def __init__(self, base_url: str) -> None:
        super().__init__()
        self._client = anthropic.Anthropic(base_url=base_url, api_key="sk-none", max_retries=0)

    @classmethod
    def class_name(cls) -> str:
        return "Anthropic_LLM"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        said = self._client.messages.create(**self._asked(messages))
        return ChatResponse(message=_assistant(said.content[0].text), raw=dict(said))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        asked = self._asked(messages)

        def chunks() -> ChatResponseGen:
            text = ""
            for event in self._client.messages.create(**asked, stream=True):
                if event.type == "content_block_delta":
                    text += event.delta.text
                elif event.type != "message_delta":
                    continue
                yield ChatResponse(message=_assistant(text), delta="", raw=dict(event))

        return chunks()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return chat_response_to_completion_response(self.chat([ChatMessage(role="user", content=prompt)]))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        return stream_chat_response_to_completion_response(self.stream_chat([ChatMessage(role="user", content=prompt)]))

    def _asked(self, messages: Sequence[ChatMessage]) -> dict[str, Any]:
        turns = [{"role": message.role.value, "content": message.content} for message in messages]
        system = [turn["content"] for turn in turns if turn["role"] == "system"]
        others = [turn for turn in turns if turn["role"] != "system"]
        return {"model": self.model, "max_tokens": 100, "messages": others, "system": " ".join(map(str, system))}


def _assistant(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)
