"""What blocks and what awaits do the same, on both stores, with the same data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from costopt import Answer, CacheHit, LocalStore, RedisStore, SemanticCache, SimilarityJudge, Usage

SCRIPT = [
    ("ask", "How do I reset my password?"),
    ("tell", "How do I reset my password?"),
    ("ask", "How do I reset my password?"),
    ("ask", "How can I reset my password?"),
    ("ask", "How do I cancel my order?"),
    ("tell", ""),
    ("ask", ""),
    ("tell", "x" * 5000),
    ("ask", "x" * 5000),
    ("ask", "x" * 5001),
    ("tell", "\ud800 \x00 🦙 שלום"),
    ("ask", "\ud800 \x00 🦙 שלום"),
]


@pytest.fixture(params=["local", "redis"])
def caches(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Two caches that share nothing."""
    if request.param == "redis":
        request.getfixturevalue("redis_client")
        url = request.getfixturevalue("redis_url")
        stores: list[Any] = [RedisStore(url, namespace=name, timeout=5.0) for name in ("costopt-a", "costopt-b")]
    else:
        stores = [LocalStore(tmp_path / name) for name in ("a", "b")]
    return [SemanticCache(store, judge=SimilarityJudge(0.9), time_budget=10.0).warm() for store in stores]


def shown(hit: CacheHit | None) -> Any:
    return None if hit is None else (hit.tier, hit.cached, round(hit.similarity, 3), hit.answer)


async def test_both_ways_give_the_same_answers_and_the_same_sums(caches: list[SemanticCache]) -> None:
    blocking, awaiting = caches
    answer = Answer(({"kind": "chat", "content": "Click on the link."},), Usage(10, 5))
    seen = []
    for verb, text in SCRIPT:
        request = blocking.request([{"role": "user", "content": text}], model="gpt-4o-mini")
        assert request == awaiting.request([{"role": "user", "content": text}], model="gpt-4o-mini")
        if verb == "tell":
            blocking.update(request, answer)
            await awaiting.aupdate(request, answer)
        else:
            one, two = blocking.lookup(request), await awaiting.alookup(request)
            assert shown(one) == shown(two), text[:40]
            seen.append(one.tier if one else None)
    assert seen == [None, "exact", "semantic", None, "exact", "exact", None, "exact"]
    assert blocking.stats() == awaiting.stats()
    blocking.close()
    await awaiting.aclose()
    assert dict(blocking.store.totals()) == dict(awaiting.store.totals())
    for cache in caches:
        await cache.aclose()
