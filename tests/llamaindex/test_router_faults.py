"""`RouterLLM` over real clients and a server that fails: 429, 500, cut in mid-stream, wrong usage, no budget left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core.llms import MockLLM

from costopt import Budget, BudgetExceededError, Cascade, Tier
from costopt.audit import Ledger, SpendingLimit
from llamaindex_costopt import CostTracker, RouterLLM, SpendingGate
from tests.behaviours import FAULTS
from tests.costopt.routing.models import Scored
from tests.llamaindex.routed import adrained, drained, every_way, llm, routed, said, user, words
from tests.openai_server import Behaviour, OpenAIServer


class Silent(MockLLM):
    """Streams end without a single chunk, as a connection does that was cut."""

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        yield from ()

    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        yield from ()

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return aempty()

    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return aempty()


async def aempty() -> AsyncIterator[Any]:
    for never in ():
        yield never


CHEAP, STRONG = Decimal("0.0000117"), Decimal("0.000195")


@pytest.mark.parametrize(("behaviour", "cause"), FAULTS)
async def test_the_next_tier_answers_whatever_went_wrong(
    server: OpenAIServer, behaviour: Behaviour, cause: str
) -> None:
    server.behaviours["gpt-4o-mini"] = behaviour
    for answer in await every_way(routed(server), "0.1"):
        assert answer.raw.model == said(answer)["chosen"] == "gpt-4o"
        assert said(answer)["why"] in (cause, "resting")


def test_if_all_fail_the_last_error_comes_with_the_others(server: OpenAIServer) -> None:
    server.behaviours |= {"gpt-4o-mini": Behaviour(status=500), "gpt-4o": Behaviour(status=429)}
    with pytest.raises(Exception, match="told to fail") as raised:
        routed(server).complete("0.1")
    assert "tier 'gpt-4o-mini' failed" in raised.value.__notes__[0]


async def test_a_stream_that_breaks_before_the_first_token_goes_to_the_next_tier(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(text="", error_after=0, error="Rate limit reached for gpt-4o-mini")
    router = routed(server)
    streamed = list(router.stream_chat(user("0.1")))
    awaited = [response async for response in await router.astream_chat(user("0.1"))]
    for responses in (streamed, awaited):
        assert said(drained(iter(responses)))["attempts"][0]["cause"] == "rate limit"
        assert words(responses[-1]).startswith("answer ")


async def test_a_stream_of_nothing_goes_to_the_next_tier(server: OpenAIServer) -> None:
    router = RouterLLM(
        tiers=[Tier(Silent(), name="silent"), Tier(llm(server, "gpt-4o"))], estimator=Scored(), thresholds=(0.5,)
    )
    answers = [drained(router.stream_chat(user("0.1"))), drained(router.stream_complete("0.1"))]
    answers += [await adrained(await router.astream_chat(user("0.1")))]
    answers += [await adrained(await router.astream_complete("0.1"))]
    for answer in answers:
        assert words(answer).startswith("answer ")
        assert said(answer)["why"] in ("connection", "resting")


async def test_a_stream_that_breaks_later_is_an_error_and_nothing_is_shown_twice(server: OpenAIServer) -> None:
    budget = Budget(1, 3600)
    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five", cut_after=3)
    router, seen = routed(server, budget=budget), list[str]()

    def read(stream: Iterator[Any]) -> None:
        for response in stream:
            seen.append(str(response.delta))

    async def aread() -> None:
        async for response in await router.astream_chat(user("0.1")):
            seen.append(str(response.delta))

    with pytest.raises(httpx.RemoteProtocolError):
        read(router.stream_chat(user("0.1")))
    with pytest.raises(httpx.RemoteProtocolError):
        await aread()
    assert "".join(seen) == "one two three" * 2
    assert server.asked("gpt-4o") == 0
    assert budget.reserved == 0
    assert budget.spent > 0


async def test_who_stops_reading_leaves_nothing_open(server: OpenAIServer, tmp_path: Path) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five six")
    budget = Budget(1, 3600)
    router = routed(server, budget=budget)
    router.stream_chat(user("0.1"))  # never read: nothing is asked, nothing is kept
    with Ledger(tmp_path / "ledger.db") as ledger, CostTracker(ledger).installed() as tracker:
        stream = router.stream_chat(user("0.1"))
        next(stream)
        stream.close()
        awaited = await router.astream_complete("0.1")
        await anext(awaited)
        await awaited.aclose()
        assert tracker._open == {}
        assert tracker.totals().attempts == 2
        assert [row.status for row in ledger.attempts()] == ["cancelled"] * 2
    assert budget.reserved == 0
    assert 0 < budget.spent < Decimal("0.0001")
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "usage", [None, {"prompt_tokens": 10**9, "completion_tokens": 10**9, "total_tokens": 2 * 10**9}]
)
async def test_wrong_usage_is_not_believed(server: OpenAIServer, usage: Any) -> None:
    budget = Budget(1, 3600)
    server.behaviours["gpt-4o-mini"] = Behaviour(usage=usage)
    for answer in await every_way(routed(server, budget=budget), "0.1"):
        assert words(answer).startswith("answer ")
        assert bool(said(answer)["attempts"][0].get("estimated")) == (usage is None)
    assert 0 < budget.spent < Decimal("0.01")


async def test_150_requests_of_which_a_third_fails(server: OpenAIServer) -> None:
    """Every third request at the cheap tier fails, in one way or another; nobody notices, and nobody pays twice."""
    faults = (Behaviour(status=429), Behaviour(status=500), Behaviour(status=503))
    server.behaviours["gpt-4o-mini"] = lambda number: faults[number % 9 // 3] if number % 3 == 0 else Behaviour()
    budget = Budget(100, 3600)
    router = routed(server, budget=budget, sticky=False)
    with ThreadPoolExecutor(16) as pool:
        answers: list[Any] = list(pool.map(router.complete, ["0.1"] * 50))
        answers += pool.map(lambda text: drained(router.stream_chat(user(text))), ["0.1"] * 50)
    limit = asyncio.Semaphore(16)

    async def ask() -> Any:
        async with limit:
            return await router.acomplete("0.1")

    answers += await asyncio.gather(*(ask() for _ in range(50)))
    assert all(words(answer).startswith("answer ") for answer in answers)
    stats = router.stats()
    assert sum(stats.answered.values()) == 150
    assert stats.answered["gpt-4o"] > 15
    # Each was paid for once: what the budget counts is what the answers cost, 42 tokens each.
    assert budget.spent == stats.cost == stats.answered["gpt-4o-mini"] * CHEAP + stats.answered["gpt-4o"] * STRONG
    assert budget.reserved == stats.overruns == 0


async def test_concurrent_requests_never_overspend(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=0.05)
    budget = Budget("0.0005", 3600)
    router = routed(server, budget=budget, sticky=False)
    found = await asyncio.gather(*(router.acomplete("0.1") for _ in range(60)), return_exceptions=True)
    refused = [answer for answer in found if isinstance(answer, BudgetExceededError)]
    answered = [answer for answer in found if not isinstance(answer, BaseException)]
    assert len(refused) + len(answered) == 60
    assert 0 < len(answered) == len(server.requests) < 60
    assert budget.spent == len(answered) * CHEAP <= Decimal("0.0005")
    assert budget.reserved == 0


def test_a_limit_on_the_ledger_is_a_budget_too(server: OpenAIServer, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger, CostTracker(ledger).installed():
        router = routed(server, budget=SpendingLimit(ledger, "0.00008", "day"))
        router.complete("0.1")
        ledger.flush()
        with pytest.raises(BudgetExceededError, match="Give a larger budget, or max_tokens"):
            router.complete("0.9", model="gpt-4o")


def test_a_gate_before_the_models_stops_them_all(server: OpenAIServer, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger, CostTracker(ledger).installed():
        router = routed(server, rate_limiter=SpendingGate(SpendingLimit(ledger, "0.00001")))
        llm(server, "gpt-4o").complete("What the rest of the application spends")
        ledger.flush()
        for _ in range(5):
            with pytest.raises(BudgetExceededError, match="is spent"):
                router.complete("0.1")
        assert not any(rest.resting for rest in router.router.rests)
    assert len(server.requests) == 1


async def test_a_cascade_pays_for_both_calls_and_shows_one_answer(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(finish="length")
    for answer in await every_way(routed(server, cascade=Cascade()), "0.1"):
        assert (said(answer)["chosen"], said(answer)["why"]) == ("gpt-4o", "rejected: truncated")
        assert Decimal(said(answer)["cost"]) == CHEAP + STRONG
        assert words(answer).count("answer") == 1


def test_log_probabilities_are_read_where_they_are_given(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(logprobs=(-0.2, -3.0))
    answer = routed(server, cascade=Cascade(min_logprob=-1.0)).chat(user("0.1"))
    assert said(answer)["why"] == "rejected: log-probability"


async def test_a_task_that_is_cancelled_leaves_nothing_reserved(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=0.5)
    budget = Budget(1, 3600)
    task = asyncio.create_task(routed(server, budget=budget).acomplete("0.1"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert budget.reserved == 0
    assert budget.spent > 0  # nobody can say that it was not charged


async def test_a_tier_that_is_slow_is_left_for_the_next_one(server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=1.5)
    tiers = [Tier(llm(server, "gpt-4o-mini", timeout=0.5)), Tier(llm(server, "gpt-4o"))]
    answer = await RouterLLM(tiers=tiers, estimator=Scored(), thresholds=(0.5,)).acomplete("0.1")
    assert (said(answer)["chosen"], said(answer)["why"]) == ("gpt-4o", "timeout")
