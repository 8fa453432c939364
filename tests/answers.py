"""What servers that stand in for providers share: running, tool calls, objects that follow a schema."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any

_QUOTED = re.compile(r"['\"]([^'\"]+)['\"]")
_NUMBER = re.compile(r"-?\d+")


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[None]:
    """Serve from a thread, until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def called_tool(request: dict[str, Any]) -> dict[str, Any] | None:
    """The tool that an obliging model calls: the one it must, else the first, unless it has been told the result."""
    tools = [tool.get("function", tool) for tool in request.get("tools") or ()]
    if not tools or request.get("tool_choice") == "none":
        return None
    choice = request.get("tool_choice")
    if isinstance(choice, dict):
        name = choice.get("function", choice).get("name")
        return next((tool for tool in tools if tool["name"] == name), tools[0])
    return tools[0] if choice == "required" or not _told(request["messages"][-1]) else None


def arguments(schema: dict[str, Any], messages: list[dict[str, Any]]) -> Any:
    """Something that follows a JSON schema, with words and numbers of the last user message where they fit."""
    return _made(schema, schema.get("$defs") or {}, _asked(messages))


def named_object(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """A schema with the keys that the last user message names in quotes."""
    return {"type": "object", "properties": {name: {"type": "string"} for name in _QUOTED.findall(_asked(messages))}}


def _told(message: dict[str, Any]) -> bool:
    if message["role"] == "tool":
        return True
    content = message.get("content")
    return isinstance(content, list) and any(block.get("type") == "tool_result" for block in content)


def _asked(messages: list[dict[str, Any]]) -> str:
    said = next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")
    return said if isinstance(said, str) else " ".join(block.get("text", "") for block in said)


def _made(schema: dict[str, Any], defs: dict[str, Any], text: str) -> Any:
    if "$ref" in schema:
        return _made(defs[schema["$ref"].rsplit("/", 1)[-1]], defs, text)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema:
            return _made(next(each for each in schema[key] if each.get("type") != "null"), defs, text)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = next(each for each in kind if each != "null") if isinstance(kind, list) else kind
    number = _NUMBER.search(text)
    if kind == "object":
        return {name: _made(each, defs, text) for name, each in (schema.get("properties") or {}).items()}
    if kind == "array":
        return [_made(schema.get("items") or {}, defs, text)]
    if kind in ("integer", "number"):
        return int(number.group()) if number else 1
    if kind == "boolean":
        return True
    quoted = _QUOTED.search(text)
    return quoted.group(1) if quoted else text or "words"
