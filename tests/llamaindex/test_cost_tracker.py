"""`CostTracker` beside LlamaIndex's own LLMs, real SDKs and servers that bill: it says what they counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, LLMMetadata
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import CustomLLM, MockLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from llama_index_instrumentation.dispatcher import instrument_tags

from costopt import BudgetExceededError, LocalStore, Price, SemanticCache, SimilarityJudge, Tier, Usage
from costopt.audit import Ledger, SpendingLimit
from costopt.tokens import count_tokens
from llamaindex_costopt import CachedLLM, CostTracker, RouterLLM, SpendingGate
from tests.anthropic_server import anthropic_server
from tests.billing import PRICES, Bill, assert_billed, assert_one_fell_back_and_three_hit, rows
from tests.llamaindex.claude import Claude
from tests.openai_server import Behaviour, OpenAIServer

QUESTION = "What is the capital of France?"
MESSAGES = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=QUESTION)]


@pytest.fixture
def bill(server: OpenAIServer) -> Bill:
    made = Bill(11)
    for model in ("gpt-4o-mini", "gpt-4o"):
        server.behaviours[model] = lambda _, model=model: made.openai(model)  # type: ignore[misc]
    return made


@pytest.fixture
def tracker(tmp_path: Path) -> Iterator[CostTracker]:
    with (
        Ledger(tmp_path / "ledger.db", keep_text=True) as ledger,
        CostTracker(ledger, prices=PRICES).installed() as made,
    ):
        yield made
    assert all(handler.class_name() != "CostTracker" for handler in get_dispatcher().event_handlers)


def llm(server: OpenAIServer, **options: Any) -> OpenAI:
    given = {"api_base": server.url, "api_key": "sk-none", "max_retries": 0, "model": "gpt-4o-mini"}
    return OpenAI(**given | options)


async def test_each_way_to_call_is_one_row_as_billed(server: OpenAIServer, bill: Bill, tracker: CostTracker) -> None:
    model = llm(server)
    model.chat(MESSAGES)
    await model.achat(MESSAGES)
    model.complete(QUESTION)
    await model.acomplete(QUESTION)
    list(model.stream_chat(MESSAGES))
    list(model.stream_complete(QUESTION))
    [_ async for _ in await model.astream_chat(MESSAGES)]
    [_ async for _ in await model.astream_complete(QUESTION)]
    found = rows(tracker)
    assert len(found) == bill.answers == len(server.requests) == 8
    assert {(row.status, row.provider, row.model) for row in found} == {("ok", "openai", "gpt-4o-mini")}
    assert sum(row.streamed for row in found) == 4
    assert all((row.first_token_s is not None) == row.streamed for row in found)
    assert_billed(tracker, bill)


def test_where_one_llm_asks_another_the_one_that_pays_is_counted(tracker: CostTracker) -> None:
    """A completion that is a chat: two pairs of events, one call."""
    bill = Bill(5)
    with anthropic_server() as server:
        server.usage = bill.anthropic
        model = Claude(server.url)
        for _ in range(5):
            model.chat(MESSAGES)
            model.complete(QUESTION)
            list(model.stream_chat(MESSAGES))
            list(model.stream_complete(QUESTION))
    assert bill.answers == 20
    assert bill.tokens["cached_tokens"] > 0
    assert bill.tokens["cache_write_tokens"] > 0
    assert {row.provider for row in rows(tracker)} == {"anthropic"}
    assert_billed(tracker, bill)


def test_what_fails_is_a_row(server: OpenAIServer, tracker: CostTracker) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(status=400)
    with pytest.raises(Exception, match="told to fail"):
        llm(server).chat(MESSAGES)
    with pytest.raises(Exception, match="told to fail"):
        list(llm(server).stream_chat(MESSAGES))
    found = rows(tracker)
    assert [(row.status, row.error, row.usage) for row in found] == [("error", "BadRequestError", None)] * 2
    assert [row.cost for row in found] == [0, 0]


def test_a_stream_that_is_left_is_cancelled_and_estimated(server: OpenAIServer, tracker: CostTracker) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(text="one two three four five six")
    stream = llm(server).stream_chat(MESSAGES)
    for _ in range(3):
        next(stream)
    stream.close()
    (row,) = rows(tracker)
    assert (row.status, row.error, row.usage_estimated) == ("cancelled", "GeneratorExit", True)
    assert row.usage is not None
    assert row.usage.input_tokens > 5
    assert row.usage.output_tokens == 3


async def test_a_task_that_is_cancelled_is_a_row(server: OpenAIServer, tracker: CostTracker) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=1.0)
    task = asyncio.create_task(llm(server).achat(MESSAGES))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (row,) = rows(tracker)
    assert (row.status, row.usage_estimated) == ("cancelled", True)
    assert tracker._open == {}


def test_usage_that_is_not_reported_is_estimated(tracker: CostTracker) -> None:
    MockLLM().complete("one two three")
    (row,) = rows(tracker)
    assert row.usage_estimated
    assert row.cost is None


@pytest.mark.parametrize(
    ("model", "avoided"), [("gpt-4o-mini", PRICES["gpt-4o-mini"].cost(Usage(30, 12))), ("gpt-5", Decimal("0.01"))]
)
def test_a_hit_costs_nothing_and_avoids_what_it_would_have_cost(
    tracker: CostTracker, model: str, avoided: Decimal
) -> None:
    """At a price of one's own, where there is one; else what the cache says."""

    class FromCache(CustomLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name=model)

        @llm_completion_callback()
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            said = {"cache": "semantic", "avoided_input_tokens": 30, "avoided_output_tokens": 12, "avoided_usd": "0.01"}
            return CompletionResponse(text="Paris", additional_kwargs={"costopt": said})

        @llm_completion_callback()
        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            raise NotImplementedError

    FromCache().chat(MESSAGES)
    (row,) = rows(tracker)
    assert (row.cache, row.cost, row.usage) == ("semantic", 0, Usage())
    assert (row.avoided_usage, row.avoided_cost) == (Usage(30, 12), avoided)


