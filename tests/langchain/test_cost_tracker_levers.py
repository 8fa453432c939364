"""`CostTracker` beside the levers: caches, routers, batches and limits, one at a time and all in one application."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from costopt import BudgetExceededError, Tier, Usage
from costopt.audit import Ledger, SpendingLimit
from langchain_costopt import CostTracker, RouterRunnable
from tests.billing import PRICES, Bill, assert_billed, assert_one_fell_back_and_three_hit, rows
from tests.langchain.conftest import MakeCache
from tests.langchain.tracked import chat
from tests.openai_server import Behaviour, OpenAIServer
from tests.rewordings import PARAPHRASE, QUESTION

# -- caches and routers --------------------------------------------------------------------------------------


def test_hits_cost_nothing_and_say_what_they_avoided(
    make_cache: MakeCache, server: OpenAIServer, bill: Bill, tracker: CostTracker
) -> None:
    llm = chat(server, cache=make_cache(), callbacks=[tracker])
    for question in (QUESTION, QUESTION, PARAPHRASE):
        llm.invoke(question)
    paid, exact, semantic = rows(tracker)
    assert [row.cache for row in (paid, exact, semantic)] == [None, "exact", "semantic"]
    assert paid.usage is not None
    for hit in (exact, semantic):
        assert (hit.usage, hit.cost, hit.cost_source) == (Usage(), 0, "cache")
        assert hit.avoided_usage == Usage(paid.usage.input_tokens, paid.usage.output_tokens)
    assert bill.answers == 1
    assert_billed(tracker, bill)
    assert tracker.totals().cache_hits == 2


def test_hits_of_another_cache_are_seen(server: OpenAIServer, bill: Bill, tracker: CostTracker) -> None:
    llm = chat(server, cache=InMemoryCache(), callbacks=[tracker])
    for _ in range(3):
        llm.invoke(QUESTION)
    paid, *hits = rows(tracker)
    assert [hit.cache for hit in hits] == ["exact", "exact"]
    assert {hit.avoided_cost for hit in hits} == {paid.cost}
    assert_billed(tracker, bill)


def test_a_routers_attempts_are_rows_of_one_request(server: OpenAIServer, bill: Bill, tracker: CostTracker) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(status=429, error="slow down")
    tiers = [Tier(chat(server, model=name), price=PRICES[name]) for name in ("gpt-4o-mini", "gpt-4o")]
    router = RouterRunnable(tiers=tiers, callbacks=[tracker])
    router.invoke("What is the capital of France?")
    list(router.stream("What is the capital of Spain?"))
    found = rows(tracker)
    assert [(row.model, row.status, row.route) for row in found[:2]] == [
        ("gpt-4o-mini", "error", "gpt-4o-mini"),
        ("gpt-4o", "ok", "gpt-4o"),
    ]
    assert found[0].request_id == found[1].request_id
    assert (found[0].cost, found[1].cost_source, found[1].route_why) == (0, "router", "rate limit")
    assert found[1].baseline_cost == found[1].cost
    assert bill.answers == 2
    assert_billed(tracker, bill)
    assert tracker.ledger.totals(routed=True) == tracker.ledger.totals()


async def test_what_was_shown_of_a_routers_stream_is_known(server: OpenAIServer, tracker: CostTracker) -> None:
    def cut(router: RouterRunnable) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            list(router.stream("What is the capital of France?"))

    def left(router: RouterRunnable) -> None:
        stream = router.stream("What is the capital of France?")
        next(stream)
        stream.close()  # type: ignore[attr-defined]

    async def aleft(router: RouterRunnable) -> None:
        stream = router.astream("What is the capital of France?")
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]

    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five", cut_after=3)
    router = RouterRunnable(
        tiers=[Tier(chat(server, model=name), name=name[-4:]) for name in ("gpt-4o-mini", "gpt-4o")],
        callbacks=[tracker],
    )
    cut(router)
    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five")
    left(router)
    await aleft(router)
    found = rows(tracker)
    assert [(row.model, row.route, row.status) for row in found] == [
        ("gpt-4o-mini", "mini", "error"),
        ("gpt-4o-mini", "mini", "cancelled"),
        ("gpt-4o-mini", "mini", "cancelled"),
    ]
    assert all(row.cost and row.usage_estimated for row in found)
    stats = router.stats()
    assert (stats.answered, stats.failed, stats.unpriced) == ({}, {"cut after it was shown": 3}, 0)
    assert 0 < stats.cost < Decimal("0.0001")


# -- batches and limits -------------------------------------------------------------------------------------


def test_a_call_through_a_batch_has_the_price_of_one(server: OpenAIServer, tmp_path: Path) -> None:
    tracker = CostTracker(tmp_path / "other.db")
    chat(server, callbacks=[tracker]).invoke(QUESTION, {"metadata": {"costopt_batch": "job-1"}})
    (row,) = rows(tracker)
    assert (row.batch, row.cost) == ("job-1", Decimal("0.00000585"))
    assert row.cost_source.startswith("batch genai-prices ")


async def test_a_limit_that_is_reached_forbids_the_next_call(server: OpenAIServer, tmp_path: Path) -> None:
    with Ledger(tmp_path / "other.db") as ledger:
        tracker = CostTracker(ledger, limit=SpendingLimit(ledger, "0.00001", "day"))
        llm = chat(server, callbacks=[tracker])
        llm.invoke(QUESTION)
        ledger.flush()
        with pytest.raises(BudgetExceededError, match=r"of \$0.00001 for 20.* is spent; the next day begins in"):
            llm.invoke(QUESTION)
        with pytest.raises(BudgetExceededError):
            await llm.ainvoke(QUESTION)
        with pytest.raises(BudgetExceededError):
            list(llm.stream(QUESTION))
        assert len(server.requests) == 1


def test_a_router_and_its_tracker_are_one_spending(server: OpenAIServer, bill: Bill, tracker: CostTracker) -> None:
    limit = SpendingLimit(tracker.ledger, 100)
    tiers = [Tier(chat(server), price=PRICES["gpt-4o-mini"], max_output_tokens=1_000)]
    router = RouterRunnable(tiers=tiers, budget=limit, callbacks=[tracker])
    for number in range(3):
        router.invoke(f"question {number}")
    tracker.ledger.flush()
    assert bill.answers == 3
    assert limit.reserved == 0
    # What the budget counts is bounded by what a call may cost; what the ledger counts is what was billed.
    assert 0 < limit.spent <= bill.dollars == tracker.ledger.totals(routed=True).cost


# -- all in one application ----------------------------------------------------------------------------------


async def test_a_cache_a_router_and_a_limit_in_one_application(
    make_cache: MakeCache, server: OpenAIServer, bill: Bill, tracker: CostTracker
) -> None:
    """Each call is a row of its own: tiers that were asked as attempts, hits at zero with what they avoided."""
    server.behaviours["gpt-4o-mini"] = Behaviour(status=429)
    tiers = [
        Tier(chat(server, model=name), price=PRICES[name], max_output_tokens=1_000)
        for name in ("gpt-4o-mini", "gpt-4o")
    ]
    limit = SpendingLimit(tracker.ledger, 100)
    router = RouterRunnable(tiers=tiers, cache=make_cache(), budget=limit)
    app = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{q}")]) | router | StrOutputParser()
    config: Any = {"callbacks": [tracker], "metadata": {"session_id": "s1"}}
    for question in (QUESTION, QUESTION, PARAPHRASE):
        app.invoke({"q": question}, config)
    await app.ainvoke({"q": QUESTION}, config)
    app.invoke({"q": "What is the capital of Spain?"}, config)

    found = rows(tracker)
    assert_one_fell_back_and_three_hit(found)
    totals = tracker.ledger.totals()
    assert (totals.attempts, totals.failed, totals.cache_hits) == (6, 1, 3)
    assert totals.avoided_cost == 3 * (found[2].avoided_cost or 0)
    assert_billed(tracker, bill)
    assert (len(server.requests), limit.reserved) == (3, 0)
    assert 0 < limit.spent <= bill.dollars
