"""LangChain's messages as an engine reads them, and an engine's answers as LangChain's messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk

from costopt.local.engine import Delta, Generation, LocalUsage, TokenLogprob, ToolCall
from costopt.local.openai_format import arguments_of, logprob_rows

__all__ = ["chunk_of", "message_of", "openai_messages"]

# Blocks of a message that say what its `tool_calls` say, or what the model only thought.
_SAID_ELSEWHERE = frozenset(
    (
        "function_call",
        "invalid_tool_call",
        "non_standard",
        "reasoning",
        "thinking",
        "tool_call",
        "tool_call_chunk",
        "tool_use",
    )
)


def openai_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The messages as OpenAI's chat API has them."""
    return [_plain(message) for message in convert_to_openai_messages(list(messages), text_format="block")]


def message_of(generation: Generation, model: str) -> AIMessage:
    """The answer as a message."""
    calls, invalid = _calls(generation.tool_calls)
    return AIMessage(
        content=generation.text,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=_usage(generation.usage),
        response_metadata=_metadata(generation.finish_reason, model, generation.logprobs),
    )


def chunk_of(delta: Delta, model: str) -> AIMessageChunk:
    """A piece of an answer as a chunk; only the last has usage, finish reason and the model's name."""
    chunks = [
        tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=index)
        for index, call in enumerate(delta.tool_calls)
    ]
    last = delta.finish_reason is not None
    return AIMessageChunk(
        content=delta.text,
        tool_call_chunks=chunks,
        usage_metadata=_usage(delta.usage),
        response_metadata=_metadata(delta.finish_reason, model if last else None, delta.logprobs),
        chunk_position="last" if last else None,
    )


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Content of nothing but text as one text."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    kept = [block for block in content if block.get("type") not in _SAID_ELSEWHERE]
    if all(block.get("type") == "text" for block in kept):
        return {**message, "content": "".join(block["text"] for block in kept)}
    return {**message, "content": kept}


def _calls(calls: Iterable[ToolCall]) -> tuple[list[Any], list[Any]]:
    valid, invalid = [], []
    for call in calls:
        read = arguments_of(call.arguments)
        if read is None:
            error = "the arguments are no JSON object"
            invalid.append(invalid_tool_call(name=call.name, args=call.arguments, id=call.id, error=error))
        else:
            valid.append(tool_call(name=call.name, args=read, id=call.id))
    return valid, invalid


def _usage(usage: LocalUsage | None) -> UsageMetadata | None:
    if usage is None:
        return None
    return UsageMetadata(
        input_tokens=usage.prompt_tokens, output_tokens=usage.completion_tokens, total_tokens=usage.total_tokens
    )


def _metadata(finish: str | None, model: str | None, logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    found: dict[str, Any] = {"finish_reason": finish, "model_name": model}
    if model is not None:
        found["model_provider"] = "costopt"
    if logprobs:
        found["logprobs"] = {"content": logprob_rows(logprobs)}
    return {name: value for name, value in found.items() if value is not None}