def test_tags_and_tools_are_in_the_row(server: OpenAIServer, tracker: CostTracker) -> None:
    def weather(city: str) -> str:
        """The weather of a city."""
        return city

    said = {"session_id": "s-1", "costopt_tenant": "acme", "costopt_tags": ["nightly"], "costopt_batch": "job-1"}
    with instrument_tags(said):
        llm(server).chat_with_tools([FunctionTool.from_defaults(weather)], user_msg="Rain in Oslo?")
    (row,) = rows(tracker)
    assert (row.session, row.tenant, row.tags, row.batch) == ("s-1", "acme", ("nightly",), "job-1")
    assert row.shape is not None
    assert (row.shape.tools_offered, row.shape.tools_called) == (1, 1)
    assert "weather" in (row.answer or "")
    assert "Rain in Oslo?" in (row.prompt or "")


def test_the_hash_is_that_of_langchain(server: OpenAIServer, tracker: CostTracker) -> None:
    from langchain_core.messages import HumanMessage, SystemMessage

    from costopt.audit.fingerprint import fingerprint
    from langchain_costopt.cost_messages import as_dicts

    llm(server).chat(MESSAGES)
    (row,) = rows(tracker)
    theirs = fingerprint(as_dicts([SystemMessage("Be brief."), HumanMessage(QUESTION)]))
    assert (row.question_hash, row.shape and row.shape.system_hash) == (theirs.question_hash, theirs.shape.system_hash)


async def test_a_gate_stops_at_the_budget(server: OpenAIServer, tmp_path: Path) -> None:
    with Ledger(tmp_path / "other.db") as ledger:
        gate = SpendingGate(SpendingLimit(ledger, "0.00001"))
        model = llm(server, rate_limiter=gate)
        with CostTracker(ledger).installed():
            model.chat(MESSAGES)
        ledger.flush()
        with pytest.raises(BudgetExceededError, match="is spent"):
            model.chat(MESSAGES)
        with pytest.raises(BudgetExceededError):
            await model.acomplete(QUESTION)
        assert len(server.requests) == 1


def test_a_gate_stops_a_loop_that_is_faster_than_the_ledger(tmp_path: Path) -> None:
    with Ledger(tmp_path / "other.db") as ledger, CostTracker(ledger, prices={"unknown": Price(1, 1)}).installed():
        model, calls = MockLLM(), iter(range(50))
        model.rate_limiter = SpendingGate(SpendingLimit(ledger, "0.0000001"))
        count_tokens(QUESTION, "unknown")  # a tokenizer that is not loaded yet would be waited for a while only
        with contextlib.suppress(BudgetExceededError):
            for _ in calls:
                model.complete(QUESTION)
        assert next(calls, 50) <= 3


def test_what_we_make_of_a_call_never_breaks_it(server: OpenAIServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with CostTracker(tmp_path / "file" / "ledger.db").installed() as tracker:
        assert llm(server).chat(MESSAGES).message.content
    assert tracker.totals().attempts == 1


async def test_a_cache_a_router_and_a_limit_in_one_application(
    server: OpenAIServer, bill: Bill, tracker: CostTracker, tmp_path: Path
) -> None:
    """Each call is a row of its own: tiers that were asked as attempts, hits at zero with what they avoided."""
    server.behaviours["gpt-4o-mini"] = Behaviour(status=429)
    tiers = [
        Tier(llm(server, model=name), name=name, price=PRICES[name], max_output_tokens=1_000)
        for name in ("gpt-4o-mini", "gpt-4o")
    ]
    limit = SpendingLimit(tracker.ledger, 100)
    store = LocalStore(tmp_path / "cache.db")
    cache = SemanticCache(store, judge=SimilarityJudge(0.9), time_budget=10.0).warm()
    app = CachedLLM(RouterLLM(tiers=tiers, budget=limit), cache=cache)
    reset, again = "How do I reset my password?", "How can I reset my password?"
    with instrument_tags({"session_id": "s1"}):
        for question in (reset, reset, again):
            app.chat([ChatMessage(question)])
        await app.achat([ChatMessage(reset)])
        list(app.stream_chat([ChatMessage(QUESTION)]))
    store.close()

    found = rows(tracker)
    assert_one_fell_back_and_three_hit(found)
    assert (found[0].cost, found[1].route_why) == (0, "rate limit")
    assert_billed(tracker, bill)
    assert (len(server.requests), limit.reserved) == (3, 0)
    assert 0 < limit.spent <= bill.dollars
