"""Tokens as each provider and framework reports them, made into one `Usage`.

They disagree on what "input" is. OpenAI, LangChain and what follows them count the part read from the prompt cache in
it; Anthropic's own API does not, neither what was read nor what was written. Here it always is: no token is counted
twice, and none is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from costopt.pricing import Usage

__all__ = ["usage_of", "usage_of_anthropic", "usage_of_langchain", "usage_of_openai"]


def usage_of(reported: Any) -> Usage | None:
    """The usage in what was reported, whoever's shape it has; None if it is in none that is known.

    Args:
        reported: A mapping, or an SDK's object: OpenAI's `usage` of a chat completion, a completion, an embedding or a
            response; Anthropic's `usage` of a message; LangChain's `usage_metadata`; what LlamaIndex keeps of them.

    Example:
        >>> said = {"prompt_tokens": 30, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 20}}
        >>> usage_of(said) == Usage(30, 12, cached_tokens=20)
        True
        >>> usage_of({"input_tokens": 10, "output_tokens": 12, "cache_read_input_tokens": 20}).input_tokens
        30
        >>> usage_of({}) is None
        True
    """
    said = _fields(reported)
    if "cache_read_input_tokens" in said or "cache_creation_input_tokens" in said:
        # Some gateways add Anthropic's fields to OpenAI's; there, the total holds them.
        return usage_of_openai(said) if "prompt_tokens" in said else usage_of_anthropic(said)
    if "input_token_details" in said or "output_token_details" in said:
        return usage_of_langchain(said)
    return usage_of_openai(said)


def usage_of_openai(reported: Any) -> Usage | None:
    """From OpenAI's shape: `prompt_tokens` (or `input_tokens`) holds what was read from the cache; None if it is not.

    Example:
        >>> details = {"reasoning_tokens": 4}
        >>> usage_of_openai({"input_tokens": 9, "output_tokens": 5, "output_tokens_details": details}).reasoning_tokens
        4
    """
    said = _fields(reported)
    read = _count(said, "prompt_tokens", "input_tokens")
    written = _count(said, "completion_tokens", "output_tokens")
    if read is None and written is None:
        return None
    of_input = _fields(said.get("prompt_tokens_details") or said.get("input_tokens_details"))
    of_output = _fields(said.get("completion_tokens_details") or said.get("output_tokens_details"))
    cached = _count(of_input, "cached_tokens")
    if cached is None:
        cached = _count(said, "cache_read_input_tokens", "prompt_cache_hit_tokens")
    stored = _count(of_input, "cache_write_tokens", "cache_creation_tokens")
    if stored is None:
        stored = _count(said, "cache_creation_input_tokens")
    return _made(read, written, cached, stored, reasoning=_count(of_output, "reasoning_tokens", "thinking_tokens"))


def usage_of_anthropic(reported: Any) -> Usage | None:
    """From Anthropic's shape, whose `input_tokens` are only those that no cache had to do with; None if it is not.

    Example:
        >>> said = {"input_tokens": 10, "output_tokens": 12, "cache_read_input_tokens": 20}
        >>> usage_of_anthropic(said | {"cache_creation_input_tokens": 5}).input_tokens
        35
    """
    said = _fields(reported)
    fresh, written = _count(said, "input_tokens"), _count(said, "output_tokens")
    if fresh is None and written is None:
        return None
    cached = _count(said, "cache_read_input_tokens") or 0
    stored = _count(said, "cache_creation_input_tokens") or 0
    hour = _count(_fields(said.get("cache_creation")), "ephemeral_1h_input_tokens") or 0
    thought = _count(_fields(said.get("output_tokens_details")), "thinking_tokens")
    return _made((fresh or 0) + cached + stored, written, cached, stored, hour, thought)


def usage_of_langchain(reported: Any) -> Usage | None:
    """From LangChain's `usage_metadata`: details are parts of the totals, as they are here; None if it is not.

    Example:
        >>> details = {"cache_read": 20, "cache_creation": 5}
        >>> usage_of_langchain({"input_tokens": 35, "output_tokens": 12, "input_token_details": details}).cached_tokens
        20
    """
    said = _fields(reported)
    read, written = _count(said, "input_tokens"), _count(said, "output_tokens")
    if read is None and written is None:
        return None
    of_input, of_output = _fields(said.get("input_token_details")), _fields(said.get("output_token_details"))
    # langchain-anthropic tells the two kinds of writes apart, and then leaves the sum of both at 0.
    hour = _count(of_input, "ephemeral_1h_input_tokens") or 0
    brief = _count(of_input, "ephemeral_5m_input_tokens") or 0
    stored = max(_count(of_input, "cache_creation") or 0, hour + brief)
    return _made(read, written, _count(of_input, "cache_read"), stored, hour, _count(of_output, "reasoning"))


def _made(
    read: int | None,
    written: int | None,
    cached: int | None,
    stored: int | None,
    hour: int = 0,
    reasoning: int | None = None,
) -> Usage:
    """A usage whose parts are within their wholes, whatever was said."""
    read, written = max(read or 0, 0), max(written or 0, 0)
    cached = min(max(cached or 0, 0), read)
    stored = min(max(stored or 0, 0), read - cached)
    return Usage(read, written, cached, stored, min(max(hour, 0), stored), min(max(reasoning or 0, 0), written))


def _count(said: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = said.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return int(value)
    return None


def _fields(reported: Any) -> Mapping[str, Any]:
    """An SDK's object as the mapping that it stands for."""
    if isinstance(reported, Mapping):
        return reported
    dump = getattr(reported, "model_dump", None)
    if callable(dump):
        dumped = dump()
        return dumped if isinstance(dumped, Mapping) else {}
    return getattr(reported, "__dict__", {})
