"""LangChain's prompts and generations to costopt's plain messages and answers, and back.

langchain-core hands a cache `dumps(messages)` and a string for the model. Both are read as JSON here, never
with LangChain's own `loads`, which builds objects.
"""

from __future__ import annotations

import ast
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, Generation
from pydantic import BaseModel

from costopt.caching import Answer, CacheHit
from costopt.caching.entry_form import CALL, finish_of, swapped, text_turn
from costopt.caching.portable import portable_params
from costopt.caching.served import explanation
from costopt.pricing import Usage, cost
from costopt.usage import usage_of_langchain

__all__ = ["answer_of", "generations_of", "model_of", "portable_of", "turns_of"]

_ROLES = {
    "human": "user",
    "HumanMessageChunk": "user",
    "user": "user",
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
}
_MODEL_KEYS = ("model", "model_name", "model_id", "deployment_name", "azure_deployment", "repo_id")
_MODEL = re.compile(rf"\('(?:{'|'.join(_MODEL_KEYS)})', '([^']+)'\)")
# Said again elsewhere in the message, or different at every call.
_DROPPED_KWARGS = frozenset(("function_call", "parsed", "refusal", "tool_calls"))
_PROVIDER_IDS = "__openai_function_call_ids__"
_DROPPED_METADATA = frozenset(
    (
        "costopt",
        "created",
        "headers",
        "id",
        "request_id",
        "system_fingerprint",
        "token_usage",
        "usage",
        "usage_metadata",
    )
)


def turns_of(prompt: str, *, completion: bool = False) -> list[dict[str, Any]]:
    """The messages of a prompt.

    Args:
        prompt: What LangChain hands a cache: `dumps(messages)` of a chat model, the text of any other.
        completion: Whether it is known to be text.

    Returns:
        The messages. A text is one user message; but a text that is a transcript, or looks like messages and
        is none, has the role "prompt", and then matches exactly only.
    """
    if prompt.startswith('[{"lc"') and not completion:
        try:
            return [_turn(row["kwargs"]) for row in json.loads(prompt)]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
    return [text_turn(prompt)]


def _turn(fields: Mapping[str, Any]) -> dict[str, Any]:
    kind = fields["type"]
    kwargs = fields.get("additional_kwargs") or {}
    calls = fields.get("tool_calls") or ()
    # The raw calls of the provider say what `tool_calls` says, with ids.
    extra = {name: value for name, value in kwargs.items() if name not in _DROPPED_KWARGS or not calls}
    extra = {name: value for name, value in _lasting(extra).items() if name != "parsed"}
    invalid = fields.get("invalid_tool_calls")
    if invalid:
        extra["invalid_tool_calls"] = [{"name": call.get("name"), "args": call.get("args")} for call in invalid]
    if fields.get("status") == "error":
        extra["status"] = "error"
    return {
        "role": _ROLES.get(str(fields.get("role", kind)), str(fields.get("role", kind))),
        "content": fields.get("content"),
        "name": fields.get("name"),
        "tool_calls": calls,
        "tool_call_id": fields.get("tool_call_id"),
        "extra": extra,
    }


def model_of(llm_string: str) -> str:
    """The model's name, for prices and `invalidate`; "unknown" if the string does not tell."""
    try:
        serialized, end = json.JSONDecoder().raw_decode(llm_string)
    except ValueError:
        serialized, end = None, 0
    named = _MODEL.search(llm_string, end)
    if named:
        return named.group(1)
    kwargs = serialized.get("kwargs") if isinstance(serialized, dict) else None
    if not isinstance(kwargs, dict):
        return "unknown"
    return next((str(kwargs[key]) for key in _MODEL_KEYS if kwargs.get(key)), "unknown")


def portable_of(llm_string: str, *, completion: bool = False) -> str | None:
    """The model's parameters as any framework would have them; None if the string does not tell."""
    try:
        serialized, end = json.JSONDecoder().raw_decode(llm_string)
        call = ast.literal_eval(llm_string[end:].removeprefix("---"))
        return portable_params("completion" if completion else "chat", serialized["kwargs"], dict(call))
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError):
        return None


def answer_of(generations: Sequence[Generation], model: str) -> Answer:
    """What the model said, as JSON-like data without ids, and what it cost.

    Raises:
        TypeError: If a generation holds something that is not data.
    """
    usage = _usage(generations)
    priced = next(filter(None, map(_answering_model, generations)), model)
    return Answer(
        generations=tuple(_chat(g) if isinstance(g, ChatGeneration) else _text(g) for g in generations),
        usage=usage,
        cost=cost(priced, usage) if usage.total_tokens else None,
    )


