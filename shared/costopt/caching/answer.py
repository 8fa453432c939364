"""What a model answered, in a form that belongs to no framework, and whether it is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from costopt.pricing import Usage

__all__ = ["Answer", "why_not_stored"]

# The words providers use for an answer that stopped before its end or was taken away: OpenAI, Anthropic,
# Gemini, Bedrock, Cohere, Mistral, Ollama. Matched as parts ("MAX_TOKENS", "content_filter", "model_length").
_CUT_SHORT = (
    "length",
    "max_token",
    "max_output",
    "incomplete",
    "pause",
    "cancel",
    "abort",
    "timeout",
    "window",
)
_TAKEN_AWAY = (
    "filter",
    "safety",
    "refus",
    "recitation",
    "blocklist",
    "prohibited",
    "spii",
    "guardrail",
    "language",
)
_FAILED = ("error", "fail", "malformed", "unexpected")


@dataclass(frozen=True, slots=True)
class Answer:
    """All n generations of one call.

    Attributes:
        generations: One JSON object each: ``kind`` ("chat" or "text"), ``content`` (a string or a list of
            blocks), ``tool_calls`` (``{"name", "args"}``, no ids), ``finish`` (why it stopped, the provider's
            word) and ``extra`` (what a framework needs to build its message again).
        usage: What the call used.
        cost: What the call cost in US dollars; None if the model's price is not known.
    """

    generations: tuple[Mapping[str, Any], ...]
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None


def why_not_stored(answer: Answer) -> str | None:
    """Why this answer must not be served again: "empty", "truncated", "filtered" or "failed"; None if it may.

    Example:
        >>> why_not_stored(Answer(({"kind": "chat", "content": "The answer is", "finish": "length"},)))
        'truncated'
    """
    if not answer.generations:
        return "empty"
    return next(filter(None, map(_fault, answer.generations)), None)


def _fault(generation: Mapping[str, Any]) -> str | None:
    finish = str(generation.get("finish") or "").lower()
    for reason, words in (("truncated", _CUT_SHORT), ("filtered", _TAKEN_AWAY), ("failed", _FAILED)):
        if any(word in finish for word in words):
            return reason
    if generation.get("refusal"):
        return "filtered"
    if generation.get("invalid_tool_calls"):
        return "failed"
    content = generation.get("content")
    blank = not content.strip() if isinstance(content, str) else not content
    return "empty" if blank and not generation.get("tool_calls") else None
