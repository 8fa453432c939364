"""One cache on Redis and many event loops, threads and forks."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.globals import set_llm_cache

from costopt import LocalStore, RedisStore
from costopt import SemanticCache as Core
from tests.faults.support import (
    QUESTION,
    REWORDED,
    Model,
    aserves,
    capital,
    patient,
)
from tests.faults.words import NEAR, Process, Words, found, human, keep, said
from tests.servers import RedisServer


def test_several_event_loops_in_a_row(redis_server: RedisServer) -> None:
    cache = patient(redis_server.url)
    set_llm_cache(cache)
    watcher = redis_server.client()
    try:
        model = Model()
        before = len(watcher.client_list())
        for number in range(12):
            assert asyncio.run(aserves(model, f"moon{number}"))
        assert model.calls == 12
        assert not cache.stats().failures
        # Each loop's connections went with it.
        assert len(watcher.client_list()) <= before + 2
    finally:
        set_llm_cache(None)
        cache.close()


def test_a_loop_beside_threads(redis_server: RedisServer) -> None:
    cache = patient(redis_server.url)
    model = Model(cache=cache)

    async def main() -> None:
        topics = [capital(number)[0] for number in range(10)]
        threads = [asyncio.to_thread(model.invoke, topic) for topic in topics]
        await asyncio.gather(*threads, *(model.ainvoke(topic) for topic in topics))

    asyncio.run(main())
    assert model.calls == 10
    assert not cache.stats().failures
    cache.close()


def test_fork_after_use(redis_server: RedisServer) -> None:
    """Connections are the parent's: shared ones would hand answers to the wrong process."""
    code = """
import asyncio, os, sys
from costopt import RedisStore, SemanticCache
from tests.faults.words import NEAR, Words, found, human, keep, said

cache = SemanticCache(RedisStore(sys.argv[1], timeout=2.0), embedder=Words(), judge=NEAR, time_budget=10.0).warm()
keep(cache, "from the parent")
request = human(cache, "an awaited one")
asyncio.run(cache.aupdate(request, said("awaited")))
leader = cache._flows._leases.owner
children = []
for child in range(3):
    if not (pid := os.fork()):
        assert cache._flows._leases.owner != leader
        for number in range(60):
            keep(cache, f"matter{number} of child{child}")
            for text in (f"matter{number} of child{child}", f"child{child} of matter{number}"):
                assert found(cache, text)[1] == f"answer to matter{number} of child{child}"
        assert asyncio.run(cache.alookup(request)).tier == "exact"
        assert found(cache, "the parent from") == ("semantic", "answer to from the parent")
        assert not cache.stats().failures, cache.stats().failures
        cache.close()
        os._exit(0)
    children.append(pid)
for number in range(60):
    keep(cache, f"matter {number} of the parent")
    assert found(cache, f"matter {number} of the parent")[1] == f"answer to matter {number} of the parent"
statuses = [os.waitpid(pid, 0)[1] for pid in children]
assert statuses == [0, 0, 0], statuses
assert not cache.stats().failures, cache.stats().failures
cache.close()
"""
    with Process(code, redis_server.url) as process:
        process.rest()


def test_the_answer_is_stored_where_the_reader_looks(redis_server: RedisServer, tmp_path: Any) -> None:
    """Two namespaces and two stores do not see each other."""
    stores = [RedisStore(redis_server.url), RedisStore(redis_server.url, namespace="other"), LocalStore(tmp_path / "c")]
    caches = [Core(store, embedder=Words(), judge=NEAR).warm() for store in stores]
    for number, cache in enumerate(caches):
        assert found(cache, QUESTION) is None
        keep(cache, QUESTION, f"answer {number}")
    assert [found(cache, REWORDED) for cache in caches] == [("semantic", f"answer {n}") for n in range(3)]
    caches[0].clear()
    assert [found(cache, QUESTION) is None for cache in caches] == [True, False, False]
    caches[1].update(human(caches[1], "another"), said("kept"))
    for cache in caches:
        cache.close()
