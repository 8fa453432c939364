"""One attempt as a log has it: what every reader hands on, whatever the log's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from costopt.audit.attempt import PromptShape

__all__ = ["UNKNOWN", "Record"]

UNKNOWN = -1
"""Tokens that the log does not tell."""


@dataclass(slots=True)
class Record:
    """A call to a model. It is not frozen: a log has millions of them, and each lives for microseconds.

    Attributes:
        started: Unix time; None if the log does not tell.
        model: The model's name, as the log has it.
        provider: Who sold it, if the log tells.
        latency_s: From request to the end of the answer.
        input_tokens: All input, what was read from or written to the provider's prompt cache included.
        output_tokens: All output, reasoning included.
        cached_tokens: The part of the input that was read from the provider's prompt cache.
        cache_write_tokens: The part that was written to it.
        estimated: Whether the tokens are an estimate of whoever wrote the log.
        tells_cached: Whether the log would have told of cached tokens, had there been any.
        cost: What the log says that the call cost, in US dollars.
        ok: Whether there was an answer.
        hit: Whether the answer came from a cache, so that nothing was paid.
        messages: The turns, as `costopt.caching.request.Message` has them; None if the log holds no prompt.
        tools: Definitions of the tools that were offered.
        params: What else shaped the answer.
        answer: What was answered, where it is text.
        called: Names of the tools that the answer called.
        tags: As the application set them.
        session: The conversation.
        tenant: Whose request it was.
        name: What the application calls this kind of request.
        prompt_hash: Stands for the prompt where the log does not hold it.
        shape: Of what the prompt consists, where the log does not hold it.
        stream: Whether the answer was streamed; None if the log does not tell.
        batch: Whether it went through the provider's batch API.
    """

    started: float | None
    model: str
    provider: str | None = None
    latency_s: float | None = None
    input_tokens: int = UNKNOWN
    output_tokens: int = UNKNOWN
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False
    tells_cached: bool = False
    cost: float | None = None
    ok: bool = True
    hit: bool = False
    messages: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    answer: str | None = None
    called: Sequence[str] = ()
    tags: Sequence[str] = ()
    session: str | None = None
    tenant: str | None = None
    name: str | None = None
    prompt_hash: str | None = None
    shape: PromptShape | None = None
    stream: bool | None = None
    batch: bool = False
