"""What providers say beside an answer, wherever LlamaIndex's integrations leave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, CompletionResponse

from costopt.caching import entry_form

__all__ = ["choice_of", "finish_of", "mapping_of"]


def mapping_of(value: Any) -> Mapping[str, Any]:
    """A provider's object as a mapping; empty if it is none.

    Example:
        >>> mapping_of({"model": "gpt-4o"}), mapping_of(None)
        ({'model': 'gpt-4o'}, {})
    """
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    dumped = dump(exclude_none=True) if callable(dump) else None
    return dumped if isinstance(dumped, Mapping) else {}


def choice_of(response: ChatResponse | CompletionResponse) -> Mapping[str, Any]:
    """The first of OpenAI's choices; empty if there is none."""
    choices = mapping_of(response.raw).get("choices")
    return mapping_of(choices[0]) if isinstance(choices, list | tuple) and choices else {}


def finish_of(response: ChatResponse | CompletionResponse) -> str | None:
    """Why the model stopped; None while it goes on."""
    raw = mapping_of(response.raw)
    candidate = mapping_of(next(iter(raw.get("candidates") or ()), None))
    told = (choice_of(response), raw, candidate, mapping_of(raw.get("delta")), response.additional_kwargs)
    return next(filter(None, map(entry_form.finish_of, told)), None)
