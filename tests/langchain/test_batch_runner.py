"""LangChain's own models, driven by their real SDKs, whose calls go through a provider's batch API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableBranch, RunnableLambda, RunnableParallel
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import langchain_costopt
from costopt import BatchError, ConfigError, LocalStore
from costopt.pricing import Usage, cost
from langchain_costopt.batch_runner import BatchRunner
from tests.batch_server import BatchServer, Fault, batch_server
from tests.costopt.batch.support import FAST, close_clients, makes

QUESTIONS = [f"question {number}" for number in range(6)]
# For what is the same whoever is asked.
ONE = pytest.mark.parametrize("llm", ["openai"], indirect=True)


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with batch_server() as running:
        yield running
        close_clients()


@pytest.fixture(params=["openai", "anthropic"])
def llm(request: pytest.FixtureRequest, server: BatchServer) -> Iterator[Any]:
    if request.param == "openai":
        http: Any = openai.DefaultHttpxClient(verify=False)
        ahttp: Any = openai.DefaultAsyncHttpxClient(verify=False)
        yield ChatOpenAI(
            model="gpt-4o-mini", api_key="none", base_url=f"{server.url}/v1", http_client=http, http_async_client=ahttp
        )
        http.close()
    else:
        chat = ChatAnthropic(model="claude-haiku-4-5", api_key="none", base_url=server.url, max_tokens=50)
        yield chat
        chat._client.close()


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"journal": str(tmp_path / "journal.db"), "backoff": FAST, "settle": 0.05}


def plain(message: Any) -> Any:
    """A message without what differs between any two calls."""
    fields = message.model_dump() if isinstance(message, AIMessage) else message
    return {k: v for k, v in fields.items() if k != "id"} if isinstance(fields, dict) else fields


def test_batch_returns_what_batch_would_have_returned(llm: Any, server: BatchServer, options: Any) -> None:
    expected = llm.batch(QUESTIONS)
    singles = len(server.single)
    answers = BatchRunner(llm, **options).batch(QUESTIONS)
    assert [plain(answer) for answer in answers] == [plain(answer) for answer in expected]
    assert len(server.single) == singles, "no call went out by itself"
    assert len(server.batches) == 1
    assert list(server.billed.values()) == [1] * 6


async def test_abatch_and_as_completed_return_the_same(llm: Any, server: BatchServer, options: Any) -> None:
    runner = BatchRunner(llm, **options)
    answers = await runner.abatch(QUESTIONS)
    pairs = {place: answer async for place, answer in BatchRunner(llm, **options).aas_completed(QUESTIONS)}
    blocking = dict(await asyncio.to_thread(lambda: list(runner.as_completed(QUESTIONS))))
    inside = runner.batch(QUESTIONS)  # an event loop is running here
    for other in (pairs, blocking, dict(enumerate(inside))):
        assert [other[place].content for place in range(6)] == [answer.content for answer in answers]
    assert list(server.billed.values()) == [1] * 6


def test_what_was_paid_before_comes_without_usage(llm: Any, server: BatchServer, options: Any) -> None:
    first = BatchRunner(llm, **options).batch([*QUESTIONS, QUESTIONS[0]])
    again = BatchRunner(llm, **options).batch(QUESTIONS)
    said = [answer.usage_metadata["input_tokens"] for answer in (*first, *again)]
    assert sum(said) == server.usage[0]
    assert [tokens > 0 for tokens in said] == [True] * 6 + [False] * 7


def test_chains_tools_and_prompts_run_as_ever(llm: Any, server: BatchServer, options: Any) -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
    chain = prompt | llm.bind(stop=["END"]) | StrOutputParser() | RunnableLambda(str.upper)
    inputs = [{"question": question} for question in QUESTIONS]
    expected = chain.batch(inputs)
    assert BatchRunner(chain, **options).batch(inputs) == expected
    bodies = [body for batch in server.batches.values() for _, body in batch.rows]
    assert all(body.get("stop", body.get("stop_sequences")) == ["END"] for body in bodies)
    assert len(server.batches) == 1


@ONE
def test_a_chain_of_two_calls_takes_two_batches(llm: Any, server: BatchServer, options: Any) -> None:
    chain = llm | RunnableLambda(lambda message: message.content[::-1]) | llm
    expected = [answer.content for answer in chain.batch(QUESTIONS)]
    assert [answer.content for answer in BatchRunner(chain, **options).batch(QUESTIONS)] == expected
    assert [len(batch.rows) for batch in server.batches.values()] == [6, 6]


@ONE
def test_calls_side_by_side_share_a_batch(llm: Any, server: BatchServer, options: Any) -> None:
    both = RunnableParallel(a=llm, b=RunnableLambda(lambda text: f"other {text}") | llm)
    answers = BatchRunner(both, **options).batch(QUESTIONS)
    assert [sorted(answer) for answer in answers] == [["a", "b"]] * 6
    assert [len(batch.rows) for batch in server.batches.values()] == [12]


@ONE
def test_branches_and_maps_go_into_batches_too(llm: Any, server: BatchServer, options: Any) -> None:
    branch = RunnableBranch((lambda text: "3" in text, llm.bind(stop=["END"])), llm)
    answers = BatchRunner(branch | StrOutputParser(), **options).batch(QUESTIONS)
    each = RunnableLambda(lambda text: [text, f"other {text}"]) | llm.map()
    pairs = BatchRunner(each, **options).batch(QUESTIONS)
    assert [[answer.content for answer in pair][:1] for pair in pairs[:3]] == [[answer] for answer in answers[:3]]
    assert server.single == []
    # All but the one with a stop text were paid in the first.
    assert [len(batch.rows) for batch in server.batches.values()] == [6, 7]


@ONE
@pytest.mark.parametrize("kind", ["RunnableLambda", "RunnableConfigurableFields"])
def test_a_model_that_cannot_be_held_back_is_refused(llm: Any, options: Any, kind: str) -> None:
    hidden: Any = RunnableLambda(lambda message: llm.invoke(message.content))
    if kind != "RunnableLambda":
        hidden = llm.configurable_fields(temperature=ConfigurableField(id="temperature"))
    with pytest.raises(ConfigError, match=f"the chat model in a {kind} has no batches here: make it a step"):
        BatchRunner(llm | hidden, **options)
    local = FakeListChatModel(responses=["a"])
    BatchRunner(llm | RunnableLambda(lambda message: local.invoke(message.content)), **options)


def test_structured_output_is_parsed(server: BatchServer, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Person(BaseModel):
        name: str

    monkeypatch.setattr("tests.batch_answers.answer_to", lambda body: '{"name": "Ada"}')
    llm = ChatOpenAI(model="gpt-4o-mini", api_key="none", base_url=f"{server.url}/v1")
    for raw in (False, True):
        structured = llm.with_structured_output(Person, method="json_schema", include_raw=raw)
        answers = BatchRunner(structured, salt=str(raw), **options).batch(["Who?", "Whom?"])
        assert [answer["parsed"] if raw else answer for answer in answers] == [Person(name="Ada")] * 2
    body = next(iter(server.batches.values())).rows[0][1]
    assert body["response_format"]["json_schema"]["name"] == "Person"


def test_errors_are_the_sdks_own_and_of_their_input_alone(llm: Any, server: BatchServer, options: Any) -> None:
    server.fate = lambda body, before: "invalid" if "3" in str(body["messages"][-1]["content"]) else "ok"
    answers = BatchRunner(llm, **options).batch(QUESTIONS, return_exceptions=True)
    assert [isinstance(answer, AIMessage) for answer in answers] == [True, True, True, False, True, True]
    assert isinstance(answers[3], openai.BadRequestError | anthropic.BadRequestError)
    assert "the row is invalid" in str(answers[3])
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)):
        BatchRunner(llm, **options).batch(QUESTIONS)
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)):
        list(BatchRunner(llm, **options).as_completed(QUESTIONS))


@ONE
def test_rows_that_never_get_through_are_errors_of_the_server(llm: Any, server: BatchServer, options: Any) -> None:
    server.fate = lambda body, before: "expired"
    (error,) = BatchRunner(llm, tries=1, **options).batch(["?"], return_exceptions=True)
    assert isinstance(error, openai.InternalServerError | anthropic.InternalServerError)
    assert "expired" in str(error)


@ONE
def test_small_lots_go_straight_away_if_urgent(llm: Any, server: BatchServer, options: Any) -> None:
    runner = BatchRunner(llm, urgent=2, **options)
    runner.batch(QUESTIONS[:2])
    assert (len(server.single), len(server.batches)) == (2, 0)
    runner.batch(QUESTIONS[:3])
    assert (len(server.single), len(server.batches)) == (2, 1)
    assert len(list(BatchRunner(llm, urgent=True, **options).as_completed(QUESTIONS))) == 6
    assert (len(server.single), len(server.batches)) == (8, 1)


@ONE
def test_what_the_cache_has_is_not_sent(llm: Any, server: BatchServer, options: Any, tmp_path: Path) -> None:
    cache = langchain_costopt.SemanticCache(LocalStore(tmp_path / "cache.db"), exact_only=True)
    llm.cache = cache
    llm.invoke(QUESTIONS[0])
    answers = BatchRunner(llm, **options).batch([*QUESTIONS, QUESTIONS[1]])
    assert [answer.content for answer in answers[1:2]] == [answers[6].content]
    assert answers[0].response_metadata["costopt"]["cache"] == "exact"
    assert [len(batch.rows) for batch in server.batches.values()] == [5]
    assert llm.invoke(QUESTIONS[2]).response_metadata["costopt"]["cache"] == "exact"  # the batch filled the cache
    cache.close()


def test_handlers_hear_of_every_call_and_that_it_is_in_a_batch(llm: Any, server: BatchServer, options: Any) -> None:
    class Heard(BaseCallbackHandler):
        def __init__(self) -> None:
            self.batches: list[Any] = []
            self.tokens = 0

        def on_chat_model_start(self, *args: Any, metadata: Any = None, **kwargs: Any) -> None:
            self.batches.append((metadata["costopt_batch"], metadata["mine"]))

        def on_llm_end(self, response: Any, **kwargs: Any) -> None:
            self.tokens += response.generations[0][0].message.usage_metadata["input_tokens"]

    heard = Heard()
    config = {"callbacks": [heard], "metadata": {"mine": 1}, "max_concurrency": 2}
    BatchRunner(llm, **options).batch(QUESTIONS, config)
    assert len(heard.batches) == 6
    assert len(set(heard.batches)) == 1
    assert heard.tokens == server.usage[0]


def test_the_cost_tracker_books_what_the_server_bills(
    llm: Any, server: BatchServer, options: Any, tmp_path: Path
) -> None:
    tracker = langchain_costopt.CostTracker(tmp_path / "ledger.db")
    for _ in range(2):  # the second time everything is in the journal
        BatchRunner(llm, **options).batch([*QUESTIONS, QUESTIONS[0]], {"callbacks": [tracker]})
    totals = tracker.totals()
    model = getattr(llm, "model_name", None) or llm.model
    assert [totals.input_tokens, totals.output_tokens] == server.usage
    assert totals.cost == cost(model, Usage(*server.usage), batch=True)
    assert totals.batched == totals.attempts == 14
    # Two in all for each question, but for the first, which was asked four times.
    saved = tracker.ledger.savings()
    assert (totals.cache_hits, saved["cache"].requests) == (8, 8)
    assert saved["cache"].dollars > 2 * saved["batch"].dollars > 0, "more answers than were paid, at the full price"
    tracker.ledger.close()


def test_the_responses_api_goes_into_batches_of_its_own(server: BatchServer, options: Any) -> None:
    llm = ChatOpenAI(model="gpt-4o-mini", api_key="none", base_url=f"{server.url}/v1", use_responses_api=True)
    expected = [answer.text for answer in llm.batch(QUESTIONS)]
    assert [answer.text for answer in BatchRunner(llm, **options).batch(QUESTIONS)] == expected
    assert [batch.endpoint for batch in server.batches.values()] == ["/v1/responses"]


def test_messages_go_as_they_are(llm: Any, server: BatchServer, options: Any) -> None:
    messages = [SystemMessage("Be brief."), HumanMessage("Why?")]
    expected = llm.invoke(messages).content
    assert BatchRunner(llm, **options).batch([messages])[0].content == expected


def test_a_streaming_model_does_not_stream_in_a_batch(server: BatchServer, options: Any) -> None:
    llm = ChatOpenAI(model="gpt-4o-mini", api_key="none", base_url=f"{server.url}/v1", streaming=True)
    (answer,) = BatchRunner(llm, **options).batch(["?"])
    assert answer.content.startswith("answer")


@ONE
def test_after_a_failure_the_same_call_goes_on(llm: Any, server: BatchServer, options: Any) -> None:
    server.fault = lambda method, path, number: Fault(status=401) if makes(method, path) else None
    with pytest.raises(BatchError, match="give a key"):
        BatchRunner(llm, **options).batch(QUESTIONS)
    server.fault = lambda method, path, number: None
    assert len(BatchRunner(llm, **options).batch(QUESTIONS)) == 6
    assert list(server.billed.values()) == [1] * 6


@ONE
def test_an_iterator_that_is_left_leaves_nothing_running(llm: Any, server: BatchServer, options: Any) -> None:
    server.polls = 10**9
    server.fate = lambda body, before: "ok"
    rows = BatchRunner(llm.with_retry(), **options).as_completed(QUESTIONS)
    cache_hit = BatchRunner(RunnableLambda(str.upper) | llm, **options)
    del cache_hit
    rows.close()  # not begun
    server.polls = 1
    rows = BatchRunner(llm, **options).as_completed(QUESTIONS)
    next(rows)
    rows.close()
    assert len(BatchRunner(llm, **options).batch(QUESTIONS)) == 6
    assert list(server.billed.values()) == [1] * 6


def test_what_has_no_batches_is_refused_when_the_runner_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ChatOpenAI or a ChatAnthropic"):
        BatchRunner(FakeListChatModel(responses=["a"]))
    with pytest.raises(ConfigError, match="no chat model"):
        BatchRunner(RunnableLambda(str.upper))
    assert BatchRunner(FakeListChatModel(responses=["a"]), urgent=True).batch(["?"])[0].content == "a"


@ONE
def test_no_inputs_no_outputs(llm: Any, server: BatchServer, options: Any) -> None:
    assert BatchRunner(llm, **options).batch([]) == []
    assert server.requests == []
