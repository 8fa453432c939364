"""`CostTracker` beside real SDKs and servers that bill: it says what they counted, whatever happens to a call."""

from __future__ import annotations

import asyncio
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from openai import APITimeoutError, BadRequestError, RateLimitError

from costopt import BudgetExceededError, Usage
from costopt.audit import Ledger, SpendingLimit
from langchain_costopt import CostTracker
from langchain_costopt.demo import SimulatedChatModel
from tests.anthropic_server import anthropic_server
from tests.billing import Bill, assert_billed, rows
from tests.faults.words import wait_for
from tests.langchain.tracked import chat
from tests.openai_server import Behaviour, OpenAIServer
from tests.rewordings import PARAPHRASE, QUESTION
from tests.timed import timed

# -- whatever way a call goes --------------------------------------------------------------------------------


async def test_each_way_to_call_is_one_row_as_billed(server: OpenAIServer, bill: Bill, tracker: CostTracker) -> None:
    with_tracker: Any = {"callbacks": [tracker]}
    llm, reasoning = chat(server, stream_usage=True), chat(server, model="o4-mini")
    llm.invoke(QUESTION, with_tracker)
    await llm.ainvoke(QUESTION, with_tracker)
    reasoning.invoke(QUESTION, with_tracker)
    list(llm.stream(QUESTION, with_tracker))
    [_ async for _ in llm.astream(QUESTION, with_tracker)]
    llm.batch([QUESTION] * 3, with_tracker)
    await llm.abatch([QUESTION] * 3, with_tracker)
    [_ async for _ in llm.astream_events(QUESTION, with_tracker, version="v2")]
    (ChatPromptTemplate.from_messages([("user", "{q}")]) | llm).invoke({"q": QUESTION}, with_tracker)
    found = rows(tracker)
    assert len(found) == bill.answers == len(server.requests) == 13
    assert {row.status for row in found} == {"ok"}
    assert {row.provider for row in found} == {"openai"}
    assert {row.model for row in found} == {"gpt-4o-mini", "o4-mini"}
    assert {row.cost_source for row in found} == {"given"}
    assert sum(row.streamed for row in found) == 3
    assert all((row.first_token_s is not None) == row.streamed for row in found)
    assert all(row.latency_s is not None and row.latency_s > 0 for row in found)
    assert_billed(tracker, bill)


def test_anthropic_counts_its_cache_apart_and_we_do_not(tracker: CostTracker) -> None:
    bill = Bill(3)
    with anthropic_server() as server:
        server.usage = bill.anthropic
        llm = ChatAnthropic(model_name="claude-haiku-4-5", base_url=server.url, api_key="sk-none", callbacks=[tracker])  # type: ignore[call-arg, arg-type]
        for number in range(12):
            llm.invoke(f"question {number}")
            list(llm.stream(f"question {number}"))
    assert bill.tokens["cached_tokens"] > 0
    assert bill.tokens["cache_write_tokens"] > 0
    assert_billed(tracker, bill)
    assert {row.provider for row in rows(tracker)} == {"anthropic"}


def test_the_price_list_is_asked_where_no_price_is_given(server: OpenAIServer, tmp_path: Path) -> None:
    tracker = CostTracker(tmp_path / "other.db")
    chat(server, callbacks=[tracker]).invoke(QUESTION)  # 30 and 12 tokens
    (row,) = rows(tracker)
    assert row.cost == Decimal("0.0000117")
    assert row.cost_source.startswith("genai-prices ")


def test_a_price_that_nobody_knows_is_none_and_listed(server: OpenAIServer, tracker: CostTracker) -> None:
    chat(server, model="my-own-model", callbacks=[tracker]).invoke(QUESTION)
    (row,) = rows(tracker)
    assert (row.cost, row.cost_source, row.usage) == (None, "", Usage(30, 12))
    assert tracker.totals().unpriced == 1


def test_a_limit_stops_a_loop_that_is_faster_than_the_ledger_and_tells_of_what_it_cannot_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def calls(name: str, limit: SpendingLimit) -> int:
        model = SimulatedChatModel(model_name=name, answer="Paris", callbacks=[CostTracker(limit=limit)])
        for number in range(50):
            try:
                model.invoke("What is the capital of France?")
            except BudgetExceededError:
                return number
        return 50

    for name, most in (("gpt-4o-mini", 1), ("my-own-model", 50)):
        with Ledger(tmp_path / f"{name}.db") as ledger:
            assert calls(name, SpendingLimit(ledger, "0.0000001")) == most
    wait_for(lambda: "my-own-model, which counts nothing against the limit" in caplog.text, "it is warned of")
    assert caplog.text.count("counts nothing") == 1


