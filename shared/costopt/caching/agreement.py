"""Do two answers of a model say the same? Asked in shadow mode, where nobody labels anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costopt.caching.answer import Answer
from costopt.caching.guards import veto
from costopt.caching.request import normalise
from costopt.embedding import SharedEmbedder

__all__ = ["Agreement", "answer_text"]

_ALIKE = 0.9
_UNLIKE = 0.6


class Agreement:
    """Equal texts agree; others go by their embeddings and the guards, and where those are unsure nobody knows.

    Args:
        embedder: Turns answers into vectors; without one only equal answers agree, and no others are judged.

    Example:
        >>> agree = Agreement(default_embedder())
        >>> one, two = (Answer(({"kind": "chat", "content": text},)) for text in ("It is 8.", "It is 9."))
        >>> agree(one, one), agree(one, two)
        (True, False)
    """

    def __init__(self, embedder: SharedEmbedder | None) -> None:
        self._embedder = embedder

    def __call__(self, one: Answer, other: Answer) -> bool | None:
        """True if they say the same, False if not, None if that cannot be told."""
        a, b = (normalise(answer_text(answer)) for answer in (one, other))
        if a == b:
            return _calls(one) == _calls(other)
        if _calls(one) != _calls(other):
            return False
        if self._embedder is None or not a or not b:
            return None
        if veto(a, b) is not None:
            return False
        vectors = self._embedder.embed([a, b])
        similarity = float(vectors[0] @ vectors[1])
        return True if similarity >= _ALIKE else False if similarity < _UNLIKE else None


def answer_text(answer: Answer) -> str:
    """The words of the first generation."""
    content = answer.generations[0].get("content") if answer.generations else ""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return " ".join(str(block.get("text", "")) for block in blocks if isinstance(block, Mapping))


def _calls(answer: Answer) -> list[Any]:
    return [generation.get("tool_calls") or [] for generation in answer.generations[:1]]
