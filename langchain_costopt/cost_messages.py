"""LangChain's messages and results as a cost tracker reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from costopt.audit.fingerprint import text_of
from costopt.audit.recorder import Answered
from costopt.paid_before import usage_paid_before
from costopt.pricing import Usage
from costopt.usage import usage_of, usage_of_langchain

__all__ = ["answered_of", "as_dicts", "partial_of", "trimmed_of"]

_ROLES = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}


def as_dicts(messages: Iterable[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as `{"role", "content", ...}`, without what belongs to one response."""
    return [_as_dict(message) for message in messages]


def trimmed_of(messages: Iterable[BaseMessage]) -> int:
    """How many tokens fewer these messages have than before their chat was compressed."""
    told = ((message.response_metadata.get("costopt") or {}).get("compression") for message in messages)
    return sum(each["tokens_before"] - each["tokens_after"] for each in told if each)


def answered_of(response: LLMResult) -> Answered:
    """What came back of a call."""
    made = response.generations[0] if response.generations else []
    first = made[0] if made else None
    message = first.message if isinstance(first, ChatGeneration) else None
    metadata = dict(message.response_metadata) if message is not None else {}
    output = response.llm_output or {}
    said = metadata.get("costopt")
    said = said if isinstance(said, Mapping) else {}
    # What a router says of the model is all that is known where a stream broke off before the model said it itself.
    names = [held.get(name) for held in (metadata, output) for name in ("model_name", "model")]
    model = next(filter(None, [*names, said.get("model")]), None)
    tier = metadata.get("service_tier")
    usage, hit = _usage(message, metadata, output), _hit(message, said)
    before = usage_paid_before(metadata.get("token_usage") or metadata.get("usage"))
    if before is not None and not said:
        usage, hit = before, {"cache": "exact"}
    return Answered(
        model=str(model) if model else None,
        usage=usage,
        text=lambda: _text(made),
        called=[str(call["name"]) for call in message.tool_calls] if isinstance(message, AIMessage) else (),
        service_tier=tier if isinstance(tier, str) else None,
        routed=said if "attempts" in said or "tier" in said else None,
        cached=hit,
    )


def partial_of(response: LLMResult | None) -> Answered | None:
    """What came of a stream that broke off; None if nothing did."""
    for made in response.generations if response is not None else ():
        if made and isinstance(made[0], ChatGeneration) and made[0].message.id is not None:
            return answered_of(LLMResult(generations=[made]))
    return None


def _usage(message: BaseMessage | None, metadata: Mapping[str, Any], output: Mapping[str, Any]) -> Usage | None:
    said = message.usage_metadata if isinstance(message, AIMessage) else None
    if said:
        return usage_of_langchain(said)
    return usage_of(metadata.get("token_usage") or metadata.get("usage") or output.get("token_usage") or {})


def _hit(message: BaseMessage | None, said: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What is known of an answer from a cache; None if it comes from a model."""
    if "cache" in said:
        return said
    if isinstance(message, AIMessage) and message.usage_metadata:
        # So langchain-core marks what it takes out of any cache; the tokens it leaves as they were.
        total: Any = message.usage_metadata.get("total_cost")
        if total == 0 and "total_cost" in message.usage_metadata:
            return {"cache": "exact"}
    return None


def _as_dict(message: BaseMessage) -> dict[str, Any]:
    known: dict[str, Any] = {"role": _ROLES.get(message.type, message.type), "content": message.content}
    if message.name:
        known["name"] = message.name
    calls = getattr(message, "tool_calls", None)
    if calls:
        known["tool_calls"] = [{"id": call["id"], "name": call["name"], "args": call["args"]} for call in calls]
    answers = getattr(message, "tool_call_id", None)
    if answers:
        known["tool_call_id"] = answers
    return known


def _text(made: Sequence[Generation]) -> str:
    return "\n".join(text for generation in made for text in _texts(generation) if text)


def _texts(generation: Generation) -> Iterable[str]:
    message = generation.message if isinstance(generation, ChatGeneration) else None
    if not isinstance(message, AIMessage):
        yield generation.text
        return
    yield text_of(message.content)
    for call in message.tool_calls:
        yield json.dumps({"name": call["name"], "arguments": call["args"]}, ensure_ascii=False, default=str)
