"""The form of requests and entries that all frameworks share: one serves what another one asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["CALL", "finish_of", "swapped", "text_turn"]

CALL = "costopt:call:"
"""Stands, with its number behind it, for the id of a tool call: what is served gets new ids each time."""

# A chat that was flattened for a completion model: system prompt and earlier turns are in it.
_TRANSCRIPT = re.compile(r"^(?:System|Human|User|AI|Assistant|Tool|Function): ", re.MULTILINE | re.IGNORECASE)
_SERIALISED = '[{"lc"'  # messages of LangChain, as it hands them to a cache
_FINISHES = ("finish_reason", "stop_reason", "stopReason", "done_reason", "status")
_IDS = frozenset(("id", "call_id", "tool_call_id", "tool_use_id", "toolUseId"))


def text_turn(text: str) -> dict[str, Any]:
    r"""The turn of a text; if it is the transcript of a chat, or looks like messages, one that matches exactly only.

    Example:
        >>> text_turn("What is a llama?")["role"], text_turn("user: Hi!\nassistant: Hi.")["role"]
        ('user', 'prompt')
    """
    loose = not text.startswith(_SERIALISED) and not _TRANSCRIPT.search(text)
    return {"role": "user" if loose else "prompt", "content": text}


def finish_of(told: Mapping[str, Any]) -> str | None:
    """Why the model stopped, wherever this provider says so; None if it does not.

    Example:
        >>> finish_of({"model": "llama3.2", "done_reason": "length"})
        'length'
    """
    found = next((told[name] for name in _FINISHES if told.get(name)), None)
    return None if found is None else str(getattr(found, "value", found))  # of an enumeration, what it stands for


def swapped(value: Any, ids: Mapping[Any, str]) -> Any:
    """JSON-like data with other ids; what is no id may be worded like one, and stays.

    Example:
        >>> swapped({"id": "a", "name": "a"}, {"a": "b"})
        {'id': 'b', 'name': 'a'}
    """
    if isinstance(value, list):
        return [swapped(item, ids) for item in value]
    if isinstance(value, dict):
        return {
            key: ids.get(item, item) if key in _IDS and isinstance(item, str) else swapped(item, ids)
            for key, item in value.items()
        }
    return value
