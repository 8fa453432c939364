"""By what prompts are known without their words: hashes and sizes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from costopt.audit.attempt import PromptShape

__all__ = ["Fingerprint", "fingerprint", "text_hash", "text_of"]

# What changes the answer. Keys, users and the like, and whether it is streamed, do not.
_PARAMS = frozenset(
    "temperature top_p top_k max_tokens max_completion_tokens max_output_tokens n seed stop stop_sequences "
    "response_format tool_choice reasoning_effort reasoning thinking logit_bias frequency_penalty "
    "presence_penalty".split()
)
_SYSTEM = ("system", "developer")
_HUMAN = ("user", "human")
# Made anew in each conversation: two that say the same differ in them.
_IDS = frozenset({"id", "tool_call_id", "call_id", "tool_use_id", "index", "cache_control"})


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A prompt without its words.

    Attributes:
        prompt_hash: Of messages, tools and parameters; ids of messages and calls are not in it, nor is the model.
        question_hash: Of the text of the last human turn; None if there is none.
        shape: Of what it consists.
    """

    prompt_hash: str
    question_hash: str | None
    shape: PromptShape


def fingerprint(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Any] = (),
    params: Mapping[str, Any] | None = None,
) -> Fingerprint:
    """The fingerprint of a request.

    Args:
        messages: As `{"role", "content", ...}`; content is text or a list of blocks.
        tools: Descriptions of tools, in whatever shape the provider takes them.
        params: Parameters of the call; those that change the answer count.

    Example:
        >>> asked = fingerprint([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}])
        >>> asked.shape.system, asked.shape.question
        (9, 4)
    """
    system: list[str] = []
    sizes: list[int] = []
    last_human = -1
    for place, message in enumerate(messages):
        role, text = message.get("role"), text_of(message.get("content"))
        if role in _SYSTEM:
            system.append(text)
        sizes.append(0 if role in _SYSTEM else len(text))
        last_human = place if role in _HUMAN else last_human
    described = _described(tools)
    counted = {name: value for name, value in (params or {}).items() if name in _PARAMS and value is not None}
    split = max(last_human, 0)
    shape = PromptShape(
        system=sum(map(len, system)),
        history=sum(sizes[:split]),
        question=sum(sizes[split:]),
        tools=len(described),
        tools_offered=len(tools),
        system_hash=_hash([system, described]) if system or described else None,
    )
    question = text_of(messages[last_human].get("content")) if last_human >= 0 else None
    return Fingerprint(_hash([messages, described, counted]), None if question is None else text_hash(question), shape)


def text_of(content: Any) -> str:
    """The text of a message's content: of a list of blocks, those that are text.

    Example:
        >>> text_of([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {}}])
        'What is this?'
    """
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        said = content.get("text", content.get("content"))
        return said if isinstance(said, str) else ""
    if isinstance(content, list | tuple):
        return "\n".join(text for block in content if (text := text_of(block)))
    return ""


def text_hash(text: str) -> str:
    """128 bits of a hash of a text, as hexadecimal digits.

    Example:
        >>> text_hash("a") == text_hash("a"), len(text_hash("a"))
        (True, 32)
    """
    return _hash(text)


def _described(tools: Sequence[Any]) -> str:
    return json.dumps(tools, ensure_ascii=False, sort_keys=True, default=repr) if tools else ""


def _hash(value: Any) -> str:
    digest = sha256()
    _feed(digest.update, value)
    return digest.hexdigest()[:32]


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """Hash a value piece by piece: to write it out as JSON first would take longer than the hash."""
    if isinstance(value, str):
        data = value.encode("utf-8", "surrogatepass")
        update(b"s%d:" % len(data))
        update(data)
    elif isinstance(value, Mapping):
        update(b"{")
        for name in sorted(map(str, value)):
            item = value.get(name)
            if name not in _IDS and item is not None:
                _feed(update, name)
                _feed(update, item)
        update(b"}")
    elif isinstance(value, list | tuple):
        update(b"[")
        for item in value:
            _feed(update, item)
        update(b"]")
    else:
        update(repr(value).encode("utf-8", "surrogatepass"))
        update(b";")
