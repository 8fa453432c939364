"""Questions, and what a response says of where it came from."""

from __future__ import annotations

from typing import Any

from llama_index.core.base.llms.types import ChatMessage


def user(text: str, system: str | None = None) -> list[ChatMessage]:
    """The messages that ask this."""
    first = [ChatMessage(role="system", content=system)] if system else []
    return [*first, ChatMessage(role="user", content=text)]


def tier(response: Any) -> str | None:
    """Which tier served a response; None if it was paid for."""
    told: str | None = (response.additional_kwargs.get("costopt") or {}).get("cache")
    return told
