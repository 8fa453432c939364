"""A chat model that counts what it is paid for, and how it is asked."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from costopt import RedisStore
from langchain_costopt import SemanticCache
from tests.faults.words import MOST_ADDED_S, NEAR, Words, human, wait_for
from tests.servers import RedisServer

QUESTION = "how old is the moon"
REWORDED = "the moon is how old"
COUNTRIES = ("France", "Spain", "Italy", "Norway", "Japan", "Greece", "Poland", "Egypt", "Brazil", "Canada")


class Model(BaseChatModel):
    """Answers in words that tell which question it was asked; may take its time, or fail at first."""

    seconds: float = 0.0
    failures: int = 0
    _asked: list[str] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "fault-test"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "fault-test-1"}

    @property
    def calls(self) -> int:
        """How often somebody had to pay."""
        return len(self._asked)

    def _generate(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> ChatResult:
        number = self._note(messages)
        time.sleep(self.seconds)
        return self._result(messages, number)

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> ChatResult:
        number = self._note(messages)
        await asyncio.sleep(self.seconds)
        return self._result(messages, number)

    def _note(self, messages: list[BaseMessage]) -> int:
        with self._lock:
            self._asked.append(repr(messages[-1].content))
            return len(self._asked)

    def _result(self, messages: list[BaseMessage], number: int) -> ChatResult:
        if number <= self.failures:
            raise ConnectionError("the provider is down")
        message = AIMessage(content=answer_to(messages[-1].content))
        return ChatResult(generations=[ChatGeneration(message=message)])


def answer_to(question: Any) -> str:
    """What `Model` answers: another question's answer, wrongly served, shows at once."""
    return "answer " + hashlib.sha256(repr(question).encode()).hexdigest()[:12]


def tier(message: Any) -> str | None:
    """Which tier served a message; None if it was paid for."""
    served = message.response_metadata.get("costopt")
    return None if served is None else str(served["cache"])


def ask(model: BaseChatModel, question: Any) -> tuple[Any, float]:
    """The answer, and the seconds it took."""
    started = time.perf_counter()
    answer = model.invoke(question)
    return answer, time.perf_counter() - started


async def aask(model: BaseChatModel, question: Any) -> tuple[Any, float]:
    """`ask`, awaited."""
    started = time.perf_counter()
    answer = await model.ainvoke(question)
    return answer, time.perf_counter() - started


def questions(topic: str, count: int) -> list[str]:
    """Questions that are new to every tier."""
    animals = ("llama", "otter", "heron", "badger", "lynx", "newt", "ibex", "wombat", "gecko", "puffin")
    return [f"{topic}: how long did a {animals[i % 10]} sleep in the year {1900 + i}?" for i in range(count)]


def capital(number: int) -> tuple[str, str]:
    """A question, and the same in other words."""
    country = COUNTRIES[number % len(COUNTRIES)]
    return f"What is the capital of {country}?", f"What's the capital city of {country}?"


def median_lookup_s(cache: SemanticCache, topic: str, count: int = 40) -> float:
    """Median seconds that looking up a new question takes."""
    taken = []
    for question in questions(topic, count):
        request = human(cache.core, question)
        started = time.perf_counter()
        cache.core.lookup(request)
        taken.append(time.perf_counter() - started)
    return sorted(taken)[count // 2]


def cached(store: Any, **options: Any) -> SemanticCache:
    return SemanticCache(store, embedder=Words(), judge=NEAR, **options)


def patient(url: str, **options: Any) -> SemanticCache:
    """For what is no matter of time, on a machine that may be busy."""
    return cached(RedisStore(url, timeout=2.0, **options), time_budget=10.0).warm()


def serves(model: Model, topic: str = "moon") -> bool:
    """Whether a new question is kept, and served in both tiers."""
    question, reworded = f"how old is the {topic}", f"the {topic} is how old"
    model.invoke(question)
    answers = [model.invoke(question), model.invoke(reworded)]
    assert {answer.content for answer in answers} <= {answer_to(question), answer_to(reworded)}
    return [tier(answer) for answer in answers] == ["exact", "semantic"]


async def aserves(model: Model, topic: str = "moon") -> bool:
    """`serves`, awaited."""
    question, reworded = f"how old is the {topic}", f"the {topic} is how old"
    await model.ainvoke(question)
    return [tier(await model.ainvoke(text)) for text in (question, reworded)] == ["exact", "semantic"]


def until_served(model: Model) -> None:
    topics = iter(f"moon{number}" for number in range(10_000))
    wait_for(lambda: serves(model, next(topics)), "both tiers serve", 30)


def costs_little(model: Model, topic: str) -> None:
    """New questions are answered, each in little more time than the model takes."""
    for question in questions(topic, 5):
        answer, seconds = ask(model, question)
        assert answer.content == answer_to(question)
        assert seconds <= MOST_ADDED_S


async def acosts_little(model: Model, topic: str) -> None:
    """`costs_little`, awaited."""
    for question in questions(topic, 5):
        answer, seconds = await aask(model, question)
        assert answer.content == answer_to(question)
        assert seconds <= MOST_ADDED_S


@contextmanager
def frozen(*servers: RedisServer) -> Iterator[None]:
    for server in servers:
        server.stop()
    try:
        yield
    finally:
        for server in servers:
            server.resume()
