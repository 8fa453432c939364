"""LlamaIndex's messages as an engine reads them, and an engine's answers as LlamaIndex's responses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import ToolSelection

from costopt.errors import ConfigError
from costopt.local.engine import Delta, Generation, TokenLogprob
from costopt.local.openai_format import arguments_of

__all__ = ["chat_response", "completion_response", "openai_messages", "selections"]

_ROLES = {
    MessageRole.CHATBOT: "assistant",
    MessageRole.DEVELOPER: "system",
    MessageRole.FUNCTION: "tool",
    MessageRole.MODEL: "assistant",
}


def openai_messages(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as OpenAI's chat API has them.

    Raises:
        ConfigError: If one holds what such a message cannot, e.g. audio.
    """
    return [_message(message) for message in messages]


def chat_response(generation: Generation, delta: Delta | None = None) -> ChatResponse:
    """The answer, or what there is of it, and what was new in it."""
    calls = generation.tool_calls
    blocks: list[Any] = [TextBlock(text=generation.text)] if generation.text or not calls else []
    for call in calls:
        read = arguments_of(call.arguments)
        given = call.arguments if read is None else read
        blocks.append(ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=given))
    written = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    kwargs = {"tool_calls": written} if calls else {}  # where LlamaIndex's own programs look for them
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=kwargs),
        raw=_raw(generation, delta),
        delta=None if delta is None else delta.text,
        logprobs=_logprobs(generation.logprobs),
        additional_kwargs=_about(generation, delta),
    )


def completion_response(generation: Generation, delta: Delta | None = None) -> CompletionResponse:
    """The same as a completion."""
    return CompletionResponse(
        text=generation.text,
        raw=_raw(generation, delta),
        delta=None if delta is None else delta.text,
        logprobs=_logprobs(generation.logprobs),
        additional_kwargs=_about(generation, delta),
    )


def selections(message: ChatMessage) -> list[ToolSelection]:
    """The tool calls of a message; one whose arguments cannot be read is called with none, as elsewhere."""
    found = []
    for block in message.blocks:
        if isinstance(block, ToolCallBlock):
            given = block.tool_kwargs
            read = (arguments_of(given) or {}) if isinstance(given, str) else dict(given)
            found.append(ToolSelection(tool_id=block.tool_call_id or "", tool_name=block.tool_name, tool_kwargs=read))
    return found


def _message(message: ChatMessage) -> dict[str, Any]:
    role = _ROLES.get(message.role, message.role.value)
    written: dict[str, Any] = {"role": role, "content": _content(message)}
    calls = [_call(block) for block in message.blocks if isinstance(block, ToolCallBlock)]
    calls = calls or [_plain(call) for call in message.additional_kwargs.get("tool_calls") or ()]
    if calls:
        written["tool_calls"] = calls
    for name in ("tool_call_id", "name"):
        if message.additional_kwargs.get(name):
            written[name] = message.additional_kwargs[name]
    return written


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    """One text where there is nothing but text."""
    kept = [block for block in message.blocks if not isinstance(block, ToolCallBlock | ThinkingBlock)]
    if all(isinstance(block, TextBlock) for block in kept):
        return "\n".join(block.text for block in kept if isinstance(block, TextBlock))
    return [_block(block) for block in kept]


def _block(block: Any) -> dict[str, Any]:
    if isinstance(block, TextBlock):
        return {"type": "text", "text": block.text}
    if isinstance(block, ImageBlock):
        return {"type": "image_url", "image_url": {"url": str(block.url) if block.url else block.inline_url()}}
    raise ConfigError(f"a {type(block).__name__} cannot be sent to this model: send text or images")


def _call(block: ToolCallBlock) -> dict[str, Any]:
    given = block.tool_kwargs
    written = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    function = {"name": block.tool_name, "arguments": written}
    return {"id": block.tool_call_id or "", "type": "function", "function": function}


def _plain(call: Any) -> dict[str, Any]:
    """A tool call as OpenAI's SDK has it, or as plain data."""
    data = call if isinstance(call, Mapping) else call.model_dump()
    return {"id": data.get("id") or "", "type": "function", "function": dict(data["function"])}


def _about(generation: Generation, delta: Delta | None) -> dict[str, Any]:
    """Usage and the finish reason; of a stream at its end only."""
    raw = _raw(generation, delta)
    return {**raw.pop("usage", {}), **raw}


def _raw(generation: Generation, delta: Delta | None) -> dict[str, Any]:
    """The same, shaped as the answer of a provider: there LlamaIndex's token counter looks for usage."""
    if delta is not None and delta.finish_reason is None:
        return {}
    usage = generation.usage
    if usage is None:
        return {"finish_reason": generation.finish_reason}
    tokens = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    return {"finish_reason": generation.finish_reason, "usage": tokens}


def _logprobs(logprobs: Iterable[TokenLogprob]) -> list[list[LogProb]] | None:
    """For each token itself, and then its alternatives."""
    rows = [
        [
            LogProb(token=token, logprob=value, bytes=list(token.encode()))
            for token, value in ((each.token, each.logprob), *(top for top in each.top if top[0] != each.token))
        ]
        for each in logprobs
    ]
    return rows or None
