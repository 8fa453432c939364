"""How much memory the semantic cache takes in your Redis, measured there.

    pip install "costopt[redis,minilm]"
    export COSTOPT_REDIS_URL=redis://setup:PASSWORD@localhost:6379      # see deploy/redis/README.md
    python cookbook/redis_production.py

It writes some thousands of entries under names of its own, looks at what they took, and removes them.
"""

import os
import sys
import zlib

import numpy as np
import redis

from costopt import Answer, RedisStore, SemanticCache, StoreError, Usage
from costopt.pricing import cost

ENTRIES = 1_000
NAMESPACE = "costopt-sizing"


class Directions:
    """Stands for the embedder, to save time: an entry takes as much wherever its vector points."""

    name, dimension = "directions", 384

    def embed(self, texts: list[str]) -> np.ndarray:
        """A direction for each text."""
        rows = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dimension) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def measured(client: redis.Redis, cache: SemanticCache, answer_chars: int) -> float:
    """Bytes of one entry with an answer of that length, its share of the index included."""
    usage = Usage(400, answer_chars // 4)
    content = np.random.default_rng(1).bytes(answer_chars).hex()[:answer_chars]
    answer = Answer(({"kind": "chat", "content": content},), usage, cost("gpt-4o-mini", usage))
    before = client.info("memory")["used_memory"]
    for number in range(ENTRIES):
        question = f"A question of {answer_chars} characters, number {number}, of the length that questions have?"
        request = cache.request([{"role": "user", "content": question}], model="gpt-4o-mini")
        cache.update(request, answer)
        cache.lookup(request)  # somebody asks again
    return (client.info("memory")["used_memory"] - before) / ENTRIES


def main() -> None:
    url = os.environ.get("COSTOPT_REDIS_URL")
    if not url:
        sys.exit("set COSTOPT_REDIS_URL, e.g. redis://setup:PASSWORD@localhost:6379")
    client, store = redis.Redis.from_url(url), RedisStore(url, namespace=NAMESPACE)
    cache = SemanticCache(store, embedder=Directions(), ttl=3600)
    try:
        store.open()
    except StoreError as error:
        sys.exit(f"{error}: is it Redis 8 or Redis Stack, and does the account have the rights of setup in users.acl?")
    print(f"{'answer':>12} {'an entry':>12} {'10,000':>12} {'100,000':>12} {'1,000,000':>12}")
    for answer_chars in (500, 2_000, 8_000):
        size = measured(client, cache, answer_chars)
        in_all = " ".join(f"{size * entries / 2**20:8,.0f} MiB" for entries in (10_000, 100_000, 1_000_000))
        print(f"{answer_chars:6,} chars {size:6,.0f} bytes {in_all}")
    stats = cache.stats()
    cache.clear()
    client.delete(f"{NAMESPACE}:totals")
    for name in client.execute_command("FT._LIST"):
        if name.startswith(NAMESPACE.encode()):
            client.execute_command("FT.DROPINDEX", name)
    print(f"{stats.failures or 'no'} failures, {stats.lookups:,} lookups, {stats.hits:,} served")
    print(f"saved ${stats.saved_usd:.6f}, what so many answers of gpt-4o-mini cost")


if __name__ == "__main__":
    main()
