"""Tool calls in what a model wrote, in the formats that models are trained to write.

<tool_call>{"name": .., "arguments": {..}}</tool_call>                      Hermes, Qwen, SmolLM, Granite
<tool_call><function=name><parameter=x>1</parameter></function></tool_call> Qwen coder
[TOOL_CALLS] [{"name": .., "arguments": {..}}]    [TOOL_CALLS]name[ARGS]{}  Mistral
<|python_tag|>{"name": .., "parameters": {..}}    the same without the tag  Llama 3
<function=name>{..}</function>                                              Llama 3.1
[name(x=1), other(y="a")]                                                   Llama 3.2 and 4
"""

from __future__ import annotations

import ast
import json
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from costopt.local.engine import ToolCall

__all__ = ["CallFinder", "find_calls", "template_parser"]

_Found = tuple[str, list[tuple[str, Any]]]  # the text around the calls, and names and arguments

_MARKS = ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function=")
_OPENERS = ("{", "[")  # at the very start, of a call without a mark
_DECODER = json.JSONDecoder()


class CallFinder:
    """Lets text through while it cannot be a call, and holds it back from where it may be one.

    Example:
        >>> finder = CallFinder({"add"})
        >>> finder.add("Let me see. <tool"), finder.add('_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
        ('Let me see. ', '')
        >>> text, calls = finder.end()
        >>> text, calls[0].name, calls[0].arguments
        ('', 'add', '{"a": 1}')
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._held = ""
        self._begun = False  # whether anything but blanks was shown
        self._holding = False

    def add(self, text: str) -> str:
        """What of the text so far may be shown now, and was not yet."""
        self._held += text
        if self._holding or not self._held.strip():
            return ""
        start = len(self._held) - len(self._held.lstrip())
        places = [place for place in map(self._held.find, _MARKS) if place >= 0]
        if not self._begun and self._held[start] in _OPENERS:
            places.append(start)
        self._holding = bool(places)
        keep = min(places) if places else len(self._held) - _beginning(self._held)
        shown, self._held = self._held[:keep], self._held[keep:]
        self._begun = self._begun or bool(shown.strip())
        return shown

    def end(self) -> tuple[str, tuple[ToolCall, ...]]:
        """What was held back: the calls in it, and the text that is none."""
        text, calls = find_calls(self._held, self._names)
        self._held = ""
        return text, calls


def find_calls(text: str, names: Collection[str]) -> tuple[str, tuple[ToolCall, ...]]:
    """The calls of known functions in a text, and what is left of it; all of it if there is none.

    Args:
        text: What a model wrote.
        names: The functions that were on offer: whatever else looks like a call is text.

    Example:
        >>> text, calls = find_calls('[TOOL_CALLS] [{"name": "now", "arguments": {}}]', {"now"})
        >>> text, [call.name for call in calls]
        ('', ['now'])
    """
    for read in _READERS:
        found = read(text)
        if found is None:
            continue
        around, calls = found
        if calls and all(name in names for name, _ in calls):
            return around.strip(), _made(calls)
    return text, ()


def template_parser(
    tokenizer: Any, prompt: Sequence[int], tools: Sequence[Mapping[str, Any]]
) -> Callable[[list[int]], tuple[str, tuple[ToolCall, ...]]] | None:
    """What finds the calls by the tokenizer's own response template, given all tokens; None if it has none.

    Args:
        tokenizer: Of transformers.
        prompt: What came before, of which a template may have written a part of the answer.
        tools: As in a request.
    """
    if not tools or getattr(tokenizer, "response_template", None) is None:
        return None
    names = {tool["function"]["name"] for tool in tools}

    def parse(made: list[int]) -> tuple[str, tuple[ToolCall, ...]]:
        try:
            message = tokenizer.parse_response(made, prefix=list(prompt), tools=list(tools))
            calls = [call for each in message.get("tool_calls") or () if (call := _call(each)) is not None]
        except Exception:  # a template may raise anything at an answer that it does not expect
            return find_calls(tokenizer.decode(made, skip_special_tokens=True), names)
        return message.get("content") or "", _made([call for call in calls if call[0] in names])

    return parse


def _made(calls: Iterable[tuple[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(name, _written(given), f"call_{uuid.uuid4().hex[:24]}") for name, given in calls)


def _beginning(text: str) -> int:
    """Length of the longest end of the text that a mark begins with."""
    longest = max(map(len, _MARKS)) - 1
    return next((n for n in range(min(longest, len(text)), 0, -1) if _starts_a_mark(text[-n:])), 0)


def _starts_a_mark(end: str) -> bool:
    return any(mark.startswith(end) for mark in _MARKS)


def _written(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _tagged(text: str) -> _Found | None:
    """<tool_call> .. </tool_call>; the last may lack its end, where that token stopped the model."""
    pieces = re.split(r"<tool_call>(.*?)(?:</tool_call>|\Z)", text, flags=re.DOTALL)
    calls: list[tuple[str, Any]] = []
    for inside in pieces[1::2]:
        found = _as_json(inside.strip()) or _as_tags(inside)
        if not found:
            return None
        calls += found
    return "".join(pieces[::2]), calls


def _as_tags(text: str) -> list[tuple[str, Any]] | None:
    match = re.search(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", text, flags=re.DOTALL)
    if match is None:
        return None
    pairs = re.findall(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", match[2], flags=re.DOTALL)
    return [(match[1], {name: _value(value) for name, value in pairs})]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mistral(text: str) -> _Found | None:
    around, mark, rest = text.partition("[TOOL_CALLS]")
    if not mark:
        return None
    calls = _as_json(rest.strip())
    if calls is None:
        calls = []
        for part in rest.split("[TOOL_CALLS]"):
            name, args, written = part.partition("[ARGS]")
            given = _object(written)
            if not args or given is None:
                return None
            calls.append((name.strip(), given))
    return around, calls


def _llama(text: str) -> _Found | None:
    """JSON objects after a mark, or all there is; several are separated by semicolons."""
    around, mark, rest = text.partition("<|python_tag|>")
    calls = _as_json((rest if mark else text).strip(), ";")
    return None if calls is None else (around if mark else "", calls)


def _functions(text: str) -> _Found | None:
    pieces = re.split(r"<function=([^>\s]+)>(.*?)(?:</function>|\Z)", text, flags=re.DOTALL)
    calls: list[tuple[str, Any]] = []
    for name, inside in zip(pieces[1::3], pieces[2::3], strict=True):
        given = _object(inside)
        if given is None:
            return None
        calls.append((name, given))
    return "".join(pieces[::3]), calls


def _pythonic(text: str) -> _Found | None:
    """A Python list of calls with literal arguments; parsed, never run."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        elements = node.elts if isinstance(node, ast.List) else []
        calls = [_literal_call(element) for element in elements]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return ("", calls) if calls else None


