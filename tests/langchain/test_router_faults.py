"""Real clients against a server that fails: 429, 500, slow, cut in mid-stream, wrong usage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from costopt import Budget, BudgetExceededError, Cascade, Tier
from langchain_costopt import RouterRunnable
from tests.behaviours import FAULTS
from tests.costopt.routing.models import Scored
from tests.langchain.test_router import routed, said
from tests.langchain.test_router_conformance import chat
from tests.openai_server import Behaviour, OpenAIServer


def small(server: OpenAIServer, timeout: float = 30.0, **options: Any) -> RouterRunnable:
    tiers = [
        Tier(chat(server.url, "gpt-4o-mini", max_retries=0, timeout=timeout), max_output_tokens=100),
        Tier(chat(server.url, "gpt-4o", max_retries=0), max_output_tokens=100),
    ]
    return RouterRunnable(tiers=tiers, estimator=Scored(), thresholds=(0.5,), **options)


async def every_way(router: RouterRunnable, text: str) -> list[Any]:
    streamed = awaited = None
    for chunk in router.stream(text):
        streamed = chunk if streamed is None else streamed + chunk
    async for chunk in router.astream(text):
        awaited = chunk if awaited is None else awaited + chunk
    return [router.invoke(text), await router.ainvoke(text), streamed, awaited]


def for_each(chunks: Iterator[Any], see: Callable[[Any], None]) -> None:
    for chunk in chunks:
        see(chunk)


async def aall(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


@pytest.mark.parametrize(("behaviour", "cause"), FAULTS)
async def test_the_next_tier_answers_whatever_went_wrong(
    server: OpenAIServer, behaviour: Behaviour, cause: str
) -> None:
    server.behaviours["gpt-4o-mini"] = behaviour
    for _ in range(2):
        for answer in await every_way(small(server), "0.1"):
            assert answer.response_metadata["model_name"] == "gpt-4o"
            assert said(answer)["why"] in (cause, "resting")


async def test_a_slow_tier_is_left_for_the_next_one(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=1.5)
    answer = await small(server, timeout=1.0).ainvoke("0.1")
    assert (said(answer)["chosen"], said(answer)["why"]) == ("gpt-4o", "timeout")


async def test_a_stream_that_breaks_before_the_first_token_goes_to_the_next_tier(server: OpenAIServer) -> None:
    for behaviour, cause in (
        (Behaviour(text="", error_after=0, error="Rate limit reached for gpt-4o-mini"), "rate limit"),
        (Behaviour(status=429), "rate limit"),
    ):
        server.behaviours["gpt-4o-mini"] = behaviour
        router = small(server)
        streamed = list(router.stream("0.1"))
        awaited = [chunk async for chunk in router.astream("0.1")]
        for chunks in (streamed, awaited):
            whole = chunks[0]
            for chunk in chunks[1:]:
                whole += chunk
            assert str(whole.content).startswith("answer ")
            assert whole.response_metadata["model_name"] == "gpt-4o"
            assert said(whole)["attempts"][0]["cause"] == cause


async def test_a_stream_that_breaks_later_is_an_error_and_nothing_is_shown_twice(server: OpenAIServer) -> None:
    budget = Budget(1, 3600)
    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five", cut_after=3)
    router, seen = small(server, budget=budget), list[str]()
    with pytest.raises(httpx.RemoteProtocolError):
        for_each(router.stream("0.1"), lambda chunk: seen.append(str(chunk.content)))
    assert "".join(seen) == "one two three"
    with pytest.raises(httpx.RemoteProtocolError):
        await aall(router.astream("0.1"))
    assert server.asked("gpt-4o") == 0
    assert budget.reserved == 0
    assert budget.spent > 0


@pytest.mark.parametrize(
    "usage",
    [
        None,
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
        {"prompt_tokens": 10**9, "completion_tokens": 10**9, "total_tokens": 2 * 10**9},
    ],
)
async def test_wrong_usage_is_not_believed(server: OpenAIServer, usage: Any) -> None:
    budget = Budget(1, 3600)
    server.behaviours["gpt-4o-mini"] = Behaviour(usage=usage)
    router = small(server, budget=budget)
    answers = await every_way(router, "0.1")
    for answer in answers:
        assert answer.content.startswith("answer ")
        assert bool(said(answer)["attempts"][0].get("estimated")) == (usage is None or usage["prompt_tokens"] == 0)
    assert 0 < budget.spent < Decimal("0.01")


async def test_1000_requests_of_which_a_third_fails(server: OpenAIServer) -> None:
    """Every third request at the cheap tier fails, in one way or another; nobody notices, and nobody pays twice."""
    faults = (Behaviour(status=429), Behaviour(status=500), Behaviour(status=503))
    server.behaviours["gpt-4o-mini"] = lambda number: faults[number % 9 // 3] if number % 3 == 0 else Behaviour()
    budget = Budget(100, 3600)
    router = small(server, budget=budget, sticky=False)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(router.invoke, ["0.1"] * 400))
        streamed = list(pool.map(lambda text: list(router.stream(text)), ["0.1"] * 200))
    limit = asyncio.Semaphore(16)

    async def ask() -> Any:
        async with limit:
            return await router.ainvoke("0.1")

    answers += await asyncio.gather(*(ask() for _ in range(400)))
    assert all(answer.content.startswith("answer ") for answer in answers)
    assert all("".join(str(chunk.content) for chunk in chunks).startswith("answer ") for chunks in streamed)
    stats = router.stats()
    assert sum(stats.answered.values()) == 1000
    assert stats.answered["gpt-4o"] > 100
    # Each was paid for once: what the budget counts is what the answers cost, 42 tokens each.
    each = {"gpt-4o-mini": Decimal("0.0000117"), "gpt-4o": Decimal("0.000195")}
    assert budget.spent == stats.cost == sum(each[name] * count for name, count in stats.answered.items())
    assert (budget.reserved, stats.overruns) == (0, 0)


@pytest.mark.parametrize("ways", ["threads", "tasks"])
async def test_200_concurrent_requests_never_overspend(server: OpenAIServer, ways: str) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=0.05)
    budget = Budget("0.001", 3600)
    router = small(server, budget=budget, sticky=False)

    def sync(_: int) -> Any:
        try:
            return router.invoke("0.1")
        except BudgetExceededError as error:
            return error

    async def awaited() -> Any:
        try:
            return await router.ainvoke("0.1")
        except BudgetExceededError as error:
            return error

    if ways == "threads":
        with ThreadPoolExecutor(200) as pool:
            found = list(pool.map(sync, range(200)))
    else:
        found = await asyncio.gather(*(awaited() for _ in range(200)))
    answered = [answer for answer in found if not isinstance(answer, BudgetExceededError)]
    assert 0 < len(answered) < 200
    assert len(answered) == len(server.requests)
    assert budget.spent == len(answered) * Decimal("0.0000117") <= Decimal("0.001")
    assert budget.reserved == 0


async def test_a_cascade_pays_for_both_calls_and_shows_one_answer(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(finish="length")
    router = small(server, cascade=Cascade())
    for answer in await every_way(router, "0.1"):
        assert (said(answer)["chosen"], said(answer)["why"]) == ("gpt-4o", "rejected: truncated")
        assert Decimal(said(answer)["cost"]) == Decimal("0.0000117") + Decimal("0.000195")
        assert str(answer.content).count("answer") == 1
        assert answer.usage_metadata["total_tokens"] == 42


async def test_a_task_that_is_cancelled_leaves_nothing_reserved(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=0.5)
    budget = Budget(1, 3600)
    router = small(server, budget=budget)
    task = asyncio.create_task(router.ainvoke("0.1"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert budget.reserved == 0
    assert budget.spent > 0  # nobody can say that it was not charged


async def test_who_stops_reading_leaves_nothing_reserved(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five six")
    budget = Budget(1, 3600)
    router = small(server, budget=budget)
    stream = router.stream("0.1")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    awaited = router.astream("0.1")
    await anext(awaited)
    await awaited.aclose()  # type: ignore[attr-defined]
    assert budget.reserved == 0
    assert 0 < budget.spent < Decimal("0.0001")


def test_a_decision_without_a_router_would_have_been_the_default(server: OpenAIServer) -> None:
    answer = routed(server, shadow=True).invoke("0.1")
    assert (answer.response_metadata["model_name"], said(answer)["paper"]) == ("gpt-4o", "gpt-4o-mini")
