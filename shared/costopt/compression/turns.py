"""The messages of a chat as history compression looks at them: steps, texts that may be shortened, what was asked.

Messages are mappings in OpenAI's shape ("role", "content", "tool_calls", "tool_call_id", "name"); LangChain's roles and
tool calls are understood, too. Nothing here depends on what comes later in a chat, but for `answered`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costopt.compression.protect import protected_spans
from costopt.compression.result import Span

__all__ = ["Limits", "Message", "Part", "answered", "is_asking", "parts", "question", "replaced", "steps"]

Message = Mapping[str, Any]

_USER = frozenset(("user", "human"))
_ASSISTANT = frozenset(("assistant", "ai"))
_RESULT = frozenset(("tool", "function"))
_TEXT_BLOCKS = frozenset(("text", "input_text", "output_text"))
# What a block has that points into its text.
_POINTERS = ("annotations", "citations", "extras")
# Characters at each end of a user's turn that say what is asked; what stands between them is often pasted.
_ENDS = 300
_CALL_CHARS = 400


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an old text may stay.

    Attributes:
        tool_tokens: Most tokens of a tool result.
        turn_tokens: Most tokens of what a user or the assistant said.
        keep_tools: Names of tools whose results stay as they are.
    """

    tool_tokens: int
    turn_tokens: int
    keep_tools: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A text of a message that may be shortened, and what for.

    Attributes:
        message: Place of the message in the chat.
        block: Place of the text in its content; None if the content is the text.
        text: The text.
        limit: Most tokens that it may keep.
        ends: Characters at its beginning and at its end that must stay; above 0 in what a user says.
    """

    message: int
    block: int | None
    text: str
    limit: int
    ends: int = 0

    def fixed(self, text: str) -> list[Span]:
        """What must stay, in this text or in what became of it: its ends, and what it says how to answer."""
        if not self.ends:
            return []
        return [(0, self.ends), (len(text) - self.ends, len(text)), *protected_spans(text, ("instructions",))]


def steps(messages: Sequence[Message]) -> list[range]:
    """Where each step of a chat lies: a message, or a message with tool calls and all that their tools gave back.

    Example:
        >>> roles = ["system", "user", "assistant", "tool", "tool", "assistant"]
        >>> steps([{"role": role} for role in roles])
        [range(0, 1), range(1, 2), range(2, 5), range(5, 6)]
    """
    found: list[range] = []
    for i, message in enumerate(messages):
        if found and _is_result(message) and messages[found[-1].start].get("role") in _ASSISTANT:
            found[-1] = range(found[-1].start, i + 1)
        else:
            found.append(range(i, i + 1))
    return found


def answered(messages: Sequence[Message], chat: Sequence[range], step: int, until: int) -> bool:
    """Whether the user has said something new in the steps after `step`, up to and with `until`."""
    starts = (messages[each.start] for each in chat[step + 1 : until + 1])
    return any(is_asking(message) for message in starts)


def question(messages: Sequence[Message], message: int) -> str:
    """What a message is an answer to: the user's last words up to it, for a tool result after those of the call.

    Of a long text of the user's it is the two ends, for it may be shortened later, and the question must not change.

    Example:
        >>> question([{"role": "user", "content": "Which is newest?"}, {"role": "assistant", "content": "B."}], 1)
        'Which is newest?'
    """
    called = _words(_call_of(messages, message)) if messages[message].get("role") in _RESULT else ""
    earlier = (each for each in reversed(messages[: message + 1]) if is_asking(each))
    said = "\n".join(text for _, text in _texts(next(earlier, {})))
    if len(said) >= 2 * _ENDS:
        said = f"{said[:_ENDS]}\n{said[-_ENDS:]}"
    return f"{called}\n{said}".strip()


def parts(messages: Sequence[Message], message: int, limits: Limits) -> Iterator[Part]:
    """The texts of a message that may be shortened; none of an instruction's, whatever its length."""
    told = messages[message]
    role = told.get("role")
    if role in _RESULT:
        if {_name(_call_of(messages, message)), told.get("name")}.isdisjoint(limits.keep_tools):
            yield from (Part(message, block, text, limits.tool_tokens) for block, text in _texts(told))
    elif role in _USER:
        long = ((block, text) for block, text in _texts(told) if len(text) > 2 * _ENDS)
        yield from (Part(message, block, text, limits.turn_tokens, _ENDS) for block, text in long)
    elif role in _ASSISTANT:
        for block, text in _texts(told):
            # A block with an id is known to its provider by that id, and would no longer be what it was.
            if block is None or isinstance(told["content"][block], str) or "id" not in told["content"][block]:
                yield Part(message, block, text, limits.turn_tokens)


def replaced(content: Any, texts: Mapping[int | None, str]) -> Any:
    """The content of a message with other texts, by block; None is the content itself.

    Example:
        >>> replaced([{"type": "text", "text": "a b"}, {"type": "image"}], {0: "a"})
        [{'type': 'text', 'text': 'a'}, {'type': 'image'}]
    """
    if None in texts:
        return texts[None]
    return [_with_text(block, texts[i]) if i in texts else block for i, block in enumerate(content)]


def _with_text(block: Any, text: str) -> Any:
    return text if isinstance(block, str) else {**block, "text": text}


def _texts(message: Message) -> Iterator[tuple[int | None, str]]:
    """The texts of a message with their places, without those that something else points into."""
    content = message.get("content")
    if isinstance(content, str):
        yield None, content
        return
    for i, block in enumerate(content if isinstance(content, Sequence) else ()):
        if isinstance(block, str):
            yield i, block
        elif _is_plain_text(block):
            yield i, block["text"]


def _is_plain_text(block: Any) -> bool:
    if not isinstance(block, Mapping) or block.get("type") not in _TEXT_BLOCKS:
        return False
    return isinstance(block.get("text"), str) and not any(block.get(name) for name in _POINTERS)


def is_asking(message: Message) -> bool:
    """Whether the user says something in it."""
    return message.get("role") in _USER and not _is_result(message)


def _is_result(message: Message) -> bool:
    """Whether it is what a tool gave back; Anthropic has that in a user's message."""
    if message.get("role") in _RESULT:
        return True
    content = message.get("content")
    if message.get("role") not in _USER or isinstance(content, str) or not content:
        return False
    return all(isinstance(block, Mapping) and block.get("type") == "tool_result" for block in content)


def _call_of(messages: Sequence[Message], result: int) -> Mapping[str, Any]:
    """The call that a tool result belongs to; empty if it is not there."""
    wanted = messages[result].get("tool_call_id")
    for message in reversed(messages[:result]):
        if message.get("role") in _ASSISTANT:
            calls = message.get("tool_calls") or ()
            known = (call for call in calls if isinstance(call, Mapping))
            return next((call for call in known if wanted is not None and call.get("id") == wanted), {})
    return {}


def _name(call: Mapping[str, Any]) -> Any:
    return call.get("name") or (call.get("function") or {}).get("name")


def _words(call: Mapping[str, Any]) -> str:
    """A call as the words of a question: the tool's name and the values that it was given."""
    given = call.get("args", (call.get("function") or {}).get("arguments"))
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = {"": given}
    values = given.values() if isinstance(given, Mapping) else ()
    words = [str(value) for value in values if isinstance(value, str | int | float)]
    return " ".join([str(_name(call) or ""), *words]).strip()[:_CALL_CHARS]