def _literal_call(node: ast.expr) -> tuple[str, Any]:
    if not isinstance(node, ast.Call) or node.args or any(each.arg is None for each in node.keywords):
        raise ValueError("not a call by name")
    return ast.unparse(node.func), {str(each.arg): ast.literal_eval(each.value) for each in node.keywords}


def _as_json(text: str, separator: str = "") -> list[tuple[str, Any]] | None:
    """Calls as JSON: an object, a list of them, or several in a row; None if anything else is there."""
    calls: list[tuple[str, Any]] = []
    for value in _values(text, separator):
        for each in value if isinstance(value, list) else [value]:
            call = _call(each)
            if call is None:
                return None
            calls.append(call)
    return calls or None


def _values(text: str, separator: str) -> Iterator[Any]:
    place = 0
    while place < len(text):
        try:
            value, place = _DECODER.raw_decode(text, place)
        except (ValueError, RecursionError):
            yield None
            return
        yield value
        while place < len(text) and (text[place].isspace() or text[place] == separator):
            place += 1


def _call(value: Any) -> tuple[str, Any] | None:
    if not isinstance(value, Mapping):
        return None
    inner = value.get("function", value)
    if not isinstance(inner, Mapping):  # {"function": "name", "parameters": ..}
        inner = {**value, "name": inner}
    given: Any = next((inner[key] for key in ("arguments", "parameters") if key in inner), {})
    name = inner.get("name")
    return (name, given) if isinstance(name, str) and isinstance(given, Mapping | str) else None


def _object(text: str) -> Any | None:
    try:
        value = json.loads(text.strip() or "{}")
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


_READERS: tuple[Callable[[str], _Found | None], ...] = (_tagged, _mistral, _functions, _llama, _pythonic)