def generations_of(hit: CacheHit) -> list[Generation]:
    """Fresh generations of a hit: no ids but new ones for tool calls, no usage, and why it was served."""
    return [
        _chat_generation(data, hit) if data["kind"] == "chat" else _text_generation(data)
        for data in hit.answer.generations
    ]


def _text(generation: Generation) -> dict[str, Any]:
    info = generation.generation_info
    return {
        "kind": "text",
        "content": generation.text,
        "finish": finish_of(info or {}),
        "extra": {"info": _data(info)},
    }


def _text_generation(data: Mapping[str, Any]) -> Generation:
    return Generation(text=data["content"], generation_info=data["extra"]["info"])


def _chat(generation: ChatGeneration) -> dict[str, Any]:
    message = generation.message
    if not isinstance(message, AIMessage):
        raise TypeError(f"an answer is an AIMessage, not a {type(message).__name__}")
    info, metadata = generation.generation_info or {}, message.response_metadata
    calls = {str(call["id"]): f"{CALL}{i}" for i, call in enumerate(message.tool_calls) if call["id"]}
    kwargs = message.additional_kwargs
    return {
        "kind": "chat",
        "content": _stored_content(message.content, calls),
        "tool_calls": [{"name": call["name"], "args": _data(call["args"])} for call in message.tool_calls],
        "finish": finish_of({**info, **metadata}),
        "refusal": bool(kwargs.get("refusal")),
        "invalid_tool_calls": bool(message.invalid_tool_calls),
        "extra": {
            "name": message.name,
            "kwargs": _data({k: v for k, v in _lasting(kwargs).items() if k != "tool_calls" or not calls}),
            "metadata": _data({k: v for k, v in metadata.items() if k not in _DROPPED_METADATA}),
            "info": _data({k: v for k, v in info.items() if k not in _DROPPED_METADATA}),
        },
    }


def _chat_generation(data: Mapping[str, Any], hit: CacheHit) -> ChatGeneration:
    extra = data["extra"]
    # New ones each time: the same answer may come twice in one conversation.
    ids = [f"call_{uuid.uuid4().hex[:24]}" for _ in data["tool_calls"]]
    message = AIMessage(
        content=swapped(data["content"], {f"{CALL}{i}": new for i, new in enumerate(ids)}),
        name=extra["name"],
        tool_calls=[
            {"name": call["name"], "args": call["args"], "id": new, "type": "tool_call"}
            for call, new in zip(data["tool_calls"], ids, strict=True)
        ],
        additional_kwargs=extra["kwargs"],
        response_metadata={**extra["metadata"], "costopt": explanation(hit)},
        usage_metadata=UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0),
    )
    return ChatGeneration(message=message, generation_info=extra["info"] or None)


def _lasting(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Without nothing, and without what belongs to one response of the provider."""
    return {
        name: value
        for name, value in kwargs.items()
        if value is not None
        and name != _PROVIDER_IDS
        and not (name == "reasoning" and isinstance(value, dict) and "id" in value)
    }


def _stored_content(content: Any, calls: Mapping[str, str]) -> Any:
    if not isinstance(content, list):
        return content
    # A reasoning item with an id belongs to one response: sent back from another, providers refuse it.
    kept = [b for b in content if not (isinstance(b, dict) and b.get("type") == "reasoning" and "id" in b)]
    return swapped([_without_own_id(_data(block), calls) for block in kept], calls)


def _without_own_id(block: Any, calls: Mapping[str, str]) -> Any:
    # The block's own id goes; the id of a file or an image is content and stays.
    if not isinstance(block, dict) or block.get("type") not in ("function_call", "output_text", "text"):
        return block
    return {k: v for k, v in block.items() if k != "id" or v in calls}


def _answering_model(generation: Generation) -> str | None:
    if not isinstance(generation, ChatGeneration):
        return None
    metadata = generation.message.response_metadata
    named = metadata.get("model_name") or metadata.get("model")
    return str(named) if named else None


def _usage(generations: Sequence[Generation]) -> Usage:
    """The usage of the call; with n > 1 every generation carries the whole of it."""
    for generation in generations:
        message = generation.message if isinstance(generation, ChatGeneration) else None
        usage = message.usage_metadata if isinstance(message, AIMessage) else None
        if usage:
            return usage_of_langchain(usage) or Usage()
    return Usage()


def _data(value: Any) -> Any:
    """JSON-like data; a pydantic object (the `parsed` of a structured answer) becomes the dict it stands for."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_data(item) for item in value]
    return value
