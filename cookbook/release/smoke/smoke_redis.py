"""A cache in Redis that two caches share, sync and async."""

import asyncio

from words import ASKED, REWORDED, Words, address

from costopt import Answer, RedisStore, SemanticCache, SimilarityJudge, Usage


def cache() -> SemanticCache:
    return SemanticCache(
        RedisStore(address("redis"), timeout=5), embedder=Words(), judge=SimilarityJudge(0.7), tenant="smoke"
    )


one, other = cache(), cache().warm()  # or the first lookup gives up while redisvl is imported
asked, reworded = (one.request([{"role": "user", "content": text}], model="gpt-4o-mini") for text in (ASKED, REWORDED))
one.warm().clear()
one.update(asked, Answer(({"kind": "chat", "content": "Settings > Security."},), Usage(10, 5)))
exact, near = other.lookup(asked), other.lookup(reworded)
assert exact is not None and exact.tier == "exact", (exact, other.stats())
assert near is not None and near.tier == "semantic", (near, other.stats())
assert asyncio.run(cache().alookup(asked)) is not None
assert not other.stats().failures, other.stats()
print(f"exact, semantic at {near.similarity:.2f} and awaited hit from a second cache")
