"""A stored question and answer: versioned JSON of our own, checked on the way out.

Not a framework's serialisation and not pickle: whoever can write to the store must not be able to build
objects in the application (CVE-2025-68664, CVE-2025-69872).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from costopt.caching.answer import Answer
from costopt.errors import EntryError
from costopt.pricing import Usage

__all__ = ["MAX_ENTRY_BYTES", "Entry", "decode", "encode"]

_VERSION = 1
MAX_ENTRY_BYTES = 2 * 1024 * 1024
"""Larger entries are neither written nor read: parsing one would cost more than the time budget of a lookup."""


# Not frozen, unlike what callers get: a frozen one takes three times as long to make, on every hit.
@dataclass(slots=True)
class Entry:
    """One question and its answer.

    Attributes:
        key: As in `CacheRequest`.
        scope: As in `CacheRequest`.
        tenant: As in `CacheRequest`.
        model: As in `CacheRequest`.
        text: As in `CacheRequest`.
        answer: What the model said.
        created: Unix time in seconds.
        expires: Unix time in seconds; None for never.
        tags: The user's own labels, for `invalidate`.
    """

    key: str
    scope: str
    tenant: str
    model: str
    text: str | None
    answer: Answer
    created: float
    expires: float | None = None
    tags: tuple[str, ...] = ()


def encode(entry: Entry) -> bytes:
    """The entry as ASCII JSON.

    Raises:
        EntryError: If the answer holds what JSON cannot carry, or the entry is larger than `MAX_ENTRY_BYTES`.
    """
    usage = entry.answer.usage
    record = {
        "v": _VERSION,
        "key": entry.key,
        "scope": entry.scope,
        "tenant": entry.tenant,
        "model": entry.model,
        "text": entry.text,
        "created": entry.created,
        "expires": entry.expires,
        "tags": entry.tags,
        "usage": [usage.input_tokens, usage.output_tokens, usage.cached_tokens],
        "cost": None if entry.answer.cost is None else str(entry.answer.cost),
        "generations": entry.answer.generations,
    }
    try:
        data = json.dumps(record, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise EntryError(f"the answer cannot be stored as JSON: {error}") from error
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryError(f"the answer takes {len(data):,} bytes; the cache keeps up to {MAX_ENTRY_BYTES:,}")
    return data


def decode(data: bytes) -> Entry:
    """The entry that `encode` wrote.

    Raises:
        EntryError: If `data` is anything else: cut off, foreign, of another version, too large.
    """
    if len(data) > MAX_ENTRY_BYTES:
        raise EntryError(f"a stored entry takes {len(data):,} bytes, more than this cache writes")
    try:
        # As a string: of bytes, json would first guess the encoding.
        record = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise EntryError(f"a stored entry is not JSON: {error}") from None
    version = record.get("v") if isinstance(record, dict) else None
    if version != _VERSION:
        raise EntryError(f"a stored entry is of version {version!r}; this costopt reads {_VERSION}")
    try:
        return _entry(record)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EntryError(f"a stored entry is damaged: {error!r}") from None


def _entry(record: dict[str, Any]) -> Entry:
    key, scope, tenant, model, text = (record[name] for name in ("key", "scope", "tenant", "model", "text"))
    if not (isinstance(key, str) and isinstance(scope, str) and isinstance(tenant, str) and isinstance(model, str)):
        raise ValueError("key, scope, tenant and model are strings")
    if not (text is None or isinstance(text, str)):
        raise ValueError("text is a string or null")
    generations = tuple(record["generations"])
    if not generations or not all(isinstance(made["content"], str | list) for made in generations):
        raise ValueError("generations are objects with a content")
    read, written, cached = record["usage"]
    created, expires = float(record["created"]), record["expires"]
    cost = None if record["cost"] is None else Decimal(record["cost"])
    # NaN in one entry would stay in the sums of all.
    if not math.isfinite(created) or min(read, written, cached) < 0 or not (cost is None or 0 <= cost < math.inf):
        raise ValueError("created, usage and cost are numbers from 0 on")
    return Entry(
        key,
        scope,
        tenant,
        model,
        text,
        Answer(generations, Usage(int(read), int(written), int(cached)), cost),
        created,
        None if expires is None else float(expires),
        tuple(map(str, record["tags"])),
    )
