"""A cache over each store, with the real embedder; patient, because what is tested here is not speed.

What is served is decided by similarity, for what is tested here is not the judge; `judge=None` is the default one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from costopt import LocalStore, RedisStore, SimilarityJudge
from costopt.audit import Ledger
from langchain_costopt import CostTracker, SemanticCache
from tests.billing import PRICES, Bill
from tests.openai_server import OpenAIServer

MakeCache = Callable[..., SemanticCache]
NEAR = SimilarityJudge(0.9)


@pytest.fixture(params=["local", "redis"])
def make_cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeCache]:
    """A function that makes caches over one store; options are those of `SemanticCache`."""
    made: list[SemanticCache] = []
    if request.param == "redis":
        request.getfixturevalue("redis_client")
        url = request.getfixturevalue("redis_url")

    def make(**options: Any) -> SemanticCache:
        store = LocalStore(tmp_path / "cache.db") if request.param == "local" else RedisStore(url, timeout=5.0)
        cache = SemanticCache(store, **{"judge": NEAR, "time_budget": 10.0, **options}).warm()
        made.append(cache)
        return cache

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
async def make_async_cache(make_cache: MakeCache) -> AsyncIterator[MakeCache]:
    """`make_cache` for asyncio tests: the connections of their event loop are closed, too."""
    made: list[SemanticCache] = []

    def make(**options: Any) -> SemanticCache:
        made.append(make_cache(**options))
        return made[-1]

    yield make
    for cache in made:
        await cache.aclose()


@pytest.fixture
def bill(server: OpenAIServer) -> Bill:
    """What the server bills: a random usage for each answer."""
    made = Bill(7)
    for model in ("gpt-4o-mini", "gpt-4o", "o4-mini"):
        server.behaviours[model] = lambda _, model=model: made.openai(model)  # type: ignore[misc]
    return made


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[CostTracker]:
    """With a ledger that keeps texts, at the server's prices."""
    with Ledger(tmp_path / "ledger.db", keep_text=True) as ledger:
        yield CostTracker(ledger, prices=PRICES)
