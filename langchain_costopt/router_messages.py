"""LangChain's messages and answers as the router looks at them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration

from costopt.pricing import Usage
from costopt.routing.cascade import Reply
from costopt.routing.request import RouteRequest
from costopt.routing.sticky import conversation_id
from costopt.tokens import count_tokens, most_tokens
from costopt.usage import usage_of_langchain
from langchain_costopt.messages import _finish

__all__ = ["Produced", "reply_of", "request_of", "shows", "text_of"]

_MOST_OUTPUT = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict")


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
    turns = [_turn(message) for message in messages]
    tools = list(kwargs.get("tools") or kwargs.get("functions") or ())
    forms = [kwargs[name] for name in ("response_format", "structured") if kwargs.get(name)]
    extra = _json([tools, forms]) if tools or forms else ""
    limits = [kwargs[name] for name in _MOST_OUTPUT if isinstance(kwargs.get(name), int)]
    fields: dict[str, Any] = {
        "text": _asked(messages),
        "size": most_tokens(turns) + len(extra.encode("utf-8", "replace")),
        "count": lambda model: count_tokens([*turns, {"content": extra}] if extra else turns, model),
        "tools": bool(tools) or any(turn["tool_calls"] or turn["tool_call_id"] for turn in turns),
        "vision": any("image" in kind for message in messages for kind in _kinds(message)),
        "json": bool(kwargs.get("response_format")),
        "max_output_tokens": limits[0] if limits else None,
        "generations": kwargs["n"] if isinstance(kwargs.get("n"), int) else 1,
    }
    fields |= {name: value for name, value in said.items() if value is not None}
    if fields.get("conversation") is None:
        fields |= _conversation(messages)
    return RouteRequest(**fields)


def _asked(messages: Sequence[BaseMessage]) -> str:
    """The last human turn; what stands last if there is none."""
    human = next((message for message in reversed(messages) if message.type == "human"), None)
    return text_of(human or messages[-1]) if messages else ""


def _conversation(messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """A conversation is known by its first question and the first answer to it, which must be there for that."""
    first = next((i for i, message in enumerate(messages) if isinstance(message, HumanMessage)), None)
    if first is None:
        return {}
    question = text_of(messages[first])
    answer = next((message for message in messages[first + 1 :] if isinstance(message, AIMessage)), None)
    if answer is not None:
        ids = [str(call["id"]) for call in answer.tool_calls]
        return {"conversation": conversation_id(question, text_of(answer), ids)}
    return {"next_conversation": lambda reply: conversation_id(question, reply.text, reply.calls)}


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
        finish=_finish(metadata),
        refused=bool(message.additional_kwargs.get("refusal")),
        calls=tuple(str(call["id"]) for call in message.tool_calls),
        broken=bool(message.invalid_tool_calls),
        logprob=_logprob(metadata.get("logprobs")),
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


def _logprob(said: Any) -> float | None:
    """The mean of the tokens' log-probabilities, where they are given in OpenAI's way."""
    tokens = said.get("content") if isinstance(said, Mapping) else None
    values = [token["logprob"] for token in tokens or () if isinstance(token, Mapping) and "logprob" in token]
    return sum(values) / len(values) if values else None


def _turn(message: BaseMessage) -> dict[str, Any]:
    return {
        "role": message.type,
        "content": message.content,
        "name": message.name,
        "tool_calls": getattr(message, "tool_calls", None),
        "tool_call_id": getattr(message, "tool_call_id", None),
    }


def _kinds(message: BaseMessage) -> list[str]:
    if isinstance(message.content, str):
        return []
    return [str(block.get("type", "")) for block in message.content if isinstance(block, dict)]


def _json(value: Any) -> str:
    return json.dumps(value, default=str, separators=(",", ":"))
