"""What a model answered, in a form that belongs to no framework, and whether it is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from costopt.finish import fault_of
from costopt.pricing import Usage

__all__ = ["Answer", "why_not_stored"]


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
    fault = fault_of(str(generation.get("finish") or ""))
    if fault is not None:
        return fault
    if generation.get("refusal"):
        return "filtered"
    if generation.get("invalid_tool_calls"):
        return "failed"
    content = generation.get("content")
    blank = not content.strip() if isinstance(content, str) else not content
    return "empty" if blank and not generation.get("tool_calls") else None