def test_a_callback_that_is_given_twice_counts_once(server: OpenAIServer, tracker: CostTracker) -> None:
    chat(server, callbacks=[tracker]).invoke(QUESTION, {"callbacks": [tracker]})
    assert len(rows(tracker)) == 1


def test_llms_that_are_no_chat_models_are_counted_too(tracker: CostTracker) -> None:
    FakeListLLM(responses=["forty-two"]).invoke("What is six times seven?", {"callbacks": [tracker]})
    (row,) = rows(tracker)
    assert row.usage_estimated
    assert row.usage is not None
    assert row.usage.output_tokens == 3


# -- retries, fallbacks, errors, and those who go away -------------------------------------------------------


def test_a_retry_and_a_fallback_are_attempts_at_one_request(
    server: OpenAIServer, bill: Bill, tracker: CostTracker
) -> None:
    server.behaviours["gpt-4o"] = Behaviour(status=429, error="slow down")
    server.behaviours["gpt-4o-mini"] = lambda number: (
        Behaviour(status=429) if number == 2 else bill.openai("gpt-4o-mini")
    )
    strong, cheap = chat(server, model="gpt-4o"), chat(server)
    retried = cheap.with_retry(retry_if_exception_type=(RateLimitError,), wait_exponential_jitter=False)
    prompt = ChatPromptTemplate.from_messages([("user", "{q}")])
    # The strong one is asked first, the cheap one second and third: all by number.
    (prompt | strong).with_fallbacks([prompt | retried]).invoke({"q": QUESTION}, {"callbacks": [tracker]})
    found = rows(tracker)
    assert [(row.model, row.status) for row in found] == [
        ("gpt-4o", "error"),
        ("gpt-4o-mini", "error"),
        ("gpt-4o-mini", "ok"),
    ]
    assert len({row.request_id for row in found}) == 1
    assert len({row.id for row in found}) == 3
    assert "RateLimit" in (found[0].error or "")
    assert (found[0].usage, found[0].cost, found[0].cost_source) == (None, 0, "refused")
    assert_billed(tracker, bill)


def test_two_calls_of_one_chain_are_two_requests(server: OpenAIServer, tracker: CostTracker) -> None:
    llm = chat(server)
    (llm | (lambda said: said.content) | llm).invoke(QUESTION, {"callbacks": [tracker]})
    assert len({row.request_id for row in rows(tracker)}) == 2


@pytest.mark.parametrize(
    ("told", "error", "status", "cost"),
    [
        (Behaviour(status=400), BadRequestError, "error", 0),
        (Behaviour(seconds=1.0), APITimeoutError, "timeout", None),
    ],
)
def test_what_fails_is_a_row_and_unknown_is_not_zero(
    server: OpenAIServer, tracker: CostTracker, told: Behaviour, error: type[Exception], status: str, cost: int | None
) -> None:
    server.behaviours["gpt-4o-mini"] = told
    with pytest.raises(error) as raised:
        chat(server, timeout=0.2).invoke(QUESTION, {"callbacks": [tracker]})
    (row,) = rows(tracker)
    assert (row.status, row.error, row.cost, row.usage) == (status, raised.type.__name__, cost, None)


def test_retries_inside_the_sdk_are_one_attempt_billed_once(
    server: OpenAIServer, bill: Bill, tracker: CostTracker
) -> None:
    headers = {"retry-after-ms": "1"}
    server.behaviours["gpt-4o-mini"] = lambda number: (
        Behaviour(status=429, headers=headers) if number < 3 else bill.openai("gpt-4o-mini")
    )
    chat(server, max_retries=3).invoke(QUESTION, {"callbacks": [tracker]})
    assert (len(server.requests), len(rows(tracker))) == (3, 1)
    assert_billed(tracker, bill)


def test_a_stream_that_is_left_is_cancelled_and_estimated(server: OpenAIServer, tracker: CostTracker) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five six seven eight")
    stream = chat(server, callbacks=[tracker]).stream(QUESTION)
    said = [next(stream).content, next(stream).content, next(stream).content]
    stream.close()  # type: ignore[attr-defined]
    (row,) = rows(tracker)
    assert (row.status, row.error, row.usage_estimated) == ("cancelled", "GeneratorExit", True)
    assert row.usage is not None
    assert row.usage.input_tokens > 5
    assert row.usage.output_tokens == len([part for part in said if part])
    assert row.cost is not None


