"""How many tokens a model will count, without asking it: never connects, never downloads.

OpenAI's models are counted with their own tokenizer, where tiktoken is installed and its vocabulary lies on this
machine: in `TIKTOKEN_CACHE_DIR`, in tiktoken's own cache, or in the copy inside llama-index-core. Everything else is
an estimate, and the count says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
import tempfile
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

__all__ = ["TokenCount", "count_tokens", "encoding_of", "estimate_tokens", "most_tokens"]

_log = logging.getLogger("costopt.tokens")

Message = Mapping[str, Any]

_ENCODINGS = (
    ("o200k_base", ("gpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "gpt-oss", "chatgpt-4o", "o1", "o3", "o4")),
    ("cl100k_base", ("gpt-4", "gpt-3.5", "gpt-35", "text-embedding-3", "text-embedding-ada-002")),
)
_SELLERS = ("openai/", "azure/", "ft:")
# What OpenAI's chat format adds: to each message, and at the end for the answer to come.
_PER_MESSAGE, _PRIMING = 4, 3
# An image is billed by its size, which only the provider knows for sure: about one of 1024 x 1024 in full detail.
_PER_IMAGE = 765
_MOST_PER_IMAGE = 3_000
_BYTES_A_TOKEN = 4.0


@dataclass(frozen=True, slots=True)
class TokenCount:
    """A number of tokens, and how it was come by.

    Attributes:
        tokens: How many.
        exact: Whether the model's own tokenizer counted plain text; False for every estimate.
        by: What counted, e.g. "o200k_base" or "estimate".
    """

    tokens: int
    exact: bool
    by: str


def count_tokens(content: str | Sequence[Message], model: str) -> TokenCount:
    """Count a text, or the messages of a chat, as `model` would.

    Args:
        content: A text; or messages, each with a "role" and a "content" that is a text or a list of blocks.
        model: Its name, as `costopt.pricing` takes it.

    Returns:
        The count. It is exact for text and a model of OpenAI's whose vocabulary is at hand. For messages the words
        are counted so, and what the chat format adds is estimated, as are images.

    Example:
        >>> count_tokens("How do I reset my password?", "gpt-4o").tokens
        7
        >>> count_tokens("How do I reset my password?", "my-own-model").exact
        False
    """
    encoding = encoding_of(model)
    tokenizer = _tokenizer(encoding) if encoding else None
    if tokenizer is None:
        return TokenCount(_tokens(content, estimate_tokens), False, "estimate")
    counted = _tokens(content, lambda text: len(tokenizer.encode_ordinary(text)))
    return TokenCount(counted, isinstance(content, str), str(encoding))


def estimate_tokens(text: str) -> int:
    """A quick estimate: four bytes of UTF-8 a token, one at least for a text that is not empty.

    Near for prose and code, high for some alphabets; dense JSON and long numbers have up to two and a half times as
    many.

    Example:
        >>> estimate_tokens("How do I reset my password?"), estimate_tokens("")
        (7, 0)
    """
    return math.ceil(len(text.encode("utf-8", "replace")) / _BYTES_A_TOKEN)


def most_tokens(content: str | Sequence[Message]) -> int:
    """An upper bound that holds for every tokenizer that falls back to bytes: one token a byte.

    Example:
        >>> most_tokens("abc")
        3
    """
    return _tokens(content, lambda text: len(text.encode("utf-8", "replace")), _MOST_PER_IMAGE)


def encoding_of(model: str) -> str | None:
    """The name of the vocabulary by which OpenAI counts for this model; None for models of others.

    Example:
        >>> encoding_of("gpt-4o-mini"), encoding_of("openai/gpt-4"), encoding_of("claude-haiku-4-5")
        ('o200k_base', 'cl100k_base', None)
    """
    name = model.lower()
    for seller in _SELLERS:
        name = name.removeprefix(seller)
    for encoding, starts in _ENCODINGS:
        if name.startswith(starts):
            return encoding
    return None


def _tokens(content: str | Sequence[Message], count: Any, image: int = _PER_IMAGE) -> int:
    if isinstance(content, str):
        return int(count(content))
    total = _PRIMING
    for message in content:
        total += _PER_MESSAGE + sum(count(part) if isinstance(part, str) else image for part in _parts(message))
    return total


def _parts(message: Message) -> Iterator[str | None]:
    """The texts of a message; None for each image or file."""
    content = message.get("content")
    for block in [content] if isinstance(content, str) else content or ():
        if isinstance(block, str):
            yield block
        elif isinstance(block, Mapping) and _is_media(block):
            yield None
        elif isinstance(block, Mapping):
            text = block.get("text")
            yield text if isinstance(text, str) else _json(block)
    for name in ("name", "tool_call_id"):
        if message.get(name):
            yield str(message[name])
    for call in message.get("tool_calls") or ():
        yield _json(call)


def _is_media(block: Mapping[str, Any]) -> bool:
    kind = str(block.get("type", ""))
    return any(word in kind for word in ("image", "audio", "video", "file", "media", "document"))


def _json(value: Any) -> str:
    return json.dumps(value, default=str, separators=(",", ":"))


@lru_cache(maxsize=8)
def _tokenizer(encoding: str) -> Any | None:
    """The tokenizer of tiktoken, from files on this machine only; None without them."""
    try:
        import tiktoken
        from tiktoken_ext import openai_public  # type: ignore[import-untyped]
    except ImportError:
        return None
    made = getattr(openai_public, encoding)
    # Its recipe, with our reading of the file in place of tiktoken's, which would download it.
    recipe = FunctionType(made.__code__, {**made.__globals__, "load_tiktoken_bpe": _vocabulary})
    try:
        return tiktoken.Encoding(**recipe())
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.info("costopt: tokens of %s models are estimated: %s", encoding, error)
        return None


def _vocabulary(url: str, expected_hash: str | None = None) -> dict[bytes, int]:
    """A vocabulary file as tiktoken names it in its caches.

    Raises:
        FileNotFoundError: If it is not on this machine, or not the file that was meant.
    """
    name = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    for folder in _folders():
        try:
            data = (folder / name).read_bytes()
        except OSError:
            continue
        if expected_hash is None or hashlib.sha256(data).hexdigest() == expected_hash:
            rows = (line.split() for line in data.splitlines() if line)
            return {b64decode(token): int(rank) for token, rank in rows}
    raise FileNotFoundError(f"{url} is in none of tiktoken's caches on this machine")


def _folders() -> Iterator[Path]:
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    yield Path(tempfile.gettempdir()) / "data-gym-cache"
    try:
        found = importlib.util.find_spec("llama_index")
    except (ImportError, ValueError):
        found = None
    for place in (found.submodule_search_locations or ()) if found else ():
        yield Path(place) / "core" / "_static" / "tiktoken_cache"
