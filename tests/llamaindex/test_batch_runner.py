"""LlamaIndex's own LLMs, driven by their real SDKs, whose calls go through a provider's batch API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index.llms.openai import OpenAI, OpenAIResponses
from pydantic import BaseModel

from costopt import ConfigError
from costopt.pricing import Usage, cost
from llamaindex_costopt import CostTracker
from llamaindex_costopt.batch_runner import BatchRunner
from tests.batch_server import BatchServer, batch_server
from tests.costopt.batch.support import FAST

TEXTS = [f"question {number}" for number in range(4)]
CHATS = [[ChatMessage(role="user", content=text)] for text in TEXTS]


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with batch_server() as running:
        yield running


@pytest.fixture(params=["openai", "responses"])
def llm(request: pytest.FixtureRequest, server: BatchServer) -> Iterator[Any]:
    made: Any
    if request.param == "openai":
        made = OpenAI(model="gpt-4o-mini", api_key="none", api_base=f"{server.url}/v1")
        yield made
        made._get_client().close()
    else:
        made = OpenAIResponses(model="gpt-4o-mini", api_key="none", api_base=f"{server.url}/v1")
        yield made
        made._client.close()


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"journal": str(tmp_path / "journal.db"), "backoff": FAST, "settle": 0.05}


def test_batch_returns_what_the_calls_would_have_returned(llm: Any, server: BatchServer, options: Any) -> None:
    expected = [*(llm.complete(text) for text in TEXTS), *(llm.chat(chat) for chat in CHATS)]
    singles = len(server.single)
    answers = BatchRunner(llm, **options).batch([*TEXTS, *CHATS])
    assert [type(answer) for answer in answers] == [type(answer) for answer in expected]
    assert [str(answer) for answer in answers] == [str(answer) for answer in expected]
    assert len(server.single) == singles, "no call went out by itself"
    assert len(server.batches) == 1


async def test_abatch_and_as_completed_return_the_same(llm: Any, server: BatchServer, options: Any) -> None:
    answers = [str(each) for each in await BatchRunner(llm, **options).abatch(CHATS)]
    runner = BatchRunner(llm, **options)
    awaited = {place: str(answer) async for place, answer in runner.aas_completed(CHATS)}
    blocking = {place: str(answer) for place, answer in runner.as_completed(CHATS)}  # an event loop is running here
    assert awaited == blocking == dict(enumerate(answers))
    assert list(server.billed.values()) == [1] * 4


def test_errors_are_the_sdks_own_and_of_their_input_alone(llm: Any, server: BatchServer, options: Any) -> None:
    server.fate = lambda body, before: "invalid" if "question 2" in str(body) else "ok"
    answers = BatchRunner(llm, **options).batch(TEXTS, return_exceptions=True)
    assert [isinstance(answer, Exception) for answer in answers] == [False, False, True, False]
    assert isinstance(answers[2], openai.BadRequestError)
    with pytest.raises(openai.BadRequestError):
        BatchRunner(llm, **options).batch(TEXTS)


def test_small_lots_go_straight_away_if_urgent(llm: Any, server: BatchServer, options: Any) -> None:
    BatchRunner(llm, urgent=2, **options).batch(TEXTS[:2])
    assert (len(server.single), len(server.batches)) == (2, 0)
    BatchRunner(llm, urgent=2, **options).batch(TEXTS)
    assert (len(server.single), len(server.batches)) == (2, 1)


def test_structured_llms_give_objects(server: BatchServer, options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Person(BaseModel):
        name: str

    monkeypatch.setattr("tests.batch_answers.answer_to", lambda body: '{"name": "Ada"}')
    llm = OpenAI(model="gpt-4o-mini", api_key="none", api_base=f"{server.url}/v1").as_structured_llm(Person)
    answers = BatchRunner(llm, **options).batch(CHATS[:2])
    assert [answer.raw for answer in answers] == [Person(name="Ada")] * 2
    assert len(server.batches) == 1
    llm.llm._get_client().close()


def test_handlers_hear_of_every_call_and_that_it_is_in_a_batch(llm: Any, server: BatchServer, options: Any) -> None:
    class Heard(BaseEventHandler):
        tags: list[Any] = []  # noqa: RUF012

        def handle(self, event: Any, **kwargs: Any) -> None:
            if type(event).__name__ == "LLMChatEndEvent":
                self.tags.append(event.tags.get("costopt_batch"))

    heard, dispatcher = Heard(), get_dispatcher()
    dispatcher.add_event_handler(heard)
    try:
        BatchRunner(llm, **options).batch(CHATS)
    finally:
        dispatcher.event_handlers.remove(heard)
    assert len(heard.tags) == 4
    assert len(set(heard.tags)) == 1
    assert heard.tags[0]


def test_the_cost_tracker_books_what_the_server_bills(
    llm: Any, server: BatchServer, options: Any, tmp_path: Path
) -> None:
    with CostTracker(tmp_path / "ledger.db").installed() as tracker:
        for _ in range(2):  # the second time everything is in the journal
            BatchRunner(llm, **options).batch([*CHATS, CHATS[0]])
    totals = tracker.totals()
    assert [totals.input_tokens, totals.output_tokens] == server.usage
    assert totals.cost == cost("gpt-4o-mini", Usage(*server.usage), batch=True)
    assert totals.batched == totals.attempts == 10
    saved = tracker.ledger.savings()
    assert (totals.cache_hits, saved["cache"].requests) == (6, 6)
    assert saved["cache"].dollars > 2 * saved["batch"].dollars > 0, "more answers than were paid, at the full price"
    tracker.ledger.close()


def test_a_rate_limiter_does_not_slow_a_batch_down(server: BatchServer, options: Any) -> None:
    class Never(BaseRateLimiter):
        def acquire(self, num_tokens: int = 0) -> None:
            raise AssertionError("asked")

        async def async_acquire(self, num_tokens: int = 0) -> None:
            raise AssertionError("asked")

    llm = OpenAI(model="gpt-4o-mini", api_key="none", api_base=f"{server.url}/v1", rate_limiter=Never())
    assert len(BatchRunner(llm, **options).batch(CHATS)) == 4
    llm._get_client().close()


def test_what_has_no_batches_is_refused_when_the_runner_is_made() -> None:
    with pytest.raises(ConfigError, match="OpenAI or Anthropic"):
        BatchRunner(MockLLM())
    assert str(BatchRunner(MockLLM(), urgent=True).batch(["hello"])[0]) == "hello"
