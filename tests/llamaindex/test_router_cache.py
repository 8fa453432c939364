"""`Settings.llm = CachedLLM(RouterLLM([...]))`: a cache that is asked first, in an application with all the rest."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.schema import TextNode

from cookbook import llamaindex_app
from costopt import LocalStore, SemanticCache
from costopt.audit import Ledger
from llamaindex_costopt import CachedLLM, CompressorPostprocessor, CostTracker, RouterLLM
from tests.llamaindex.routed import NAMES, adrained, drained, llm, routed, said, user
from tests.llamaindex.test_router_tools import ASK, TOOLS, City
from tests.openai_server import Behaviour, OpenAIServer

FACTS = [
    "Parcels are sent on the day of the order. The warehouse closes at five. Our office has a blue door.",
    "A refund takes five working days. It goes to the card that paid. Gift cards are refunded as gift cards.",
    "Passwords are reset by mail. The link in it lasts for one hour. Ask again if it did not come.",
]
QUESTION = "How long does a refund take?"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[SemanticCache]:
    with closing(SemanticCache(LocalStore(tmp_path / "cache.db"), time_budget=10.0)) as made:
        yield made


def test_an_application_with_all_of_it(server: OpenAIServer, cache: SemanticCache, tmp_path: Path) -> None:
    """Two questions, one of them three times: two calls, to the cheap model, with less than the whole context."""
    server.behaviours["gpt-4o-mini"] = Behaviour(text="Five working days.")
    router = RouterLLM(tiers=[llm(server, name) for name in NAMES])
    nodes = [TextNode(text=text) for text in FACTS]
    index = VectorStoreIndex(nodes, embed_model=llamaindex_app.MiniLM())
    compressor = CompressorPostprocessor(target_ratio=0.5)
    Settings.llm = CachedLLM(router, cache=cache)
    try:
        with Ledger(tmp_path / "ledger.db") as ledger, CostTracker(ledger).installed() as tracker:
            engine = index.as_query_engine(similarity_top_k=3, node_postprocessors=[compressor])
            answers = [str(engine.query(QUESTION)) for _ in range(3)]
            answers.append(str(engine.query("When does the warehouse close?")))
            totals = tracker.totals()
            rows = list(ledger.attempts())
    finally:
        Settings._llm = None
    assert answers == ["Five working days."] * 4
    assert len(server.requests) == 2
    assert "A refund takes five working days." in str(server.requests[0])
    assert "blue door" not in str(server.requests[0])
    assert [(row.cache, row.route) for row in rows] == [
        (None, "gpt-4o-mini"), ("exact", None), ("exact", None), (None, "gpt-4o-mini"),
    ]  # fmt: skip
    assert totals.cost == router.stats().cost == 2 * Decimal("0.0000117")
    assert [row.avoided_cost for row in rows if row.cache] == [Decimal("0.0000117")] * 2
    assert [row.baseline_cost for row in rows if not row.cache] == [Decimal("0.000195")] * 2


async def test_a_hit_is_not_routed(server: OpenAIServer, cache: SemanticCache) -> None:
    router = routed(server)
    cached = CachedLLM(router, cache=cache)
    paid = cached.chat(user("0.9"))
    hits = [cached.chat(user("0.9")), await cached.achat(user("0.9"))]
    hits += [drained(cached.stream_chat(user("0.9"))), await adrained(await cached.astream_chat(user("0.9")))]
    assert said(paid)["chosen"] == "gpt-4o"
    assert {hit.message.content for hit in hits} == {paid.message.content}
    assert [said(hit)["cache"] for hit in hits] == ["exact"] * 4
    assert router.stats().answered == {"gpt-4o": 1}


async def test_tools_and_objects_out_of_the_cache(server: OpenAIServer, cache: SemanticCache) -> None:
    cached = CachedLLM(routed(server), cache=cache)
    for _ in range(2):
        answer = cached.chat_with_tools(TOOLS, user_msg="0.9", tool_required=True)
        assert cached.get_tool_calls_from_response(answer)[0].tool_kwargs == {"city": "0.9"}
    assert len(server.requests) == 1
    for _ in range(2):
        assert cached.structured_predict(City, ASK, score="0.9") == City(name="0.9")
    assert await cached.astructured_predict(City, ASK, score="0.9") == City(name="0.9")
    assert list(cached.stream_structured_predict(City, ASK, score="0.9"))[-1] == City(name="0.9")
    assert len(server.requests) == 2
    # What is asked for is part of the question.
    cached.chat_with_tools(TOOLS, user_msg="0.9")
    cached.chat(user("0.9"))
    assert len(server.requests) == 4


def test_routers_over_other_models_do_not_share_answers(server: OpenAIServer, cache: SemanticCache) -> None:
    for options in ({}, {"temperature": 0.7}, {"max_tokens": 5}):
        router = RouterLLM(tiers=[llm(server, name, **options) for name in NAMES])
        CachedLLM(router, cache=cache).complete("Hello")
    CachedLLM(RouterLLM(tiers=[llm(server, "gpt-4o-mini")]), cache=cache).complete("Hello")
    CachedLLM(RouterLLM(tiers=[llm(server, name) for name in NAMES]), cache=cache).complete("Hello")
    assert len(server.requests) == 4


def test_both_travel_without_keys(server: OpenAIServer, cache: SemanticCache) -> None:
    cached = CachedLLM(routed(server), cache=cache)
    data = pickle.dumps(cached)
    assert b"sk-secret" not in data
    assert isinstance(pickle.loads(data).llm, RouterLLM)
    assert "sk-secret" not in str(cached.to_dict())
