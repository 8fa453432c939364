"""What the formats have in common: moments, tokens, messages, as each of them may write them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from costopt.audit.record import Record
from costopt.usage import usage_of

__all__ = ["called_tools", "messages_of", "moment", "number", "parsed", "put_usage", "text", "text_answer", "words"]

_ROLES = {
    "user": "user", "assistant": "assistant", "system": "system", "tool": "tool", "developer": "system",
    "human": "user", "ai": "assistant", "model": "assistant", "function": "tool", "chat": "user",
    "HumanMessage": "user", "AIMessage": "assistant", "AIMessageChunk": "assistant", "SystemMessage": "system",
    "ToolMessage": "tool", "FunctionMessage": "tool", "ChatMessage": "user", "HumanMessageChunk": "user",
}  # fmt: skip
_PLAIN = frozenset(("user", "assistant", "system", "tool"))
_MILLISECONDS_FROM = 1e11  # as seconds, that is the year 5138
_LATEST = 253_402_300_799.0  # the end of the year 9999


def moment(value: Any) -> float | None:
    """Seconds since 1970 from a number of seconds or milliseconds, or from an ISO 8601 text; UTC if it names no zone.

    Example:
        >>> moment("2026-11-22T10:00:00Z") == moment(1795341600) == moment(1795341600000)
        True
        >>> moment("yesterday") is None
        True
    """
    if type(value) is float and 0 < value < _MILLISECONDS_FROM:
        return value
    if isinstance(value, str):
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            return moment(number(value))
        if found.tzinfo is None:
            found = found.replace(tzinfo=UTC)
        return found.timestamp()
    seconds = number(value)
    if seconds is None or seconds <= 0:
        return None
    if seconds >= _MILLISECONDS_FROM:
        seconds /= 1000
    return seconds if seconds <= _LATEST else None


def number(value: Any) -> float | None:
    """A finite number, also out of a text; None of anything else."""
    if type(value) is float and -math.inf < value < math.inf:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def text(value: Any) -> str | None:
    """A text that is not empty, or a number as one; None of anything else."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def words(value: Any) -> tuple[str, ...]:
    """A list of texts; one text is a list of one, and so is JSON of it."""
    value = parsed(value)
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def parsed(value: Any) -> Any:
    """What a text holds as JSON, if it does; some exports write objects as text."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def put_usage(record: Record, usage: Any) -> None:
    """Set the tokens of a record from what a provider or framework reported; nothing if that is none."""
    if not isinstance(usage, dict):
        return
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    # The usual one, without a detour: a log may have a million of them.
    if type(read) is int and type(written) is int and read >= 0 and written >= 0 and len(usage) <= 4:
        details = usage.get("prompt_tokens_details")
        if details is None or (type(details) is dict and "cache_write_tokens" not in details):
            cached = details.get("cached_tokens") if details else None
            if type(cached) is int and 0 <= cached <= read:
                record.cached_tokens, record.tells_cached = cached, True
            if (cached is None or record.tells_cached) and "cache_read_input_tokens" not in usage:
                record.input_tokens, record.output_tokens = read, written
                return
    found = usage_of(usage)
    if found is None:
        return
    record.input_tokens, record.output_tokens = found.input_tokens, found.output_tokens
    record.cached_tokens, record.cache_write_tokens = found.cached_tokens, found.cache_write_tokens
    record.tells_cached = any("cache" in name or "details" in name for name in usage)


def messages_of(value: Any) -> list[Mapping[str, Any]] | None:
    """Turns as the cache takes them, from OpenAI's, Anthropic's or LangChain's shape; None if it is none of them."""
    if type(value) is not list:
        value = parsed(value)
        if isinstance(value, str):
            return [{"role": "user", "content": value}]
        if isinstance(value, dict):
            value = value.get("messages", [value] if "content" in value else None)
    if not isinstance(value, list) or not value:
        return None
    if isinstance(value[0], list) and value[0] and not isinstance(value[0][0], str):
        # LangChain's runs hold a list for each prompt.
        value = value[0]
    turns: list[Any] = value
    for each in turns:
        if type(each) is not dict or len(each) != 2:
            return _converted(turns)
        if type(each.get("content")) is not str or each.get("role") not in _PLAIN:
            return _converted(turns)
    return turns  # the usual ones, as they are


def _converted(value: Iterable[Any]) -> list[Mapping[str, Any]] | None:
    made = [message for each in value if (message := _message(each)) is not None]
    return made or None


def _message(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, str):
        return {"role": "user", "content": value}
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str):
        value = {"role": value[0], "content": value[1]}
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("kwargs"), dict):  # LangChain's own serialisation: {"lc": 1, "id": [...], "kwargs": {}}
        names = value.get("id")
        value = {"type": names[-1] if isinstance(names, list) and names else None, **value["kwargs"]}
    elif isinstance(value.get("data"), dict):
        value = {"type": value.get("type"), **value["data"]}
    named = value.get("role") or value.get("type")
    role = _ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        return None
    made: dict[str, Any] = {"role": role, "content": _content(value.get("content"))}
    calls = [call for each in value.get("tool_calls") or () if (call := _call(each)) is not None]
    if calls:
        made["tool_calls"] = calls
    for name in ("name", "tool_call_id"):
        if isinstance(value.get(name), str):
            made[name] = value[name]
    return made


def _content(value: Any) -> Any:
    if isinstance(value, str | list):
        return value
    return "" if value is None else json.dumps(value, sort_keys=True, default=str)


def _call(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    function = value.get("function")
    if isinstance(function, dict):
        return {"id": value.get("id"), "name": function.get("name"), "args": function.get("arguments")}
    return {"id": value.get("id"), "name": value.get("name"), "args": value.get("args", value.get("arguments"))}


def called_tools(message: Any) -> tuple[str, ...]:
    """Names of the tools that an answer calls, whoever's shape it has."""
    if not isinstance(message, dict):
        return ()
    if isinstance(message.get("kwargs"), dict):
        message = message["kwargs"]
    if type(message.get("content")) is str and not message.get("tool_calls"):
        return ()
    calls = [call for each in _list(message.get("tool_calls")) if (call := _call(each)) is not None]
    blocks = [each for each in _list(message.get("content")) if isinstance(each, dict)]
    calls += [dict(block) for block in blocks if block.get("type") in ("tool_use", "tool_call", "function_call")]
    return tuple(call["name"] for call in calls if isinstance(call.get("name"), str))


def text_answer(message: Any) -> str | None:
    """The text of an answer, whoever's shape it has."""
    if isinstance(message, str):
        return message
    if not isinstance(message, dict):
        return None
    if isinstance(message.get("kwargs"), dict):
        message = message["kwargs"]
    content = message.get("content", message.get("text"))
    if isinstance(content, list):
        parts: Sequence[Any] = [each.get("text") if isinstance(each, dict) else each for each in content]
        return "\n".join(part for part in parts if isinstance(part, str)) or None
    return content if isinstance(content, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
