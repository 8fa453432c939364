"""What a call of LlamaIndex asks, as the cache is told it: plain turns, the model's name, parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    VideoBlock,
)
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms.llm import LLM, default_completion_to_prompt

from costopt.caching.entry_form import text_turn

__all__ = ["arguments_of", "asked_by", "kind_of", "model_of", "params_of", "turns_of"]

_ROLES = {"chatbot": "assistant", "model": "assistant", "function": "tool"}
# Of a model, what no answer depends on; and its key, which is changed from time to time.
_NOT_ASKED = frozenset(
    "api_key cache callback_manager max_retries output_parser pydantic_program_mode rate_limiter reuse_client "
    "timeout".split()
)
# What may lie in a file: compared by what it holds.
_HOLDERS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (AudioBlock, lambda block: block.resolve_audio()),
    (VideoBlock, lambda block: block.resolve_video()),
    (DocumentBlock, lambda block: block.resolve_document()),
)


def kind_of(llm: LLM, formatted: bool) -> str:
    """The word "completion", or another where the model puts the text into a form of its own first."""
    own = getattr(llm, "completion_to_prompt", None) not in (None, default_completion_to_prompt)
    return "completion to be formatted" if own and not formatted else "completion"


def model_of(llm: LLM) -> str:
    """The model's name, for prices and `invalidate`; the parameters hold it, too."""
    fields = vars(llm)
    named = fields.get("model") or fields.get("model_name")
    try:
        return str(named or llm.metadata.model_name)
    except Exception:  # metadata of a model that its class does not know
        return "unknown"


def asked_by(call: Mapping[str, Any], llm: LLM) -> dict[str, Any]:
    """What of a call's arguments an answer depends on; a router is told more."""
    unasked = getattr(llm, "unasked", ())
    return {name: value for name, value in call.items() if name not in unasked}


def params_of(kind: str, llm: LLM, call: Mapping[str, Any]) -> str:
    """Everything about a model and a call that an answer depends on, beside the turns."""
    return json.dumps([kind, _described(llm), _described(call)], sort_keys=True)


def turns_of(asked: str | Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The turns of a chat; or of a text, which if it is the transcript of a chat matches exactly only."""
    if isinstance(asked, str):
        return [text_turn(asked)]
    return [_turn(message) for message in asked]


def arguments_of(block: ToolCallBlock) -> tuple[Any, bool]:
    """The arguments of a tool call, and whether they are whole: some providers' come as JSON."""
    given = block.tool_kwargs
    if not isinstance(given, str):
        return dict(given), True
    try:
        read = json.loads(given or "{}")
    except ValueError:
        return given, False
    return (read, True) if isinstance(read, dict) else (given, False)


def _turn(message: ChatMessage) -> dict[str, Any]:
    content: list[Any] = []
    calls = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            content.append({"type": "text", "text": block.text})
        elif isinstance(block, ToolCallBlock):
            calls.append({"id": block.tool_call_id, "name": block.tool_name, "args": arguments_of(block)[0]})
        elif not isinstance(block, CachePoint):
            content.append(_block(block))
    lone = content[0]["text"] if len(content) == 1 and content[0]["type"] == "text" else None
    kwargs = message.additional_kwargs
    extra = {
        name: _described(value)
        for name, value in kwargs.items()
        # The provider's own form of the calls says what the blocks say.
        if value is not None and name not in ("name", "tool_call_id") and not (calls and name == "tool_calls")
    }
    return {
        "role": _ROLES.get(message.role.value, message.role.value),
        "content": content if lone is None else lone,
        "name": kwargs.get("name"),
        "tool_calls": calls,
        "tool_call_id": kwargs.get("tool_call_id"),
        "extra": extra,
    }


def _block(block: Any) -> dict[str, Any]:
    """A block that is no text, as it is compared."""
    kind: str = block.block_type
    if isinstance(block, ThinkingBlock):
        return {"type": "thinking", "thinking": block.content, **block.additional_information}
    if isinstance(block, ImageBlock):
        detail = {"detail": block.detail} if block.detail else {}
        return {"type": "image_url", "image_url": {"url": str(block.url or block.inline_url()), **detail}}
    for holder, resolved in _HOLDERS:
        if isinstance(block, holder) and not getattr(block, "url", None):
            held = hashlib.blake2b(resolved(block).read(), digest_size=20).hexdigest()
            fields = {name: value for name, value in vars(block).items() if isinstance(value, str | int)}
            return {**fields, "type": kind, "path": None, "held": held}
    return {**block.model_dump(mode="json", exclude_none=True), "type": kind}


def _described(value: Any) -> Any:
    """As data: an object by its fields, a class by its schema, a function by its name."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _described(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_described(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, type):
        return _schema(value) if issubclass(value, BaseModel) else value.__qualname__
    if isinstance(value, BaseModel):
        fields = vars(value).items()
        kept = {name: _described(item) for name, item in fields if item is not None and name not in _NOT_ASKED}
        return {"class": type(value).__qualname__, **kept}
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


@lru_cache(maxsize=256)
def _schema(kind: type[BaseModel]) -> str:
    return json.dumps(kind.model_json_schema(), sort_keys=True)
