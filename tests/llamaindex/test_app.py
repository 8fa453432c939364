"""A LlamaIndex application made by an `Optimizer`: the real SDK, a query engine, and what the books say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from llama_index.core import MockEmbedding, SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index.core.schema import TextNode
from llama_index_instrumentation import get_dispatcher

from costopt import BudgetExceededError, ConfigError, Optimizer, Price, Tier
from costopt.audit import Saving
from llamaindex_costopt import CachedLLM, CostTracker, LlamaIndexApp
from tests.batch_server import batch_server
from tests.costopt.batch.support import FAST
from tests.llamaindex.conftest import openai
from tests.openai_server import OpenAIServer

MINI, STRONG = Decimal("0.0000117"), Decimal("0.000195")  # what one answer of the server costs
QUESTION = "What is the capital of France?"

Make = Callable[..., Optimizer]


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    """What optimizers install is removed again."""
    yield
    for tracker in trackers():
        tracker.remove()


def trackers() -> list[CostTracker]:
    return [handler for handler in get_dispatcher().event_handlers if isinstance(handler, CostTracker)]


def two(optimizer: Optimizer, server: OpenAIServer) -> LlamaIndexApp:
    return optimizer.llamaindex(*(openai(server, model=name) for name in ("gpt-4o-mini", "gpt-4o")))


async def test_a_question_is_paid_for_once_however_it_is_asked(make_optimizer: Make, server: OpenAIServer) -> None:
    optimizer = make_optimizer()
    llm = two(optimizer, server).llm
    paid = llm.complete(QUESTION)
    served = [llm.complete(QUESTION), await llm.acomplete(QUESTION), [*llm.stream_complete(QUESTION)][-1]]
    assert {response.text for response in served} == {paid.text}
    assert len(server.requests) == 1
    report = optimizer.report()
    assert (report.requests, report.attempts, report.spent) == (4, 4, MINI)
    assert report.levers["cache"] == Saving(3, 3 * 42, 3 * MINI)
    assert report.levers["routing"] == Saving(1, 42, STRONG - MINI)


def test_a_query_engine_sends_what_the_question_needs(make_optimizer: Make, server: OpenAIServer) -> None:
    optimizer = make_optimizer(compressor={"target_ratio": 0.4}, cache=None)
    app = two(optimizer, server)
    index = SummaryIndex(
        [TextNode(text="The museum opened in 1931. It is built of brick. Tickets cost 12 EUR.")],
        embed_model=MockEmbedding(embed_dim=4),
    )
    engine = index.as_query_engine(llm=app.llm, node_postprocessors=app.node_postprocessors)
    engine.query("How much is a ticket?")
    (request,) = server.requests
    assert "Tickets cost 12 EUR." in str(request["messages"])
    assert "brick" not in str(request["messages"])
    saving = optimizer.report().levers["compression"]
    assert (saving.requests, saving.dollars) == (1, saving.tokens * Decimal("0.15") / 1_000_000)


def test_the_tracker_is_installed_once(make_optimizer: Make, server: OpenAIServer) -> None:
    optimizer = make_optimizer(cache=None)
    apps = [optimizer.llamaindex(openai(server)), optimizer.llamaindex(openai(server))]
    again = make_optimizer(cache=None).llamaindex(openai(server))
    assert trackers() == [apps[0].tracker]
    assert apps[0].tracker is apps[1].tracker is again.tracker
    again.llm.complete(QUESTION)
    assert optimizer.report().attempts == 1


def test_the_models_that_were_given_stay_as_they_are(make_optimizer: Make, server: OpenAIServer) -> None:
    class Waits(BaseRateLimiter):
        asked = 0

        def acquire(self, num_tokens: int = 0) -> None:
            self.asked += 1

        async def async_acquire(self, num_tokens: int = 0) -> None:
            self.asked += 1

    own = Waits()
    model = openai(server)
    model.rate_limiter = own
    optimizer = make_optimizer(limit={"dollars": "0.00001"}, cache=None)
    app = optimizer.llamaindex(model)
    assert model.rate_limiter is own
    app.llm.complete(QUESTION)
    assert own.asked == 1, "the user's own limit is asked, too"
    assert optimizer.report().spent == MINI
    with pytest.raises(BudgetExceededError):
        app.llm.complete(QUESTION)
    assert make_optimizer(cache=None, ledger=None, compressor={}).llamaindex(model).llm is model


def test_a_limit_stops_the_router(make_optimizer: Make, server: OpenAIServer) -> None:
    optimizer = make_optimizer(limit={"dollars": "0.00002"}, cache=None)
    app = optimizer.llamaindex(*(openai(server, model=name, max_tokens=20) for name in ("gpt-4o-mini", "gpt-4o")))
    app.llm.complete(QUESTION)
    with pytest.raises(BudgetExceededError):
        app.llm.complete(QUESTION)
    assert optimizer.limit is not None
    assert optimizer.limit.spent == MINI


def test_a_price_that_was_given_with_a_model_is_the_price_in_the_books(
    make_optimizer: Make, server: OpenAIServer
) -> None:
    optimizer = make_optimizer(cache=None)
    optimizer.llamaindex(Tier(openai(server), price=Price(1_000, 0))).llm.complete(QUESTION)
    assert optimizer.report().spent == Decimal("0.03")


def test_a_batch_asks_the_cache_and_is_booked_at_its_price(make_optimizer: Make, tmp_path: Path) -> None:
    from llama_index.llms.openai import OpenAI

    with batch_server() as server:
        llm = OpenAI(model="gpt-4o-mini", api_key="none", api_base=f"{server.url}/v1")
        optimizer = make_optimizer(
            batch={"journal": tmp_path / "j.db", "backoff": FAST, "settle": 0.05}, limit={"dollars": 5}
        )
        runner = optimizer.llamaindex(llm).batch_runner()
        first = runner.batch([QUESTION, "And of Spain?"])
        again = runner.batch([QUESTION, "And of Italy?"])
        assert str(again[0]) == str(first[0])
        assert sum(len(batch.rows) for batch in server.batches.values()) == 3
        llm._get_client().close()
    report = optimizer.report()
    assert (report.levers["cache"].requests, report.levers["batch"].requests) == (1, 3)
    assert report.levers["batch"].dollars == report.spent > 0


@pytest.mark.parametrize(
    ("models", "mend"),
    [
        ((), r"no model was given: .*optimizer.llamaindex\(OpenAI\(\"gpt-4o-mini\"\)\)"),
        (("gpt-4o-mini",), r"'gpt-4o-mini' is a text: give the model itself, as in optimizer.llamaindex\(OpenAI"),
        ((CachedLLM(MockLLM(), cache=None),), "has a cache of its own: give the LLM in it"),
        ((FakeListChatModel(responses=["a"]),), r"a chat model of LangChain is for optimizer.langchain\(\)"),
    ],
)
def test_models_that_do_not_go_are_told_with_their_mend(
    make_optimizer: Make, models: tuple[Any, ...], mend: str
) -> None:
    with pytest.raises(ConfigError, match=mend):
        make_optimizer().llamaindex(*models)
