"""What Redis answers: neighbours from a search, tags by which a batch is removed, errors as ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from costopt.caching.redis_client import decoded
from costopt.caching.store import Neighbour, Selector
from costopt.caching.vector import cosine
from costopt.errors import StoreError, StoreTimeoutError

__all__ = ["batches", "failures", "neighbours", "remove_batch", "translated", "unless_index_is_missing"]

_BATCH = 500


def unless_index_is_missing(error: StoreError) -> None:
    """Raise the error of a search again, unless it failed for want of an index."""
    # "no such index" (Redis Stack), "Unknown index name" (older), "Index not found" (Redis 8).
    words = str(error).lower()
    if "index" not in words or not any(part in words for part in ("no such", "unknown", "not found")):
        raise error


def neighbours(reply: Any, asked: str) -> list[Neighbour]:
    """From FT.SEARCH's answer: a list in RESP2, a map in RESP3."""
    if isinstance(reply, dict):
        rows = _field(reply, "results") or []
        documents = [_field(row, "extra_attributes") for row in rows]
    else:
        documents = [dict(zip(fields[::2], fields[1::2], strict=True)) if fields else None for fields in reply[2::2]]
    neighbours = []
    for document in documents:
        # An entry that expires during the search is named without its fields.
        data = decoded(_field(document, "entry")) if document else None
        if data is not None and asked.encode() not in (decoded(_field(document, "rejected")) or b""):
            neighbours.append(Neighbour(data, cosine(1.0 - float(_field(document, "far")))))
    return neighbours


def _field(mapping: Any, name: str) -> Any:
    value = mapping.get(name.encode())
    return mapping.get(name) if value is None else value


def batches(keys: Iterable[Any]) -> Iterator[list[Any]]:
    """The keys, some hundreds at a time."""
    batch: list[Any] = []
    for key in keys:
        batch.append(key)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@cache
def failures() -> tuple[type[Exception], ...]:
    """What redis-py and RedisVL raise; looked up once, for an import statement costs more than what it guards."""
    from redis.exceptions import RedisError
    from redisvl.exceptions import RedisVLError

    return RedisError, RedisVLError, OSError, RuntimeError


def translated(error: Exception) -> StoreError:
    """redis-py's and RedisVL's errors as ours."""
    from redis.exceptions import TimeoutError as RedisTimeoutError

    if isinstance(error, RedisTimeoutError | TimeoutError):
        return StoreTimeoutError(f"Redis took too long: {error}")
    if "unknown command 'FT." in str(error):
        return StoreError("this Redis has no search module: use Redis 8, Redis Stack or Redis Cloud, or a LocalStore")
    return StoreError(f"Redis failed: {error}")


def remove_batch(redis: Any, keys: Sequence[Any], selector: Selector) -> int:
    """Two round trips a batch and shard: read the tags, remove what matches."""
    if selector.model is not None or selector.tag is not None:
        reading = redis.pipeline(transaction=False)
        for key in keys:
            reading.hmget(key, "model", "tags")
        fields = [[(decoded(value) or b"").decode() for value in values] for values in reading.execute()]
        keys = [
            key
            for key, (model, tags) in zip(keys, fields, strict=True)
            if selector.model in (None, model) and (selector.tag is None or selector.tag in tags.split(","))
        ]
    removing = redis.pipeline(transaction=False)
    for key in keys:
        removing.unlink(key)
    return sum(removing.execute())
