"""By what the rows of a log are told apart: what a cache would take for the same request, and what prompts share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costopt.audit.fingerprint import text_of
from costopt.audit.record import Record
from costopt.caching.request import build_request, normalise

__all__ = ["Keys", "keys_of"]

_BITS = (1 << 63) - 1
# Kinds of blocks that are text, or stand for calls of tools; the others are images, sound and files.
_TEXTS = frozenset(
    (None, "text", "input_text", "output_text", "tool_use", "tool_call", "tool_result", "function_call", "thinking",
     "reasoning", "redacted_thinking", "refusal", "server_tool_use")
)  # fmt: skip


@dataclass(slots=True)
class Keys:
    """A request by numbers. They are hashes, good for this process only; sizes are characters.

    Attributes:
        exact: Equal for requests that a cache's exact tier takes for one.
        scope: Equal for requests whose texts may match loosely.
        text: What may match loosely; None: nothing.
        upto: Of the model, the tools and all turns up to the last human one.
        before: The same up to the human turn before that; 0 without one.
        system: The system prompts.
        system_size: Of the system prompts.
        history_size: Of the turns before the last human one.
        question_size: Of that one, and what follows.
        contents: All texts of it, for who looks into them.
        media: Whether there is more than text in it.
    """

    exact: int
    scope: int
    text: str | None
    upto: int
    before: int
    system: tuple[str, ...]
    system_size: int
    history_size: int
    question_size: int
    contents: list[str]
    media: bool = False


def keys_of(record: Record, tools: int) -> Keys:
    """The keys of a request that has messages.

    Args:
        record: The request.
        tools: Stands for the tools that it offers.
    """
    label = (record.tenant, record.model, tools, _params(record.params))
    told: list[str] = []  # role and content by turns
    system: list[str] = []
    last = previous = -1
    size = at_last = size_of_system = 0
    for message in record.messages or ():
        content = message["content"]
        if type(content) is not str or len(message) != 2:
            return _detailed(record, label)
        role = message["role"]
        if role == "system":
            system.append(content)
            size_of_system += len(content)
        else:
            if role == "user":
                previous, last, at_last = last, len(told), size
            size += len(content)
        told.append(role)
        told.append(content)
    if last >= 0:
        head = hash((label, *told[:last]))
        upto = hash((head, "user", told[last + 1]))
        text = _normal(told[last + 1])
        scope = hash((head, last, *told[last + 2 :]))
    else:
        head = upto = hash((label, *told))
        text, scope = "", hash((head, last))
    before = hash((hash((label, *told[:previous])), "user", told[previous + 1])) & _BITS if previous >= 0 else 0
    return Keys(
        hash((scope, text)) & _BITS,
        scope & _BITS,
        text or None,
        upto & _BITS,
        before,
        tuple(system) if size_of_system else (),
        size_of_system,
        at_last,
        size - at_last,
        told[1::2],
    )


def _normal(text: str) -> str:
    """As the cache does, with a short way for plain texts."""
    return text.strip() if text.isascii() and "\r" not in text else normalise(text)


def _detailed(record: Record, label: tuple[Any, ...]) -> Keys:
    """For messages with more than a role and a text: by the cache's own rules."""
    messages = record.messages or ()
    model, tenant = record.model, record.tenant or "default"
    request = build_request(messages, model=model, params=repr(label), tenant=tenant if tenant.strip() else "default")
    contents = [text_of(message.get("content")) for message in messages]
    roles = [message.get("role") for message in messages]
    human = [place for place, role in enumerate(roles) if role == "user"]
    last = human[-1] if human else 0
    sizes = [0 if role == "system" else len(text) for role, text in zip(roles, contents, strict=True)]
    system = tuple(text for role, text in zip(roles, contents, strict=True) if role == "system")
    return Keys(
        _number(request.key),
        _number(request.scope),
        request.text,
        _prefix(label, messages[: last + 1]),
        _prefix(label, messages[: human[-2] + 1]) if len(human) > 1 else 0,
        system,
        sum(map(len, system)),
        sum(sizes[:last]),
        sum(sizes[last:]),
        contents,
        any(_is_media(message.get("content")) for message in messages),
    )


def _is_media(content: Any) -> bool:
    blocks = content if isinstance(content, list) else ()
    return any(isinstance(block, dict) and block.get("type") not in _TEXTS for block in blocks)


def _number(digest: str) -> int:
    return int(digest[:16], 16) & _BITS


def _prefix(label: tuple[Any, ...], messages: Sequence[Mapping[str, Any]]) -> int:
    if all(type(message["content"]) is str and len(message) == 2 for message in messages):
        told = [message[name] for message in messages for name in ("role", "content")]
        return hash((hash((label, *told[:-2])), *told[-2:])) & _BITS
    # With the ids of calls: a provider's prompt cache goes by the very bytes.
    return hash((label, json.dumps(list(messages), sort_keys=True, default=str))) & _BITS


def _params(params: Mapping[str, Any]) -> int:
    if not params:
        return 0
    try:
        return hash(frozenset(params.items()))
    except TypeError:  # one of them is a list or an object
        return hash(json.dumps(params, sort_keys=True, default=str))
