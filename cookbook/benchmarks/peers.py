"""What costopt is measured beside: langchain-redis, and the linear scan of many a tutorial."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import redis
from langchain_core.embeddings import Embeddings
from langchain_core.load import dumps
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration
from langchain_redis import RedisSemanticCache
from redisvl.extensions.cache.llm.schema import CacheEntry

from cookbook.benchmarks.material import MODEL, Vectors, answer, model
from costopt import SharedEmbedder

__all__ = ["LinearScan", "OurEmbeddings", "langchain_redis_cache"]

_CHUNK = 1000


class OurEmbeddings(Embeddings):
    """The same embedder as costopt's, memo included, handed to langchain-redis.

    Args:
        shared: One that knows texts already; by default one that knows none.
    """

    def __init__(self, shared: SharedEmbedder | None = None) -> None:
        self.shared = shared or SharedEmbedder(model(), memo_size=100_000)

    def embed_query(self, text: str) -> list[float]:
        """One vector."""
        vector: list[float] = self.shared.embed_one(text).tolist()
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Many vectors."""
        rows: list[list[float]] = self.shared.embed(texts).tolist()
        return rows


def langchain_redis_cache(url: str, name: str, texts: list[str], vectors: Vectors, llm: str) -> RedisSemanticCache:
    """`RedisSemanticCache` with an entry for each text, in the layout that its `update` writes, loaded in bulk.

    The prompts are bare questions, as a plain LLM's are: with a chat model it would embed the JSON around them.
    """
    cache = RedisSemanticCache(OurEmbeddings(), redis_url=url, name=name)
    store: Any = cache.cache
    for start in range(0, len(texts), _CHUNK):
        entries = [
            CacheEntry(
                entry_id=store._make_entry_id(texts[row], None),
                prompt=texts[row],
                response=json.dumps([dumps(_generation(row))]),
                prompt_vector=vectors[row].tolist(),
                metadata={"llm_string": llm},
            ).to_dict("float32")
            for row in range(start, min(start + _CHUNK, len(texts)))
        ]
        store._index.load(data=entries, id_field="entry_id")
    return cache


def _generation(row: int) -> ChatGeneration:
    content = str(answer(row).generations[0]["content"])
    return ChatGeneration(message=AIMessage(content=content, response_metadata={"model_name": MODEL}))


class LinearScan:
    """SCAN, GET every embedding, cosine in numpy: what is written where no vector index is at hand."""

    def __init__(self, url: str, database: int, vectors: Vectors) -> None:
        self._redis = redis.Redis.from_url(url, db=database)
        with self._redis.pipeline(transaction=False) as pipeline:
            for row, vector in enumerate(vectors):
                content = str(answer(row).generations[0]["content"])
                pipeline.hset(f"cache:{row}", mapping={"embedding": vector.tobytes(), "response": content})
                if row % _CHUNK == 0:
                    pipeline.execute()
            pipeline.execute()

    def lookup(self, text: str) -> bytes | None:
        """The answer of the nearest entry, if it is near enough."""
        asked = model().embed([text])[0]
        best, found = 0.9, None
        for key in self._redis.scan_iter(match="cache:*", count=1000):
            stored = np.frombuffer(self._redis.hget(key, "embedding"), dtype=np.float32)
            similarity = float(np.dot(asked, stored) / (np.linalg.norm(asked) * np.linalg.norm(stored)))
            if similarity > best:
                best, found = similarity, key
        return None if found is None else self._redis.hget(found, "response")
