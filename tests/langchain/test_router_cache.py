"""A cache before a router: asked once, before anything is routed, for answers of whichever model it was."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache

from costopt import LocalStore, Tier
from langchain_costopt import RouterRunnable, SemanticCache, StreamCache
from tests.costopt.routing.models import Scored
from tests.langchain.conftest import NEAR
from tests.langchain.test_router import City, routed, said
from tests.langchain.test_router_conformance import chat
from tests.openai_server import OpenAIServer
from tests.rewordings import PARAPHRASE, QUESTION


class CountingCache(InMemoryCache):
    def __init__(self) -> None:
        super().__init__()
        self.lookups, self.updates = 0, 0

    def lookup(self, prompt: str, llm_string: str) -> Any:
        self.lookups += 1
        return super().lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: Any) -> None:
        self.updates += 1
        super().update(prompt, llm_string, return_val)


@pytest.mark.parametrize("everywhere", [True, False])
async def test_a_cache_is_asked_once_and_a_hit_is_not_routed(server: OpenAIServer, everywhere: bool) -> None:
    cache, scored = CountingCache(), Scored()
    set_llm_cache(cache if everywhere else None)
    try:
        router = routed(server, estimator=scored, **({} if everywhere else {"cache": cache}))
        paid = router.invoke("0.1")
        hits = [router.invoke("0.1"), await router.ainvoke("0.1"), *router.batch(["0.1", "0.1"])]
    finally:
        set_llm_cache(None)
    assert (cache.lookups, cache.updates, scored.asked, len(server.requests)) == (5, 1, 1, 1)
    assert "attempts" in said(paid)
    for hit in hits:
        assert hit.content == paid.content
        assert said(hit) == {"cache": "hit", "chosen": "gpt-4o-mini"}


async def test_the_semantic_cache_before_a_router(server: OpenAIServer, tmp_path: Path) -> None:
    """A question in other words is neither embedded for the router, nor scored, nor paid for."""
    with closing(SemanticCache(LocalStore(tmp_path / "cache.db"), judge=NEAR, time_budget=10.0).warm()) as cache:
        scored = Scored()
        router = RouterRunnable(
            tiers=[Tier(chat(server.url, name)) for name in ("gpt-4o-mini", "gpt-4o")],
            estimator=Lengths(scored),
            cache=cache,
        )
        paid = router.invoke(QUESTION)
        hits = [router.invoke(PARAPHRASE), await router.ainvoke(PARAPHRASE), router.batch([QUESTION, PARAPHRASE])[0]]
        assert {hit.content for hit in hits} == {paid.content}
        assert [said(hit)["cache"] for hit in hits] == ["semantic", "semantic", "exact"]
        assert float(said(hits[0])["avoided_usd"]) == float(said(paid)["cost"])
        assert (scored.asked, len(server.requests), cache.stats().lookups) == (1, 1, 5)
        cache.reject(hits[0])
        assert said(router.invoke(PARAPHRASE))["chosen"] == "gpt-4o-mini"


class Lengths(Scored):
    """Counts what it is asked in another estimator; every text is easy."""

    def __init__(self, counted: Scored) -> None:
        super().__init__()
        self.counted = counted

    def scores(self, texts: Any, vectors: Any) -> Any:
        self.counted.asked += len(texts)
        return [[0.0]] * len(texts)


def test_routers_over_other_models_do_not_share_answers(server: OpenAIServer) -> None:
    cache = InMemoryCache()
    routed(server, cache=cache).invoke("0.1")
    RouterRunnable(tiers=[chat(server.url, "gpt-4o-mini")], cache=cache).invoke("0.1")
    routed(server, cache=cache, temperature=0.5).invoke("0.1")
    routed(server, cache=cache).with_structured_output(City).invoke("0.1")
    assert len(server.requests) == 4


def test_a_schema_out_of_the_cache_is_read_again(server: OpenAIServer) -> None:
    router = routed(server, cache=InMemoryCache()).with_structured_output(City)
    assert router.invoke("0.1") == router.invoke("0.1") == City(name="0.1")
    assert len(server.requests) == 1


def test_streams_use_the_cache_as_those_of_other_models_do(server: OpenAIServer) -> None:
    class Cached(StreamCache, RouterRunnable):
        pass

    tiers = [Tier(chat(server.url, name)) for name in ("gpt-4o-mini", "gpt-4o")]
    router = Cached(tiers=tiers, estimator=Scored(), thresholds=(0.5,), cache=InMemoryCache())
    for _ in range(2):
        assert "".join(str(chunk.content) for chunk in router.stream("0.1")) == "answer 1"
    assert router.invoke("0.1").content == "answer 1"
    assert len(server.requests) == 1