def test_a_stream_that_is_cut_is_estimated(server: OpenAIServer, tracker: CostTracker) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five six", cut_after=4)
    with pytest.raises(Exception):  # noqa: B017, PT011
        list(chat(server, callbacks=[tracker]).stream(QUESTION))
    (row,) = rows(tracker)
    assert (row.status, row.usage_estimated) == ("error", True)
    assert row.usage is not None
    assert row.usage.output_tokens == 4


async def test_a_task_that_is_cancelled_is_a_row(server: OpenAIServer, tracker: CostTracker) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=1.0)
    task = asyncio.create_task(chat(server).ainvoke(QUESTION, {"callbacks": [tracker]}))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    (row,) = rows(tracker)
    assert (row.status, row.usage_estimated) == ("cancelled", True)
    assert tracker._open == {}


def test_usage_that_is_not_reported_is_estimated_and_marked(server: OpenAIServer, tracker: CostTracker) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(usage=None, text="It takes about a week.")
    system = SystemMessage("You are the assistant of a bookshop.")
    chat(server, callbacks=[tracker]).invoke([system, HumanMessage("How long does it take?")])
    (row,) = rows(tracker)
    assert row.usage_estimated
    assert row.usage == Usage(26, 6)
    assert tracker.totals().estimated == 1


# -- what a row says -----------------------------------------------------------------------------------------


def test_tools_session_tenant_and_tags_are_in_the_row(server: OpenAIServer, tracker: CostTracker) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    metadata = {"thread_id": 7, "costopt_tenant": "acme", "costopt_tags": ["nightly"], "other": 1}
    config: Any = {"callbacks": [tracker], "metadata": metadata, "tags": ["reports"]}
    chain = ChatPromptTemplate.from_messages([("system", "Be brief."), ("user", "{q}")]) | chat(server).bind_tools(
        [weather]
    )
    chain.invoke({"q": "Rain in Oslo?"}, config)
    (row,) = rows(tracker)
    assert (row.session, row.tenant, row.tags) == ("7", "acme", ("nightly", "reports"))
    assert row.shape is not None
    assert (row.shape.system, row.shape.question) == (9, 13)
    assert (row.shape.tools_offered, row.shape.tools_called) == (1, 1)
    assert row.prompt is not None
    assert json.loads(row.prompt)[1] == {"role": "user", "content": "Rain in Oslo?"}
    assert json.loads(row.tools or "")[0]["function"]["name"] == "weather"
    assert "weather" in (row.answer or "")


async def test_an_agents_calls_are_rows_of_its_thread(server: OpenAIServer, bill: Bill, tracker: CostTracker) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather of a city."""
        return "rain"

    agent = create_agent(chat(server), tools=[weather], checkpointer=InMemorySaver())
    config: Any = {"callbacks": [tracker], "configurable": {"thread_id": "t-1"}}
    agent.invoke({"messages": [("user", "Rain in Oslo?")]}, config)
    await agent.ainvoke({"messages": [("user", "And in Bergen?")]}, config)
    found = rows(tracker)
    assert [row.session for row in found] == ["t-1"] * 4
    assert [row.shape.tools_called for row in found if row.shape] == [1, 0, 1, 0]
    assert len({row.request_id for row in found}) == 4
    assert len({row.prompt_hash for row in found}) == 4
    assert_billed(tracker, bill)


def test_equal_requests_share_a_hash_whatever_the_model(server: OpenAIServer, tracker: CostTracker) -> None:
    for model, question in (("gpt-4o", QUESTION), ("gpt-4o-mini", QUESTION), ("gpt-4o", PARAPHRASE)):
        chat(server, model=model, callbacks=[tracker]).invoke(question)
    one, other, third = (row.prompt_hash for row in rows(tracker))
    assert one == other != third


# -- it never gets in the way --------------------------------------------------------------------------------


def test_a_ledger_that_cannot_be_written_reaches_no_call(server: OpenAIServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    tracker = CostTracker(tmp_path / "file" / "ledger.db")
    for _ in range(3):
        assert chat(server, callbacks=[tracker]).invoke(QUESTION).content
    assert tracker.totals().attempts == 3


@timed
def test_it_adds_less_than_a_millisecond_to_a_call(tmp_path: Path) -> None:
    tracker = CostTracker(tmp_path / "ledger.db")
    model = SimulatedChatModel(model_name="gpt-4o-mini", answer="Paris")
    messages = [SystemMessage("You are brief. " * 200), HumanMessage("What is the capital of France?")]

    def best(config: Any) -> float:
        took = []
        for _ in range(300):
            started = time.perf_counter()
            model.invoke(messages, config)
            took.append(time.perf_counter() - started)
        return sorted(took)[len(took) // 2]

    with_it, without = best({"callbacks": [tracker]}), best({"callbacks": []})
    assert with_it - without < 0.001
