"""LlamaIndex's messages and responses as a cost tracker reads them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from costopt.audit.recorder import Answered
from costopt.paid_before import usage_paid_before
from costopt.pricing import Usage
from costopt.usage import usage_of
from llamaindex_costopt.raw import mapping_of

__all__ = ["answered_of", "as_dicts", "params_of", "provider_of"]

# Parts of the names of LLM classes; "azure" comes before "openai", and what only speaks like OpenAI has none.
_PROVIDERS = {
    "like": None,
    "azure": "azure",
    "openai": "openai",
    "anthropic": "anthropic",
    "bedrock": "aws",
    "gemini": "google",
    "google": "google",
    "vertex": "google",
    "mistral": "mistral",
    "cohere": "cohere",
    "groq": "groq",
    "deepseek": "deepseek",
    "together": "together",
    "fireworks": "fireworks",
    "perplexity": "perplexity",
    "openrouter": "openrouter",
    "ollama": "ollama",
    "llamacpp": "llamacpp",
    "huggingface": "huggingface",
    "quantized": "local",
}


def provider_of(class_name: str) -> str | None:
    """Who sells what an LLM of this class asks; None if it cannot be told."""
    name = class_name.lower().replace("_", "")
    return next((provider for part, provider in _PROVIDERS.items() if part in name), None)


def params_of(model: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a call: of the model, then of the call."""
    return {**(model.get("additional_kwargs") or {}), **model, **given}


def as_dicts(event: Any) -> Callable[[], list[dict[str, Any]]]:
    """The messages of a start event as `{"role", "content", ...}`, made when they are needed."""
    prompt = getattr(event, "prompt", None)
    if prompt is not None:
        return lambda: [{"role": "user", "content": prompt}]
    messages = tuple(event.messages)
    return lambda: [_as_dict(message) for message in messages]


def answered_of(response: Any) -> Answered:
    """What came back of a call: a chat or completion response."""
    if response is None:
        return Answered()
    raw = mapping_of(response.raw)
    model, tier = raw.get("model"), raw.get("service_tier")
    said = response.additional_kwargs.get("costopt")
    said = said if isinstance(said, Mapping) else {}
    before = None if said else usage_paid_before(mapping_of(raw.get("usage")))
    if before is not None:
        said = {"cache": "exact"}
    return Answered(
        model=str(model) if model else None,
        usage=before or _usage(raw, response.additional_kwargs),
        text=lambda: "\n".join(_texts(response)),
        called=[name for name, _ in _calls(getattr(response, "message", None))],
        service_tier=tier if isinstance(tier, str) else None,
        routed=said if "attempts" in said else None,
        cached=said if "cache" in said else None,
    )


def _usage(raw: Mapping[str, Any], more: Mapping[str, Any]) -> Usage | None:
    message = mapping_of(raw.get("message"))
    for said in (raw.get("usage"), message.get("usage"), more.get("usage"), more):
        usage = usage_of(said) if said else None
        if usage is not None:
            return usage
    return None


def _as_dict(message: Any) -> dict[str, Any]:
    blocks = [mapping_of(block) for block in message.blocks]
    plain = all(block.get("block_type") == "text" for block in blocks)
    content = "\n".join(str(block.get("text") or "") for block in blocks) if plain else blocks
    known: dict[str, Any] = {"role": str(getattr(message.role, "value", message.role)), "content": content}
    calls = [{"name": name, "args": args} for name, args in _calls(message)]
    if calls:
        known["tool_calls"] = calls
    return known


def _calls(message: Any) -> Iterator[tuple[str, Any]]:
    """Names and arguments of the tools that a message calls."""
    for block in getattr(message, "blocks", None) or ():
        if getattr(block, "block_type", None) == "tool_call":
            yield str(block.tool_name), block.tool_kwargs


def _texts(response: Any) -> Iterator[str]:
    message = getattr(response, "message", None)
    if message is None:
        yield str(response.text or "")
        return
    if message.content:
        yield str(message.content)
    for name, args in _calls(message):
        yield json.dumps({"name": name, "arguments": args}, ensure_ascii=False, default=str)
