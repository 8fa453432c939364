"""What an LLM of LlamaIndex answered, as the cache keeps it, and what is made of that again.

Entries have the form that LangChain's have, so that each framework can serve what the other one asked.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ContentBlock,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import TypeAdapter

from costopt.caching import Answer, CacheHit
from costopt.caching.entry_form import CALL, swapped
from costopt.caching.served import explanation
from costopt.pricing import Usage, cost
from llamaindex_costopt.cached_asked import arguments_of
from llamaindex_costopt.cost_messages import answered_of
from llamaindex_costopt.raw import choice_of, finish_of, mapping_of

__all__ = ["answer_of", "response_of"]

Response = ChatResponse | CompletionResponse

# Of what comes with a message: said again elsewhere, or another one at every call.
_DROPPED = frozenset("costopt id reference_audio_id tool_calls usage".split())
_NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
# Blocks in which LangChain repeats a tool call.
_CALLS = frozenset(("function_call", "tool_call", "tool_use"))
_ANY_BLOCK: TypeAdapter[Any] = TypeAdapter(ContentBlock)


def answer_of(responses: Sequence[Response], model: str, *, streamed: bool = False) -> Answer:
    """What a model said, as data without ids, and what it cost.

    Args:
        responses: The response; or the last ones of a stream, of which the very last holds all that was said.
        model: The model's name, where they do not tell.
        streamed: Whether it was a stream. One that says neither why it ended nor what it used was cut off: it
            ends like one that is done.
    """
    if not responses:
        return Answer(())
    told = [answered_of(response) for response in reversed(responses)]
    usage = next((each.usage for each in told if each.usage is not None), None)
    finish = next(filter(None, map(finish_of, reversed(responses))), None)
    if streamed and usage is None and finish is None:
        finish = "incomplete"
    model = next((each.model for each in told if each.model), model)
    metadata = {"model_name": model, "finish_reason": finish}
    last = responses[-1]
    generation = {**(_chat(last, metadata) if isinstance(last, ChatResponse) else _text(last, metadata))}
    generation |= {"finish": finish, "logprobs": _logprobs(responses)}
    usage = usage or Usage()
    return Answer((generation,), usage, cost(model, usage) if usage.total_tokens else None)


def response_of(hit: CacheHit, *, chat: bool) -> Response:
    """A fresh response of a hit: new ids for tool calls, no usage, and why it was served.

    Raises:
        ValueError: If the entry is not of this kind, or holds what LlamaIndex has no block for.
    """
    data = hit.answer.generations[0]
    if data["kind"] != ("chat" if chat else "text"):
        raise ValueError(f"an entry of kind {data['kind']!r} does not answer this call")
    metadata = (data["extra"]["metadata"] if chat else data["extra"]["info"]) or {}
    rows = data.get("logprobs")
    common: dict[str, Any] = {
        # Where LlamaIndex's token counter and its agents look.
        "raw": {
            "model": metadata.get("model_name"),
            "finish_reason": metadata.get("finish_reason"),
            "usage": dict(_NOTHING),
        },
        "logprobs": [[LogProb(**each) for each in row] for row in rows] if rows else None,
        "additional_kwargs": {**_NOTHING, "costopt": explanation(hit)},
    }
    return (
        ChatResponse(message=_message(data), **common) if chat else CompletionResponse(text=data["content"], **common)
    )


def _chat(response: ChatResponse, metadata: Mapping[str, Any]) -> dict[str, Any]:
    content: list[Any] = []
    calls: list[dict[str, Any]] = []
    ids: dict[Any, str] = {}
    whole = True
    for block in response.message.blocks:
        if isinstance(block, TextBlock):
            content.append({"type": "text", "text": block.text})
        elif isinstance(block, ToolCallBlock):
            args, complete = arguments_of(block)
            ids[block.tool_call_id] = f"{CALL}{len(calls)}"
            calls.append({"name": block.tool_name, "args": args})
            whole = whole and complete
        else:
            content.append(_block(block))
    kwargs = response.message.additional_kwargs
    kept = {name: value for name, value in kwargs.items() if value is not None and name not in _DROPPED}
    plain = all(block["type"] == "text" for block in content)
    return {
        "kind": "chat",
        "content": "\n".join(block["text"] for block in content) if plain else content,
        "tool_calls": calls,
        "refusal": bool(mapping_of(choice_of(response).get("message")).get("refusal") or kept.pop("refusal", None)),
        "invalid_tool_calls": not whole,
        "extra": {"name": None, "kwargs": kept, "metadata": metadata, "info": {}, "calls": _written(kwargs, ids)},
    }


def _text(response: CompletionResponse, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": "text", "content": response.text, "extra": {"info": metadata}}


def _message(data: Mapping[str, Any]) -> ChatMessage:
    content = data["content"]
    blocks: list[Any] = [TextBlock(text=content)] if content and isinstance(content, str) else []
    for block in content if isinstance(content, list) else ():
        blocks += _blocks(block)
    kwargs = dict(data["extra"]["kwargs"])
    written, calls = [], data["tool_calls"]
    # New ones each time: the same answer may come twice in one conversation.
    ids = {f"{CALL}{i}": f"call_{uuid.uuid4().hex[:24]}" for i in range(len(calls))}
    for call, new in zip(calls, ids.values(), strict=True):
        blocks.append(ToolCallBlock(tool_call_id=new, tool_name=call["name"], tool_kwargs=call["args"]))
        function = {"name": call["name"], "arguments": json.dumps(call["args"], ensure_ascii=False)}
        written.append({"id": new, "type": "function", "function": function})
    if calls:
        # LlamaIndex's streaming programs look there whether a tool was called; as this provider writes it, if known.
        kwargs["tool_calls"] = swapped(data["extra"].get("calls"), ids) or written
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=kwargs)


def _block(block: Any) -> dict[str, Any]:
    if isinstance(block, ThinkingBlock):
        # An id belongs to one response: sent back from another, providers refuse it.
        more = {name: value for name, value in block.additional_information.items() if name != "id"}
        return {**more, "type": "thinking", "thinking": block.content or ""}
    return {"type": block.block_type, "llama_index": block.model_dump(mode="json", exclude_none=True)}


def _written(kwargs: Mapping[str, Any], ids: Mapping[Any, str]) -> list[Any] | None:
    """The tool calls in the provider's own form, without ids but those that are replaced."""
    rows = kwargs.get("tool_calls")
    if not isinstance(rows, list):
        return None
    plain = [dict(mapping_of(row)) for row in rows]
    kept = [{name: value for name, value in row.items() if name != "id" or value in ids} for row in plain]
    return [swapped(row, ids) for row in kept]


def _blocks(data: Any) -> list[Any]:
    if isinstance(data, str):
        return [TextBlock(text=data)]
    if "llama_index" in data:
        return [_ANY_BLOCK.validate_python(data["llama_index"])]
    kind = data["type"]
    if kind in ("text", "output_text"):
        return [TextBlock(text=data["text"])]
    if kind == "thinking":
        more = {name: value for name, value in data.items() if name not in ("type", "thinking", "index")}
        return [ThinkingBlock(content=data["thinking"], additional_information=more)]
    if kind in _CALLS:
        return []
    raise ValueError(f"LlamaIndex has no block for {kind!r}")


def _logprobs(responses: Sequence[Response]) -> list[list[dict[str, Any]]] | None:
    rows = responses[-1].logprobs
    return [[each.model_dump(mode="json") for each in row] for row in rows] if rows else None
