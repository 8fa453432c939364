"""By which ids applications name a conversation, and which of them counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["CONVERSATION_IDS", "conversation_of"]

# The first of them that is there counts: a session may hold several threads.
CONVERSATION_IDS = ("conversation_id", "thread_id", "session_id")


def conversation_of(said: Mapping[str, Any]) -> str | None:
    """The id of the conversation that a call belongs to; None if nobody says.

    Example:
        >>> conversation_of({"session_id": "s1", "thread_id": 7})
        '7'
    """
    named = next((said[name] for name in CONVERSATION_IDS if said.get(name)), None)
    return None if named is None else str(named)
