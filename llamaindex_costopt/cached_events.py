"""What LlamaIndex's handlers are told of an answer that no model gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatInProgressEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionInProgressEvent,
    LLMCompletionStartEvent,
)
from llama_index.core.instrumentation.span import active_span_id
from llama_index.core.llms.llm import LLM
from llama_index_instrumentation import get_dispatcher

__all__ = ["Served"]

_dispatcher = get_dispatcher(__name__)

R = TypeVar("R", ChatResponse, CompletionResponse)


class Served(Generic[R]):
    """A response out of the cache; its beginning is told when this is made, its end by `end`.

    As LlamaIndex's `llm_chat_callback` does for a model, but for two things: no rate limiter is asked, and at its end
    the callback is not given the prompt again. From prompt and answer LlamaIndex's `TokenCountingHandler` would
    count tokens where the usage is zero, and no token was used.

    Args:
        llm: For its callback manager, and its name in the events.
        asked: The messages, or the prompt.
        kwargs: Of the call.
        response: What is served.
    """

    def __init__(self, llm: LLM, asked: str | Sequence[ChatMessage], kwargs: Mapping[str, Any], response: R) -> None:
        self._manager = llm.callback_manager
        self._response: R = response
        question = {"prompt": asked} if isinstance(asked, str) else {"messages": list(asked)}
        self._common: dict[str, Any] = {**question, "span_id": active_span_id.get()}
        self._chat = isinstance(response, ChatResponse)
        model, given = llm.to_payload(), dict(kwargs)
        payload: dict[Any, Any] = {
            EventPayload.MESSAGES if self._chat else EventPayload.PROMPT: asked,
            EventPayload.ADDITIONAL_KWARGS: given,
            EventPayload.SERIALIZED: model,
        }
        start = LLMChatStartEvent if self._chat else LLMCompletionStartEvent
        with self._manager.as_trace("chat" if self._chat else "completion"):
            _dispatcher.event(start(**self._common, model_dict=model, additional_kwargs=given))
            self._event = self._manager.on_event_start(CBEventType.LLM, payload=payload)

    def piece(self) -> R:
        """The response as the only piece of a stream."""
        told: ChatResponse | CompletionResponse = self._response
        said = told.message.content if isinstance(told, ChatResponse) else told.text
        piece = self._response.model_copy(update={"delta": said or ""})
        progress = LLMChatInProgressEvent if self._chat else LLMCompletionInProgressEvent
        _dispatcher.event(progress(**{**self._common, "response": piece}))
        return piece

    def end(self) -> R:
        """The response; its end is told."""
        payload: dict[Any, Any] = {EventPayload.RESPONSE if self._chat else EventPayload.COMPLETION: self._response}
        self._manager.on_event_end(CBEventType.LLM, payload=payload, event_id=self._event)
        end = LLMChatEndEvent if self._chat else LLMCompletionEndEvent
        _dispatcher.event(end(**{**self._common, "response": self._response}))
        return self._response
