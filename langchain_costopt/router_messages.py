"""LangChain's messages and answers as the router looks at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration

from costopt.caching.entry_form import finish_of
from costopt.pricing import Usage
from costopt.routing.cascade import Reply
from costopt.routing.chat import Turn, chat_request, mean_logprob
from costopt.routing.request import RouteRequest
from costopt.usage import usage_of_langchain

__all__ = ["Produced", "reply_of", "request_of", "shows", "text_of"]


class Produced(list[Any]):
    """What one call made: its chunks, or its `ChatResult`; with the tier, and the message they add up to."""

    def __init__(self, made: Sequence[Any], tier: str, message: AIMessage | None) -> None:
        super().__init__(made)
        self.tier = tier
        self.message = message


def text_of(message: BaseMessage) -> str:
    """The text of a message, without what is not text."""
    content = message.content
    if isinstance(content, str):
        return content
    texts = (block if isinstance(block, str) else block.get("text") for block in content)
    return "\n".join(text for text in texts if isinstance(text, str))


def request_of(messages: Sequence[BaseMessage], kwargs: Mapping[str, Any], **said: Any) -> RouteRequest:
    """What is to be routed.

    Args:
        messages: Of the chat.
        kwargs: Of the call: tools, response format, limits.
        said: Fields of `RouteRequest` that the caller knows better.
    """
    return chat_request([_turn(message) for message in messages], kwargs, **said)


def reply_of(produced: Produced, others: Sequence[ChatGeneration] = (), info: Mapping[str, Any] | None = None) -> Reply:
    """What the router looks at in an answer.

    Args:
        produced: What a call made.
        others: Further generations of the same call.
        info: The generation info of the first.
    """
    message = produced.message
    if message is None:
        return Reply(raw=produced)
    metadata = {**(info or {}), **message.response_metadata}
    return Reply(
        text=text_of(message),
        usage=_usage(message),
        finish=finish_of(metadata),
        refused=bool(message.additional_kwargs.get("refusal")),
        calls=tuple(str(call["id"]) for call in message.tool_calls),
        broken=bool(message.invalid_tool_calls),
        logprob=mean_logprob(metadata.get("logprobs")),
        others=tuple(generation.text for generation in others),
        raw=produced,
    )


def shows(message: BaseMessage) -> bool:
    """Whether there is anything in it that a reader sees."""
    if isinstance(message, AIMessage) and (message.tool_calls or getattr(message, "tool_call_chunks", None)):
        return True
    content = message.content
    return bool(content) if isinstance(content, str) else any(map(_seen, content))


def _seen(block: Any) -> bool:
    if not isinstance(block, dict):
        return bool(block)
    return any(bool(value) for name, value in block.items() if name not in ("type", "index", "id"))


def _usage(message: AIMessage) -> Usage | None:
    return usage_of_langchain(message.usage_metadata) if message.usage_metadata else None


def _turn(message: BaseMessage) -> Turn:
    calls = getattr(message, "tool_calls", None)
    said = {
        "role": message.type,
        "content": message.content,
        "name": message.name,
        "tool_calls": calls,
        "tool_call_id": getattr(message, "tool_call_id", None),
    }
    return Turn(
        said,
        text_of(message),
        asks=message.type == "human",
        answers=isinstance(message, AIMessage),
        calls=tuple(str(call["id"]) for call in calls or ()),
        images=any("image" in kind for kind in _kinds(message)),
    )


def _kinds(message: BaseMessage) -> list[str]:
    if isinstance(message.content, str):
        return []
    return [str(block.get("type", "")) for block in message.content if isinstance(block, dict)]
