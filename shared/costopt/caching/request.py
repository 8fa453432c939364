"""What a model call asks: the text that may match loosely, and the scope that must match exactly.

    text    the last human turn, text content only
    scope   tenant, model and its parameters, system prompt, tools, earlier turns, any content that is not text
    neither message ids, usage, costs, timestamps, cache markers: they change from call to call and alter no answer

Everything here is pure. The frameworks hand in plain messages (see `Message`), so that the same question
asked through LangChain and through LlamaIndex has the same key.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costopt.errors import ConfigError
from costopt.prompts import Split, parted

__all__ = ["CacheRequest", "Message", "build_request", "digest", "normalise"]

Message = Mapping[str, Any]
"""One turn: ``role`` ("system", "user", "assistant", "tool"), ``content`` (a string or a list of blocks), and,
where present, ``name``, ``tool_calls`` (``{"id", "name", "args"}``), ``tool_call_id`` and ``extra``."""

# Bumped when the same call would get another key; entries under the old one are then simply not found.
_KEY_VERSION = 1

# In what goes along with a message: set by the framework or the provider per call; no answer depends on it.
_VOLATILE = frozenset(
    "cost created created_at ids response_metadata system_fingerprint timestamp token_usage total_cost usage "
    "usage_metadata".split()
)
# Of a content block, what is about billing or streaming.
_NOT_CONTENT = frozenset(("cache_control", "index"))
# In these blocks ``id`` names the block itself; elsewhere (a file, an image) it names the content.
_SELF_NAMED = frozenset("output_text reasoning refusal text thinking tool_result".split())
_CALL_BLOCKS = frozenset(("function_call", "tool_call", "tool_use"))
_CALL_REFERENCES = frozenset(("call_id", "tool_call_id", "tool_use_id"))
_ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True)
class CacheRequest:
    """A model call as the cache sees it.

    Attributes:
        key: Hex digest of scope and text: the address in the exact tier.
        scope: Hex digest of everything that must match exactly.
        text: What may match loosely, normalised; None if nothing may (no human text): exact tier only.
        tenant: Hex digest of the tenant's name. Names never reach a store: they need no escaping there.
        model: Name of the model, for prices and `invalidate`; matching goes by the scope.
    """

    key: str
    scope: str
    text: str | None
    tenant: str
    model: str


def build_request(
    messages: Sequence[Message],
    *,
    model: str,
    params: str = "",
    tenant: str = "default",
    split: Split | None = None,
) -> CacheRequest:
    """Part a model call into text and scope.

    Args:
        messages: The turns, oldest first.
        model: Name of the model.
        params: Everything else that shapes the answer (temperature, tools, response format), as one
            string that is equal for equal parameters. Memory addresses in it are ignored.
        tenant: Whose question it is; answers are never shared between tenants.
        split: Where the question begins in a prompt that carries its context with it.

    Returns:
        The request, with `text` None when the messages hold no human text.

    Raises:
        ConfigError: If the tenant is empty.

    Example:
        >>> ask = lambda text: build_request([{"role": "user", "content": text}], model="gpt-4o-mini")
        >>> ask("What is a llama?").text
        'What is a llama?'
        >>> ask("What is a llama?").scope == ask("What is an alpaca?").scope
        True
    """
    if not tenant or not tenant.strip():
        raise ConfigError("tenant is empty: name whose answers these are, e.g. tenant='acme'")
    last = max((i for i, message in enumerate(messages) if message.get("role") == "user"), default=None)
    text: str | None = None
    context = ""
    ids = _CallIds()
    turns: list[Any] = []
    for i, message in enumerate(messages):
        if i == last:
            text, rest = _loose(message.get("content"))
            if text is not None and split is not None:
                context, text = parted(split, text)
                context, text = normalise(context), normalise(text) or None
            message = {**message, "content": rest if text is not None else message.get("content")}
        turns.append(_turn(message, ids))
    tenant_digest = digest("tenant", tenant)
    scope = digest(
        "scope",
        _KEY_VERSION,
        tenant_digest,
        model,
        _ADDRESS.sub("", params),
        turns,
        last,
        context,
        text is None,
    )
    return CacheRequest(key=digest("key", scope, text), scope=scope, text=text, tenant=tenant_digest, model=model)


def normalise(text: str) -> str:
    """NFC, one kind of line end, no blank ends: what changes no answer. Case and inner spaces may, and stay."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def digest(*parts: Any) -> str:
    """Hex digest (40 characters) of JSON-like parts; equal parts, equal digest, in every process.

    Example:
        >>> digest("a", 1) == digest("a", 1), digest("a", "1") == digest("a", 1)
        (True, False)
    """
    # ASCII escapes: lone surrogates, which no UTF-8 encoder takes, stay distinct and legal.
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.blake2b(canonical.encode("ascii"), digest_size=20).hexdigest()


def _loose(content: Any) -> tuple[str | None, list[Any]]:
    """(text that may match loosely or None, the rest with "" where the text stood)."""
    blocks = content if isinstance(content, list) else [content]
    texts: list[str] = []
    rest: list[Any] = []
    for block in blocks:
        words = block if isinstance(block, str) else _text_of(block)
        if words is None:
            rest.append(block)
        else:
            texts.append(words)
            rest.append("")
    text = normalise("\n".join(texts))
    # A lone text block says what a plain string says.
    return (text or None), ([] if rest == [""] else rest)


def _text_of(block: Any) -> str | None:
    if isinstance(block, Mapping) and block.get("type") in ("text", "input_text"):
        words = block.get("text")
        return words if isinstance(words, str) else None
    return None


class _CallIds:
    """Tool calls by their place in the conversation: providers make up a new id at every call."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._count = 0

    def add(self, call_id: Any) -> None:
        self._places[str(call_id)] = self._count
        self._count += 1

    def place(self, call_id: Any) -> int | None:
        if call_id is None:
            return None
        if str(call_id) not in self._places:
            self.add(call_id)
        return self._places[str(call_id)]


def _turn(message: Message, ids: _CallIds) -> dict[str, Any]:
    """The message without what is volatile, its call ids replaced by their order of appearance."""
    calls = []
    for call in message.get("tool_calls") or ():
        # Always the next number: there are models that give every call the same id.
        ids.add(call.get("id"))
        calls.append({"name": call.get("name"), "args": call.get("args")})
    turn = {
        "role": message.get("role"),
        "content": _content(message.get("content"), ids),
        "name": message.get("name"),
        "calls": calls,
        "answers": ids.place(message.get("tool_call_id")),
        "extra": {name: value for name, value in (message.get("extra") or {}).items() if name not in _VOLATILE},
    }
    return {name: value for name, value in turn.items() if value not in (None, "", [], {})}


def _content(content: Any, ids: _CallIds) -> Any:
    if not isinstance(content, list):
        return content
    text, rest = _loose(content)
    return text if text is not None and not rest else [_block(block, ids) for block in content]


def _block(block: Any, ids: _CallIds) -> Any:
    """A content block without its own id and what only bills; what lies inside it is data, and stays."""
    if not isinstance(block, Mapping):
        return block
    kind = block.get("type")
    cleaned: dict[str, Any] = {}
    for name, item in block.items():
        if item is None or name in _NOT_CONTENT or (name == "id" and kind in _SELF_NAMED):
            continue
        refers = name in _CALL_REFERENCES or (name == "id" and kind in _CALL_BLOCKS)
        cleaned[name] = ids.place(item) if refers else item
    return cleaned
