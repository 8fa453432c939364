"""A LangChain application made by an `Optimizer`: the real SDK, agents, and what the books say of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from llama_index.core.llms import MockLLM

from costopt import BudgetExceededError, ConfigError, Optimizer, Price, Tier
from costopt.audit import Attempt, Saving
from costopt.batch import BatchRequest, OpenAIBatches
from langchain_costopt import LangChainApp, RouterRunnable
from tests.batch_server import batch_server
from tests.costopt.batch.support import FAST
from tests.langchain.test_router import City
from tests.langchain.tracked import chat
from tests.openai_server import Behaviour, OpenAIServer

MINI, STRONG = Decimal("0.0000117"), Decimal("0.000195")  # what one answer of the server costs
QUESTIONS = ["What is the capital of France?", "What is the capital of Spain?"]

Make = Callable[..., Optimizer]


def two(optimizer: Optimizer, server: OpenAIServer) -> LangChainApp:
    return optimizer.langchain(*(chat(server, model=name) for name in ("gpt-4o-mini", "gpt-4o")))


def rows(app: LangChainApp) -> list[Attempt]:
    assert app.tracker is not None
    return list(app.tracker.ledger.attempts())


def words(chunks: Any) -> str:
    return "".join(str(chunk.content) for chunk in chunks)


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


# -- agents --------------------------------------------------------------------------------------------------


async def test_an_agent_pays_for_a_question_once_and_every_attempt_is_in_the_books_once(
    make_optimizer: Make, server: OpenAIServer
) -> None:
    optimizer = make_optimizer(history={"max_tool_tokens": 50})
    app = two(optimizer, server)
    agent = create_agent(app.llm, [weather], middleware=app.middleware)
    asked: Any = {"messages": [("user", "What is the weather in Rome?")]}
    first = agent.invoke(asked)["messages"]
    assert [type(message) for message in first] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    paid = len(server.requests)
    again = [agent.invoke(asked)["messages"], (await agent.ainvoke(asked))["messages"]]
    streamed = list(agent.stream(asked, stream_mode="messages"))
    assert len(server.requests) == paid == 2
    assert {messages[-1].content for messages in again} == {first[-1].content}
    assert first[-1].content in words(chunk for chunk, _ in streamed)
    found = rows(app)
    assert [row.cache for row in found] == [None, None, *["exact"] * 6]
    assert sum(row.cost or 0 for row in found) == 2 * MINI
    report = optimizer.report()
    assert (report.requests, report.attempts, report.spent) == (8, 8, 2 * MINI)
    assert report.levers["cache"] == Saving(6, 6 * 42, 6 * MINI)
    assert report.levers["routing"] == Saving(2, 84, 2 * (STRONG - MINI))
    assert report.without == 2 * STRONG + 6 * MINI


def test_a_chat_is_shortened_before_it_is_sent_and_what_was_left_out_is_in_the_books(
    make_optimizer: Make, server: OpenAIServer
) -> None:
    history = {"max_tool_tokens": 40, "keep_last": 1, "prompt_cache": False}
    optimizer = make_optimizer(history=history, cache=None)
    app = two(optimizer, server)
    log = "\n".join(f"10:{i:02} request {i} was served by worker {i % 7}" for i in range(60))
    call = {"name": "weather", "args": {"city": "Rome"}, "id": "c1"}
    chat_so_far: list[Any] = [
        HumanMessage("Which worker served request 42?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage(log, tool_call_id="c1"),
        AIMessage("Worker 0."),
        HumanMessage("Thank you. And who served request 7?"),
    ]
    answer = create_agent(app.llm, [], middleware=app.middleware).invoke({"messages": chat_so_far})
    sent = server.requests[0]["messages"]
    assert len(sent) == len(chat_so_far)
    assert len(sent[2]["content"]) < 200 < len(log)
    assert answer["messages"][2].content == log, "the agent's own state is in full"
    (row,) = rows(app)
    assert row.trimmed_tokens is not None
    assert row.trimmed_tokens > 500
    assert row.trimmed_cost == row.trimmed_tokens * Decimal("0.15") / 1_000_000
    (app.history_compressor | app.llm).invoke(chat_so_far)  # type: ignore[operator]
    assert optimizer.report().levers["compression"] == Saving(2, 2 * row.trimmed_tokens, 2 * row.trimmed_cost)


# -- the model -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("models", [("gpt-4o-mini", "gpt-4o"), ("gpt-4o-mini",)])
async def test_every_way_of_asking_goes_through_the_cache(
    make_optimizer: Make, server: OpenAIServer, models: tuple[str, ...]
) -> None:
    app = make_optimizer().langchain(*(chat(server, model=name) for name in models))
    for question, first in zip(QUESTIONS, (app.llm.stream, app.llm.invoke), strict=True):
        made: Any = first(question)
        text = words([made] if isinstance(made, AIMessage) else made)
        assert words(app.llm.stream(question)) == text
        assert words([chunk async for chunk in app.llm.astream(question)]) == text
        assert [app.llm.invoke(question).content, (await app.llm.ainvoke(question)).content] == [text, text]
        assert [each.content for each in app.llm.batch([question, question])] == [text, text]
    assert len(server.requests) == 2
    assert [row.cache for row in rows(app)].count("exact") == 12
    assert app.llm.with_structured_output(City).invoke("0.1") == app.llm.with_structured_output(City).invoke("0.1")
    assert len(server.requests) == 3


def test_the_models_that_were_given_stay_as_they_are(make_optimizer: Make, server: OpenAIServer) -> None:
    own: list[Any] = []
    model = chat(server, callbacks=own)
    before = dict(vars(model))
    app = make_optimizer().langchain(model)
    assert app.llm is not model
    assert (type(model), type(app.llm).__name__) == (ChatOpenAI, "ChatOpenAI")
    assert isinstance(app.llm, ChatOpenAI)
    assert {name: vars(model)[name] for name in before} == before
    assert own == []
    assert app.llm.model_dump(exclude={"cache", "callbacks"}) == model.model_dump(exclude={"cache", "callbacks"})
    bound = make_optimizer().langchain(model.bind(stop=["."])).llm
    assert bound.invoke("Hello?").content == bound.invoke("Hello?").content
    assert server.requests[0]["stop"] == ["."]
    assert len(server.requests) == 1


def test_a_model_that_shall_not_be_cached_is_not(make_optimizer: Make, server: OpenAIServer) -> None:
    app = make_optimizer().langchain(chat(server, cache=False))
    assert app.llm.invoke("Hello?").content != app.llm.invoke("Hello?").content


def test_applications_of_one_optimizer_share_cache_ledger_and_limit(make_optimizer: Make, server: OpenAIServer) -> None:
    optimizer = make_optimizer(limit={"dollars": 5})
    begin = threading.Barrier(4)
    answers: list[str] = []

    def ask() -> None:
        app = two(optimizer, server)
        begin.wait()
        answers.extend(str(app.llm.invoke(question).content) for question in QUESTIONS)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8
    assert len(server.requests) == len(set(answers)) == 2
    report = optimizer.report()
    assert (report.attempts, report.spent, report.levers["cache"].requests) == (8, 2 * MINI, 6)
    assert optimizer.limit is not None
    assert optimizer.limit.spent == 2 * MINI


def test_a_limit_stops_what_costs_and_with_a_router_nothing_else(make_optimizer: Make, server: OpenAIServer) -> None:
    optimizer = make_optimizer(limit={"dollars": "0.00002"})
    app = optimizer.langchain(
        *(Tier(chat(server, model=name), max_output_tokens=9) for name in ("gpt-4o-mini", "gpt-4o"))
    )
    first = app.llm.invoke(QUESTIONS[0])
    with pytest.raises(BudgetExceededError):
        app.llm.invoke(QUESTIONS[1])
    assert app.llm.invoke(QUESTIONS[0]).content == first.content, "what the cache has is free"
    alone = make_optimizer(limit={"dollars": "0.00001", "account": "other"}, cache=None).langchain(chat(server))
    alone.llm.invoke("Hello?")
    rows(alone)
    with pytest.raises(BudgetExceededError):
        alone.llm.invoke("Hello?")


def test_a_price_that_was_given_with_a_model_is_the_price_in_the_books(
    make_optimizer: Make, server: OpenAIServer
) -> None:
    app = make_optimizer().langchain(Tier(chat(server, model="mine"), price=Price(1_000, 0)))
    app.llm.invoke("Hello?")
    assert [row.cost for row in rows(app)] == [Decimal("0.03")]


def test_a_cache_of_langchains_is_taken_as_it_is(make_optimizer: Make, server: OpenAIServer) -> None:
    own = make_optimizer().langchain(chat(server)).cache
    assert own is not None
    app = make_optimizer(cache=own).langchain(chat(server))
    assert app.cache is not None
    assert app.cache.core is own.core


def test_levers_that_are_off_are_none(make_optimizer: Make, server: OpenAIServer) -> None:
    app = make_optimizer(cache=None, ledger=None, compressor={}).langchain(chat(server))
    assert (app.cache, app.tracker, app.history_compressor, app.middleware) == (None, None, None, [])
    assert app.llm.invoke("Hello?").content != app.llm.invoke("Hello?").content


def test_a_failed_attempt_and_the_one_after_it_are_one_request(make_optimizer: Make, server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(status=500)
    optimizer = make_optimizer()
    two(optimizer, server).llm.invoke(QUESTIONS[0])
    report = optimizer.report()
    assert (report.requests, report.attempts, report.spent, report.saved) == (1, 2, STRONG, 0)


def test_documents_that_were_shortened_are_in_the_report(make_optimizer: Make, server: OpenAIServer) -> None:
    optimizer = make_optimizer(compressor={"target_ratio": 0.4})
    app = two(optimizer, server)
    page = Document("The museum opened in 1931. It is built of brick. Tickets cost 12 EUR. No dogs, please.")
    [kept] = app.document_compressor.compress_documents([page], "How much is a ticket?")  # type: ignore[union-attr]
    assert kept.page_content == "Tickets cost 12 EUR."
    saving = optimizer.report().levers["compression"]
    assert (saving.requests, saving.dollars) == (1, saving.tokens * Decimal("0.15") / 1_000_000)


# -- batches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [("gpt-4o-mini", "gpt-4o"), ("gpt-4o",)])
def test_a_batch_asks_the_cache_and_is_booked_at_its_price(
    make_optimizer: Make, tmp_path: Path, names: tuple[str, ...]
) -> None:
    with batch_server() as server:
        models = [ChatOpenAI(model=name, api_key="none", base_url=f"{server.url}/v1") for name in names]  # type: ignore[arg-type]
        optimizer = make_optimizer(
            batch={"journal": tmp_path / "j.db", "backoff": FAST, "settle": 0.05}, limit={"dollars": 5}
        )
        app = optimizer.langchain(*models)
        runner = app.batch_runner()
        first = runner.batch(QUESTIONS)
        again = runner.batch([*QUESTIONS, "And of Italy?"])
        assert [answer.content for answer in again[:2]] == [answer.content for answer in first]
        assert sum(len(batch.rows) for batch in server.batches.values()) == 3
        report = optimizer.report()
        models[0].root_client.close()
    paid = [row for row in rows(app) if row.cache is None]
    assert [(row.list_cost, row.batch is None) for row in paid] == [(2 * (row.cost or 0), False) for row in paid]
    assert report.levers["batch"].dollars == report.spent == sum(row.cost or 0 for row in paid)
    assert report.levers["cache"].requests == 2


def test_bare_requests_of_a_batch_are_in_the_books_too(
    make_optimizer: Make, tmp_path: Path, server: OpenAIServer
) -> None:
    import openai

    with batch_server() as batches, openai.OpenAI(api_key="none", base_url=f"{batches.url}/v1") as client:
        optimizer = make_optimizer(batch={"journal": tmp_path / "j.db", "backoff": FAST, "settle": 0.05, "urgent": 1})
        runner = optimizer.langchain(chat(server)).batch_runner(OpenAIBatches(client))
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Why?"}]}
        result = runner.run([BatchRequest(body), BatchRequest({**body, "seed": 1})])
    report = optimizer.report()
    assert (report.requests, report.spent, report.levers["batch"].dollars) == (2, result.cost, result.cost)


# -- mistakes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("models", "mend"),
    [
        ([], r"no model was given: .*optimizer.langchain\(ChatOpenAI\(model=\"gpt-4o-mini\"\)\)"),
        (["gpt-4o-mini"], r"'gpt-4o-mini' is a text: give the model itself, as in optimizer.langchain\(ChatOpenAI"),
        ([["a", "b"]], r"give models one by one, and no list of them: optimizer.langchain\(\*models\)"),
        ([MockLLM()], r"MockLLM is no chat model of LangChain: a LlamaIndex LLM is for optimizer.llamaindex\(\)"),
        (["strong", "cheap"], "costs less than 'gpt-4o', after which it comes: list the tiers from the cheapest"),
        (["cached"], "has a cache of its own: leave out its cache="),
    ],
)
def test_models_that_do_not_go_are_told_with_their_mend(
    make_optimizer: Make, server: OpenAIServer, models: list[Any], mend: str
) -> None:
    optimizer = make_optimizer()
    known = {
        "strong": chat(server, model="gpt-4o"),
        "cheap": chat(server),
        "cached": chat(server, cache=optimizer.langchain(chat(server)).cache),
    }
    given = [known.get(model, model) if isinstance(model, str) else model for model in models]
    with pytest.raises(ConfigError, match=mend):
        optimizer.langchain(*given)


def test_several_models_need_a_router(make_optimizer: Make, server: OpenAIServer) -> None:
    with pytest.raises(ConfigError, match="2 models, and no router to choose: write"):
        two(make_optimizer(router=None), server)
    policy = make_optimizer(router={"policy": {"strong_share": 0.3}, "cascade": {"samples": 1}, "shadow": True})
    assert isinstance(two(policy, server).llm, RouterRunnable)
    with pytest.raises(ConfigError, match="give one target"):
        two(make_optimizer(router={"policy": {}}), server)
    with pytest.raises(ConfigError, match="there is no router at"):
        two(make_optimizer(router={"estimator": "no such file"}), server)


async def test_many_tasks_pay_once(make_optimizer: Make, server: OpenAIServer) -> None:
    app = two(make_optimizer(), server)
    answers = await asyncio.gather(*(app.llm.ainvoke(QUESTIONS[0]) for _ in range(20)))
    assert len({answer.content for answer in answers}) == len(server.requests) == 1
